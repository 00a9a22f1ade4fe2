"""Grids of small configurations: plain mappings by readable names.

A grid is the full product of the choices that change the structure of a network. Sizes and options
that only change numbers are drawn for each configuration, the same ones in every run. A
configuration sets no key that its network does not read, so that each builds with `strict=True`.
"""

from __future__ import annotations

from .classic import classic_grid
from .hf_vision import hf_vision_grid
from .multimodal import multimodal_grid
from .rules import valid

__all__ = ["classic_grid", "hf_vision_grid", "multimodal_grid", "valid"]
