"""Feed what is read from others with noise, for as many minutes as are asked for (30).

References, challenges, manifests, tars, archives, `Range`, `Link`, `Location`, heads of HTTP, texts
of a cache: the tests by hypothesis, round after round with other seeds, until one fails.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from random import SystemRandom

MINUTES = "30"
QUIETLY = ("-o", "faulthandler_timeout=600")
GIVEN = "@given("
SLOW = {"test_sources.py"}
"""Whole pushes: other tests feed the readers of what those are given."""


def main() -> int:
    minutes, *words = sys.argv[1:] or [MINUTES]
    end = time.monotonic() + 60 * float(minutes)
    tests = [
        str(path)
        for path in sorted(Path("tests").rglob("test_*.py"))
        if GIVEN in path.read_text() and path.name not in SLOW
    ]
    environ = {"HYPOTHESIS_PROFILE": "fuzz", **os.environ}
    command = [sys.executable, "-m", "pytest", "-q", "-m", "hypothesis", *QUIETLY, *tests, *words]
    status = 0
    while not status and time.monotonic() < end:
        seed = f"--hypothesis-seed={SystemRandom().randrange(1 << 32)}"
        status = subprocess.run([*command, seed], env=environ, check=False).returncode
    return status


if __name__ == "__main__":
    sys.exit(main())
