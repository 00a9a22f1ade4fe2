"""IMPALA's residual convolutional stem."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

from iqn_blocks.blocks.pool import HalvingMaxPool
from iqn_blocks.blocks.stems.base import MapReadout, Readout, SpectralNormScope, channels_last, conv
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
    """Conv k3 p1, [LayerNorm], max-pool k3 s2 p1, two residual blocks.

    ``(B, C, H, W) -> (B, C', ⌈H/2⌉, ⌈W/2⌉)``. ``norm_size`` is the ``(H, W)`` that the LayerNorm
    is made for; None leaves it out.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        spectral_norm: SpectralNormScope | None = None,
        norm_size: tuple[int, int] | None = None,
    ) -> None:
        super().__init__()
        self.conv = conv(in_channels, out_channels, 3, padding=1, spectral=spectral_norm == "all")
        self.norm = None if norm_size is None else nn.LayerNorm((out_channels, *norm_size))
        self.pool = HalvingMaxPool()
        spectral = spectral_norm is not None
        self.blocks = nn.Sequential(
            ResidualBlock(out_channels, spectral=spectral),
            ResidualBlock(out_channels, spectral=spectral),
        )

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        if self.norm is not None:
            x = channels_last(self.norm(x))
        out: Tensor = self.blocks(self.pool(x))
        return out


@register("impala", slot="stem")
class ImpalaStem(nn.Module):
    """IMPALA's residual CNN (arXiv:1802.01561, figure 3) of width ``s``: stages of 16s, 32s, 32s.

    ``(B, C, H, W) -> (B, out_dim)``, with a final ReLU; ``image_size`` is ``(H, W)``.

    The LayerNorm is that of the program for arXiv:2411.03820: over all channels and positions of a
    stage's first convolution, with a scale and a shift for each of them.

    Args:
        width: ``s``, a factor of all channels.
        layer_norm: LayerNorm after each stage's first convolution; this size of image alone.
        spectral_norm: spectral normalisation of every convolution (``all``), or of those inside
            residual blocks (``residual``, as in arXiv:2411.03820).
        readout: what becomes of the last feature map; max and avg pool it, tokens makes each
            position a token.
        readout_size: side of the pooled map, in positions.
    """

    def __init__(
        self,
        in_channels: int,
        image_size: tuple[int, int],
        *,
        width: Size = 2,
        layer_norm: bool = False,
        spectral_norm: SpectralNormScope | None = None,
        readout: Readout = "flatten",
        readout_size: Size = 6,
    ) -> None:
        super().__init__()
        channels, size, stages = (in_channels, 16 * width, 32 * width, 32 * width), image_size, []
        for before, after in pairwise(channels):
            norm_size = size if layer_norm else None
            stages.append(
                ImpalaStage(before, after, spectral_norm=spectral_norm, norm_size=norm_size)
            )
            size = -(-size[0] // 2), -(-size[1] // 2)
        self.stages = nn.Sequential(*stages)
        self.readout = MapReadout((channels[-1], *size), readout, readout_size)
        self.out_dim, self.n_tokens = self.readout.out_dim, self.readout.n_tokens

    def forward(self, img: Tensor) -> Tensor:
        # Channels-last convolutions are the fast ones; the readout restores the C, H, W order.
        features = self.stages(channels_last(img))
        out: Tensor = self.readout(torch.relu_(features))
        return out
