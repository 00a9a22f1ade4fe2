"""Bridges to other projects: the only modules that know of them.

Those that need another library installed are not imported here.
"""

from __future__ import annotations

from iqn_blocks.interop import btr, trackmania_rl

__all__ = ["btr", "trackmania_rl"]
