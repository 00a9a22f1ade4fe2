"""The stem for MinAtar's small grids."""

from __future__ import annotations

from iqn_blocks.blocks.stems.base import ReluStack
from iqn_blocks.registry import register


@register("minatar", slot="stem")
class MinAtarStem(ReluStack):
    """One convolution k3 s1 of width 16 without padding, and a ReLU (arXiv:1903.03176).

    ``(B, C, H, W) -> (B, out_dim)``: ``16·(H − 2)·(W − 2)`` features for any number of channels,
    1024 for MinAtar's 10×10 grids. Its channels are 0 or 1: pass them as floats, since uint8 images
    are scaled.

    Raises:
        ValueError: an image side below 3 pixels.
    """

    title = "MinAtar stem"
    layers = ((16, 3, 1),)
