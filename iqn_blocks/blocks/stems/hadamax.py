"""Max-pooled Hadamard products of two convolutions."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from iqn_blocks.blocks.stems.base import MapReadout, Readout, channels_last, conv
from iqn_blocks.kinds import Size
from iqn_blocks.registry import register

# Channels and kernel of both convolutions; kernel, stride and padding of the pool.
BLOCKS = ((32, 8, (4, 4, 0)), (64, 4, (2, 2, 0)), (64, 3, (3, 1, 1)))


class HadamaxBlock(nn.Module):
    """``maxpool(GELU(LN(W₁ ∗ x)) ⊙ GELU(LN(W₂ ∗ x)))``: ``(B, C, H, W) -> (B, C', H', W')``.

    Convolutions of stride 1 that keep the size of the map: with an even kernel, one more row of
    zeros is added below than above, and one more column to the right. LayerNorm is over the
    channels of each position. ``pool`` is kernel, stride and padding; incomplete windows at the
    lower and right edge count.
    """

    def __init__(
        self, in_channels: int, out_channels: int, kernel: int, pool: tuple[int, int, int]
    ) -> None:
        super().__init__()
        self.convs = nn.ModuleList(conv(in_channels, out_channels, kernel) for _ in range(2))
        self.norms = nn.ModuleList(nn.LayerNorm(out_channels, eps=1e-6) for _ in range(2))
        before = (kernel - 1) // 2
        self.padding = (before, kernel - 1 - before) * 2
        self.pool = nn.MaxPool2d(*pool, ceil_mode=True)

    def forward(self, x: Tensor) -> Tensor:
        x = F.pad(x, self.padding)
        left, right = (
            F.gelu(norm(conv_layer(x).permute(0, 2, 3, 1)))
            for conv_layer, norm in zip(self.convs, self.norms, strict=True)
        )
        out: Tensor = self.pool((left * right).permute(0, 3, 1, 2))
        return out


@register("hadamax", slot="stem")
class HadamaxStem(nn.Module):
    """Hadamax (arXiv:2505.15345): three :class:`HadamaxBlock`, where DQN has strided convolutions.

    ``(B, C, H, W) -> (B, out_dim)``; ``image_size`` is ``(H, W)``. k8 of 32 channels and a pool k4
    s4; k4 of 64 and k2 s2; k3 of 64 and k3 s1: 84×84 frames give 64×11×11 features.

    The paper does not give sizes and paddings; these are from its programs. There are two: the one
    of its main results (PQN) normalises over channels, as here, the one for C51 over the whole map.
    GELU is the exact one of the paper; PQN's program has its tanh approximation. The paper's next
    Linear layer is the first layer of the heads here.

    Args:
        readout: what becomes of the last feature map; max and avg pool it, tokens makes each
            position a token.
        readout_size: side of the pooled map, in positions.
    """

    def __init__(
        self,
        in_channels: int,
        image_size: tuple[int, int],
        *,
        readout: Readout = "flatten",
        readout_size: Size = 6,
    ) -> None:
        super().__init__()
        blocks, channels = [], in_channels
        for out_channels, kernel, pool in BLOCKS:
            blocks.append(HadamaxBlock(channels, out_channels, kernel, pool))
            channels = out_channels
        self.blocks = nn.Sequential(*blocks)
        height, width = (-(-side // 8) for side in image_size)
        self.readout = MapReadout((channels, height, width), readout, readout_size)
        self.out_dim, self.n_tokens = self.readout.out_dim, self.readout.n_tokens

    def forward(self, img: Tensor) -> Tensor:
        # Channels-last convolutions are the fast ones; the readout restores the C, H, W order.
        features = self.blocks(channels_last(img))
        out: Tensor = self.readout(features)
        return out
