"""Push for a long time and under faults: thousands of random runs of what sends to registries."""

from __future__ import annotations

import os
import subprocess
import sys

RUNS = "3000"
TESTS = ["tests/property/test_passes.py"]


def main() -> int:
    environ = {"SOAK_RUNS": RUNS, **os.environ}
    command = [sys.executable, "-m", "pytest", *TESTS, *sys.argv[1:]]
    return subprocess.run(command, env=environ, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
