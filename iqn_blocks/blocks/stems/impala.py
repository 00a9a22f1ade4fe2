"""IMPALA's residual convolutional stem."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

from iqn_blocks.blocks.pool import HalvingMaxPool
from iqn_blocks.blocks.stems.base import MapReadout, Readout, SpectralNormScope, conv
from iqn_blocks.kinds import Size
from iqn_blocks.registry import register


class ResidualBlock(nn.Module):
    """``x + Conv(ReLU(Conv(ReLU(x))))`` with k3 p1 convolutions: ``(B, C, H, W)`` in and out."""

    def __init__(self, channels: int, *, spectral: bool = False) -> None:
        super().__init__()
        self.conv1 = conv(channels, channels, 3, padding=1, spectral=spectral)
        self.conv2 = conv(channels, channels, 3, padding=1, spectral=spectral)

    def forward(self, x: Tensor) -> Tensor:
        residual: Tensor = self.conv2(torch.relu_(self.conv1(torch.relu(x))))
        return residual.add_(x)


class ImpalaStage(nn.Module):
    """Conv k3 p1, max-pool k3 s2 p1, two residual blocks.

    ``(B, C, H, W) -> (B, C', ⌈H/2⌉, ⌈W/2⌉)``.
    """

    def __init__(
        self, in_channels: int, out_channels: int, *, spectral_norm: SpectralNormScope | None = None
    ) -> None:
        super().__init__()
        self.conv = conv(in_channels, out_channels, 3, padding=1, spectral=spectral_norm == "all")
        self.pool = HalvingMaxPool()
        spectral = spectral_norm is not None
        self.blocks = nn.Sequential(
            ResidualBlock(out_channels, spectral=spectral),
            ResidualBlock(out_channels, spectral=spectral),
        )

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.blocks(self.pool(self.conv(x)))
        return out


@register("impala", slot="stem")
class ImpalaStem(nn.Module):
    """IMPALA's residual CNN (arXiv:1802.01561, figure 3) of width ``s``: stages of 16s, 32s, 32s.

    ``(B, C, H, W) -> (B, out_dim)``, with a final ReLU; ``image_size`` is ``(H, W)``.

    Args:
        width: ``s``.
        spectral_norm: spectral normalisation of every convolution (``all``), or of those inside
            residual blocks (``residual``, as in arXiv:2411.03820).
        readout: what becomes of the last feature map; ``max`` and ``avg`` pool it.
        readout_size: side of the pooled map, in positions.
    """

    def __init__(
        self,
        in_channels: int,
        image_size: tuple[int, int],
        *,
        width: Size = 2,
        spectral_norm: SpectralNormScope | None = None,
        readout: Readout = "flatten",
        readout_size: Size = 6,
    ) -> None:
        super().__init__()
        channels = (in_channels, 16 * width, 32 * width, 32 * width)
        self.stages = nn.Sequential(
            *(ImpalaStage(a, b, spectral_norm=spectral_norm) for a, b in pairwise(channels))
        )
        height, width_after = (-(-side // 8) for side in image_size)
        self.readout = MapReadout((channels[-1], height, width_after), readout, readout_size)
        self.out_dim = self.readout.out_dim

    def forward(self, img: Tensor) -> Tensor:
        # Channels-last convolutions are the fast ones; the readout restores the C, H, W order.
        features = self.stages(img.contiguous(memory_format=torch.channels_last))
        out: Tensor = self.readout(torch.relu_(features))
        return out
