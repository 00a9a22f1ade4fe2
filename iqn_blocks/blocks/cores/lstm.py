"""The core of long short-term memory."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from iqn_blocks.blocks.cores.base import Core
from iqn_blocks.kinds import SizeOrNull
from iqn_blocks.registry import register


@register("lstm", slot="core")
class LSTM(Core):
    """Long short-term memory with a forget gate (Gers, Schmidhuber, Cummins, 2000), as in DRQN.

    ``i, f, o = σ(W s + U h)`` each, ``g = tanh(W_g s + U_g h)``, ``c' = f ⊙ c + i ⊙ g``,
    ``h' = o ⊙ tanh(c')``, each product with a bias; the new state is ``h'``. The memory is
    ``[h, c] (B, 2·D')``. In recurrent Q-learning: arXiv:1507.06527.

    Args:
        hidden_dim: width D' of h, c and the new state; null takes D.
    """

    def __init__(self, state_dim: int, *, hidden_dim: SizeOrNull = None) -> None:
        width = hidden_dim or state_dim
        super().__init__(width, 2 * width)
        self.cell = nn.LSTMCell(state_dim, width)

    def step(self, state: Tensor, memory: Tensor) -> tuple[Tensor, Tensor]:
        h, c = self.cell(state, memory.chunk(2, dim=1))
        return h, torch.cat([h, c], dim=1)
