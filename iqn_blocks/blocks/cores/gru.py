"""The core of a gated recurrent unit."""

from __future__ import annotations

from torch import Tensor, nn

from iqn_blocks.blocks.cores.base import Core
from iqn_blocks.kinds import SizeOrNull
from iqn_blocks.registry import register


@register("gru", slot="core")
class GRU(Core):
    """Gated recurrent unit (arXiv:1406.1078), whose memory ``h (B, M)`` is the new state.

    ``r = σ(W_r s + U_r h)``, ``z = σ(W_z s + U_z h)``, ``n = tanh(W_n s + r ⊙ (U_n h))``,
    ``h' = (1 − z) ⊙ n + z ⊙ h``, each product with a bias. As in PyTorch ``r`` stands after
    ``U_n``; the paper writes ``U_n (r ⊙ h)``.

    Args:
        hidden_dim: width M of the memory and of the new state; null takes D.
    """

    def __init__(self, state_dim: int, *, hidden_dim: SizeOrNull = None) -> None:
        width = hidden_dim or state_dim
        super().__init__(width, width)
        self.cell = nn.GRUCell(state_dim, width)

    def step(self, state: Tensor, memory: Tensor) -> tuple[Tensor, Tensor]:
        h: Tensor = self.cell(state, memory)
        return h, h
