"""Writes a file to standard output at a steady rate, as an engine writes its export.

    python steady.py FILE BYTES_PER_SECOND

What is held up by whoever reads stays late: an engine does not make up for it either.
"""

from __future__ import annotations

import os
import sys
import time

PIECE = 32 << 10
"""Bytes of one write, as of a Go program."""
SLEEP = 0.002
"""Seconds that a sleep may take too long; so much is made up for."""

file = os.open(sys.argv[1], os.O_RDONLY)
rate = float(sys.argv[2])
due = time.perf_counter()
while left := memoryview(os.read(file, PIECE)):
    due = max(due, time.perf_counter() - SLEEP) + len(left) / rate
    while left:
        left = left[os.write(1, left) :]
    time.sleep(max(0, due - time.perf_counter()))
