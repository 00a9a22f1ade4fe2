"""Trunks: what turns a sequence of tokens into one vector, ``(B, T, d) -> (B, d)``."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from iqn_blocks.blocks.tokens import projection


class MeanTrunk(nn.Module):
    """The mean over tokens: ``(B, T, d) -> (B, d)``."""

    def forward(self, tokens: Tensor) -> Tensor:
        return tokens.mean(1)


class NativeTrunk(nn.Module):
    """The mean over encoded tokens: ``(B, T, d) -> (B, d)``.

    ``encoder`` takes and gives tokens of width ``d``.
    """

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, tokens: Tensor) -> Tensor:
        encoded: Tensor = self.encoder(tokens)
        return encoded.mean(1)


class MLPTrunk(nn.Module):
    """A perceptron over all tokens at once: ``(B, T, d) -> (B, d)``.

    ``n_layers − 1`` times [Linear → ``hidden_dim``, ReLU, dropout], then a Linear → ``d``.
    """

    def __init__(
        self, n_tokens: int, d_model: int, hidden_dim: int, *, n_layers: int, dropout: float = 0.0
    ) -> None:
        super().__init__()
        widths = [n_tokens * d_model, *[hidden_dim] * (n_layers - 1)]
        self.hidden = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(widths))
        self.dropout = nn.Dropout(dropout)
        self.output = nn.Linear(widths[-1], d_model)

    def forward(self, tokens: Tensor) -> Tensor:
        x = tokens.flatten(1)
        for linear in self.hidden:
            x = self.dropout(torch.relu(linear(x)))
        out: Tensor = self.output(x)
        return out


class ConvTrunk(nn.Module):
    """Convolutions along the token axis, then the mean over positions: ``(B, T, d) -> (B, d)``.

    For each of ``hidden_channels`` [Conv1d with padding ``kernel_size // 2``, ReLU, dropout of
    whole channels]; a projection → ``d`` unless the last has that width already.
    """

    def __init__(
        self,
        d_model: int,
        hidden_channels: Sequence[int],
        *,
        kernel_size: int,
        dropout: float = 0.0,
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
