"""Push for a long time and under faults; `make test` does less of each.

Thousands of random runs of what sends to registries, hundreds of pushes through one `Pusher`, many
at once and of many processes, hundreds of kills, of the embedded registry and of pushes.
"""

from __future__ import annotations

import os
import subprocess
import sys

MANY = {
    "SOAK_RUNS": "3000",
    "SOAK_KILLS": "200",
    "SOAK_PUSHES": "500",
    "SOAK_PROCESSES": "20",
    "SOAK_AT_ONCE": "50",
}
STORAGE = "tests/integration/test_server_storage.py"
RESUMING = "tests/integration/test_resuming.py"
TESTS = [
    "tests/property/test_pushes.py",
    "tests/property/test_long_runs.py",
    f"{STORAGE}::test_whenever_it_is_killed_what_was_acknowledged_is_there_and_whole",
    f"{RESUMING}::test_killed_at_any_moment_the_next_push_sends_what_lacks",
]


def main() -> int:
    environ = {**MANY, **os.environ}
    command = [sys.executable, "-m", "pytest", *TESTS, *sys.argv[1:]]
    return subprocess.run(command, env=environ, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
