"""A real Chromium without a window, driven over its debugging pipe (Chrome DevTools Protocol)."""

from __future__ import annotations

import json
import os
import subprocess
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, BinaryIO

from tests.support import components

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class Page:
    """One tab."""

    def __init__(self, commands: BinaryIO, answers: BinaryIO) -> None:
        self._commands = commands
        self._answers = answers
        self._number = 0
        self._session: str | None = None
        self.seen: list[dict[str, Any]] = []
        """Events of the browser, oldest first."""
        target = self.ask("Target.createTarget", url="about:blank")["targetId"]
        found = self.ask("Target.attachToTarget", targetId=target, flatten=True)
        self._session = found["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.ask(f"{domain}.enable")

    def ask(self, method: str, **params: Any) -> dict[str, Any]:
        """Have it do something, and give what it answers."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": params}
        session = {"sessionId": self._session} if self._session else {}
        self._commands.write(json.dumps({**message, **session}).encode() + b"\0")
        self._commands.flush()
        while (answer := self._next()).get("id") != self._number:
            self.seen.append(answer)
        assert "error" not in answer, answer
        result: dict[str, Any] = answer["result"]
        return result

    def _next(self) -> dict[str, Any]:
        said = bytearray()
        while (byte := self._answers.read(1)) != b"\0":
            assert byte, "Chromium is gone"
            said += byte
        message: dict[str, Any] = json.loads(said)
        return message

    def open(self, path: Path, *, width: int, scheme: str) -> None:
        """Load a file anew, so many pixels wide, for somebody who likes `light` or `dark`."""
        self.seen.clear()
        metrics = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 500}
        self.ask("Emulation.setDeviceMetricsOverride", **metrics)
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.ask("Emulation.setEmulatedMedia", features=features)
        self.ask("Page.navigate", url=path.as_uri())
        while not any(event.get("method") == "Page.loadEventFired" for event in self.seen):
            self.seen.append(self._next())

    def value(self, expression: str) -> Any:
        """What a JavaScript expression comes to in the page."""
        found = self.ask("Runtime.evaluate", expression=expression, returnByValue=True)
        return found["result"]["value"]

    def events(self, method: str) -> list[dict[str, Any]]:
        """What was told under that name since the page was opened."""
        return [event["params"] for event in self.seen if event.get("method") == method]


@contextmanager
def chromium(folder: Path) -> Iterator[Page]:
    """Start it with a profile in that folder."""
    program, environ = _program()
    command = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
    command += ["--disable-background-networking", f"--user-data-dir={folder}"]
    command += ["--remote-debugging-pipe"]
    # It reads commands from descriptor 3 and writes answers to 4.
    to_it, commands = os.pipe()
    answers, from_it = os.pipe()
    ends = f'exec "$0" "$@" 3<&{to_it} 4>&{from_it}'
    with (
        open(commands, "wb") as writing,  # noqa: PTH123 - a descriptor
        open(answers, "rb") as reading,  # noqa: PTH123 - likewise
        (folder / "said").open("wb") as said,
        subprocess.Popen(
            ["bash", "-c", ends, program, *command],
            env={**environ, "HOME": str(folder)},
            stdout=said,
            stderr=said,
            pass_fds=(to_it, from_it),
        ) as process,
    ):
        os.close(to_it)
        os.close(from_it)
        try:
            yield Page(writing, reading)
        finally:
            process.terminate()


def _program() -> tuple[Path, dict[str, str]]:
    """Debian's own script looks for it under /usr alone."""
    found = components.find("chromium")
    assert found is not None
    root = components.TOOLS.parent / "root"
    unpacked = root / "usr/lib/chromium/chromium"
    if not (found.is_relative_to(components.TOOLS) and unpacked.exists()):
        return found, dict(os.environ)
    folders = [path for tree in ("usr/lib", "lib") for path in (root / tree).glob("*-linux-gnu")]
    folders += [path / "pulseaudio" for path in folders]
    return unpacked, {**os.environ, "LD_LIBRARY_PATH": ":".join(map(str, folders))}
