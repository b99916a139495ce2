"""Runs the command of its arguments and prints what it cost, as JSON.

A process of its own, as small as Python can be: the kernel counts the memory of whoever starts a
command as that command's, so the benchmark itself must not be the one. What the command prints
goes to standard error.
"""

from __future__ import annotations

import os
import sys
import time

started = time.perf_counter()
pid = os.posix_spawnp(
    sys.argv[1], sys.argv[1:], os.environ, file_actions=[(os.POSIX_SPAWN_DUP2, 2, 1)]
)
_, status, used = os.wait4(pid, 0)
wall = time.perf_counter() - started
cpu = used.ru_utime + used.ru_stime
code = os.waitstatus_to_exitcode(status)
peak = used.ru_maxrss * 1024
print(f'{{"code": {code}, "wall": {wall}, "cpu": {cpu}, "peak": {peak}}}')
