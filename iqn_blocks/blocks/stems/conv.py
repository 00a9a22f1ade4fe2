"""The 4-layer convolutional stem."""

from __future__ import annotations

from iqn_blocks.blocks.stems.base import ConvStack
from iqn_blocks.registry import register


@register("conv", slot="stem")
class ConvStem(ConvStack):
    """The 4-layer CNN: k4 s2, k4 s2, k3 s2, k3 s1 of widths 16, 32, 64, 32, no padding.

    ``(B, C, H, W) -> (B, out_dim)``, an activation after each convolution; ``image_size`` is
    ``(H, W)``. This stem has no residual blocks, so that the scope ``residual`` normalises nothing.

    Raises:
        ValueError: an image side below 34 pixels.
    """

    title = "4-layer CNN"
    layers = ((16, 4, 2), (32, 4, 2), (64, 3, 2), (32, 3, 1))
