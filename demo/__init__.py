"""The networks of the docs acting on real Atari frames and RAM."""

from __future__ import annotations
