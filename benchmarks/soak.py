"""Push for a long time and under faults; `make test` does less of each.

Thousands of random runs of what sends to registries, and hundreds of kills of the embedded one.
"""

from __future__ import annotations

import os
import subprocess
import sys

MANY = {"SOAK_RUNS": "3000", "SOAK_KILLS": "200"}
STORAGE = "tests/integration/test_server_storage.py"
TESTS = [
    "tests/property/test_pushes.py",
    f"{STORAGE}::test_whenever_it_is_killed_what_was_acknowledged_is_there_and_whole",
]


def main() -> int:
    environ = {**MANY, **os.environ}
    command = [sys.executable, "-m", "pytest", *TESTS, *sys.argv[1:]]
    return subprocess.run(command, env=environ, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
