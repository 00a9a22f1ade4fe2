"""Convolutions along the token axis as trunk."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

from iqn_blocks.blocks.tokens import projection
from iqn_blocks.kinds import Probability, Size, Sizes
from iqn_blocks.registry import register


@register("cnn", slot="trunk")
class ConvTrunk(nn.Module):
    """Convolutions along the token axis, then the mean over positions: ``(B, T, d) -> (B, d)``.

    For each of ``hidden_channels`` [Conv1d with padding ``kernel_size // 2``, ReLU, dropout of
    whole channels]; a projection → ``d`` unless the last has that width already.

    Args:
        hidden_channels: channels of its convolutions, in order.
        kernel_size: kernel length, in tokens.
        dropout: channel dropout probability.
    """

    def __init__(
        self,
        n_tokens: int,
        d_model: int,
        *,
        hidden_channels: Sizes = (256, 256),
        kernel_size: Size = 3,
        dropout: Probability = 0.0,
    ) -> None:
        super().__init__()
        padding = kernel_size // 2
        self.convs = nn.ModuleList(
            nn.Conv1d(a, b, kernel_size, padding=padding)
            for a, b in pairwise([d_model, *hidden_channels])
        )
        self.dropout = nn.Dropout1d(dropout)
        self.projection = projection(hidden_channels[-1], d_model)

    def forward(self, tokens: Tensor) -> Tensor:
        x = tokens.transpose(1, 2)
        for conv in self.convs:
            x = self.dropout(torch.relu(conv(x)))
        out: Tensor = self.projection(x.mean(2))
        return out
