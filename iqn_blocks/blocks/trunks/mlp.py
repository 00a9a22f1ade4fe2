"""A perceptron as trunk."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

from iqn_blocks.kinds import Layers, Probability, Size
from iqn_blocks.registry import register


@register("mlp", slot="trunk")
class MLPTrunk(nn.Module):
    """A perceptron over all tokens at once: ``(B, T, d) -> (B, d)``.

    ``n_layers − 1`` times [Linear → ``hidden_dim``, ReLU, dropout], then a Linear → ``d``.

    Args:
        hidden_dim: width of its hidden layers.
        n_layers: Linear layers, the last one included.
        dropout: dropout probability after each hidden layer.
    """

    def __init__(
        self,
        n_tokens: int,
        d_model: int,
        *,
        hidden_dim: Size = 512,
        n_layers: Layers = 2,
        dropout: Probability = 0.0,
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
