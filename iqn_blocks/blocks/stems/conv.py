"""The 4-layer convolutional stem."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from iqn_blocks.blocks.activation import Activation, slope_below_zero
from iqn_blocks.blocks.stems.base import MapReadout, Readout, SpectralNormScope, conv
from iqn_blocks.kinds import Size
from iqn_blocks.registry import register

LAYERS = ((16, 4, 2), (32, 4, 2), (64, 3, 2), (32, 3, 1))  # width, kernel, stride
MIN_SIDE = 34  # pixels a side that leave one position after the four convolutions


@register("conv", slot="stem")
class ConvStem(nn.Module):
    """The 4-layer CNN: k4 s2, k4 s2, k3 s2, k3 s1 of widths 16, 32, 64, 32, no padding.

    ``(B, C, H, W) -> (B, out_dim)``, an activation after each convolution; ``image_size`` is
    ``(H, W)``. This stem has no residual blocks, so spectral normalisation of ``residual`` scope
    puts it nowhere.

    Args:
        activation: after each convolution.
        spectral_norm: spectral normalisation (arXiv:1802.05957) of the convolutions.
        readout: what becomes of the last feature map; ``max`` and ``avg`` pool it.
        readout_size: side of the pooled map, in positions.

    Raises:
        ValueError: an image side below 34 pixels.
    """

    def __init__(
        self,
        in_channels: int,
        image_size: tuple[int, int],
        *,
        activation: Activation = "leaky_relu",
        spectral_norm: SpectralNormScope | None = None,
        readout: Readout = "flatten",
        readout_size: Size = 6,
    ) -> None:
        super().__init__()
        height, width = image_size
        if min(image_size) < MIN_SIDE:
            raise ValueError(
                f"image_size: found {width} x {height} (width x height), too small for the 4-layer "
                f"CNN; accepted: at least {MIN_SIDE} x {MIN_SIDE}; enlarge the image, or take an "
                f"IMPALA stem"
            )
        convs, channels = [], in_channels
        for out_channels, kernel, stride in LAYERS:
            convs.append(
                conv(channels, out_channels, kernel, stride, spectral=spectral_norm == "all")
            )
            channels = out_channels
            height, width = ((side - kernel) // stride + 1 for side in (height, width))
        self.convs = nn.ModuleList(convs)
        slope = slope_below_zero(activation)
        self.activation = nn.LeakyReLU(slope, inplace=True) if slope else nn.ReLU(inplace=True)
        self.readout = MapReadout((channels, height, width), readout, readout_size)
        self.out_dim = self.readout.out_dim

    def forward(self, img: Tensor) -> Tensor:
        # Channels-last convolutions are the fast ones; the readout restores the C, H, W order.
        x = img.contiguous(memory_format=torch.channels_last)
        for conv_layer in self.convs:
            x = self.activation(conv_layer(x))
        return cast(Tensor, self.readout(x))
