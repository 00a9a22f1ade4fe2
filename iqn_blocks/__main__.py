"""``python -m iqn_blocks`` is the command ``iqn-blocks``."""

from __future__ import annotations

from iqn_blocks.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
