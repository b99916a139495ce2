"""`python -m towline`."""

from __future__ import annotations

from towline.cli.main import main

if __name__ == "__main__":
    raise SystemExit(main())
