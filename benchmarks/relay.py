"""Passes connections on to a registry, each byte that much later: a kernel may have no netem.

    python relay.py HOST:PORT SECONDS

Prints its port. A round trip takes SECONDS, and to open a connection takes one, as TCP does it.
"""

from __future__ import annotations

import asyncio
import sys
from contextlib import suppress

BLOCK = 1 << 16


async def main(target: str, seconds: float) -> None:
    host, _, port = target.rpartition(":")

    async def accepted(near: asyncio.StreamReader, back: asyncio.StreamWriter) -> None:
        far, on = await asyncio.open_connection(host, int(port))
        opened = asyncio.get_running_loop().time() + seconds
        await asyncio.gather(
            pass_on(near, on, seconds / 2, opened), pass_on(far, back, seconds / 2, opened)
        )

    server = await asyncio.start_server(accepted, "127.0.0.1", 0, backlog=256)
    print(server.sockets[0].getsockname()[1], flush=True)
    async with server:
        await server.serve_forever()


async def pass_on(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, later: float, opened: float
) -> None:
    """Until the reader's end; nothing arrives before the connection is open."""
    clock = asyncio.get_running_loop().time
    queue: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()

    async def write() -> None:
        data = b"-"
        while data:
            due, data = await queue.get()
            await asyncio.sleep(due - clock())
            writer.write(data)
            await writer.drain()
        writer.close()

    writing = asyncio.create_task(write())
    data = b"-"
    with suppress(OSError):
        while data:
            data = await reader.read(BLOCK)
            queue.put_nowait((max(clock(), opened) + later, data))
    queue.put_nowait((clock(), b""))
    with suppress(OSError):
        await writing


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], float(sys.argv[2])))
