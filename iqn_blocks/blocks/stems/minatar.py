"""The stem for MinAtar's small grids."""

from __future__ import annotations

from iqn_blocks.blocks.stems.base import ConvStack, Readout
from iqn_blocks.kinds import Size
from iqn_blocks.registry import register


@register("minatar", slot="stem")
class MinAtarStem(ConvStack):
    """One convolution k3 s1 of width 16 without padding, and a ReLU (arXiv:1903.03176).

    ``(B, C, H, W) -> (B, out_dim)``, ``16·(H − 2)·(W − 2)`` features of any number of channels:
    1024 for MinAtar's 10×10 grids. Its channels are 0 or 1: pass them as floats, since uint8 images
    are scaled.

    Args:
        readout: what becomes of the feature map; max and avg pool it, tokens makes each position a
            token.
        readout_size: side of the pooled map, in positions.

    Raises:
        ValueError: an image side below 3 pixels.
    """

    def __init__(
        self,
        in_channels: int,
        image_size: tuple[int, int],
        *,
        readout: Readout = "flatten",
        readout_size: Size = 6,
    ) -> None:
        super().__init__(
            in_channels,
            image_size,
            [(16, 3, 1)],
            title="MinAtar stem",
            readout=readout,
            readout_size=readout_size,
        )
