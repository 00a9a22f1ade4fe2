"""Fractions that a network proposes for each state."""

from __future__ import annotations

from torch import Tensor, nn

from iqn_blocks.functional import FractionProposals, fraction_proposals


class FractionProposer(nn.Module):
    """``τ = cumsum softmax(W s + b)`` with no gradient into ``s``: ``(B, D) -> (B, K+1), …``.

    FQF (arXiv:1911.02140, section 3.3), see :func:`iqn_blocks.functional.fraction_proposals`. The
    weights start small (Xavier's with gain 0.01, as in the authors' code), so that fractions start
    almost equally spaced.
    """

    def __init__(self, state_dim: int, n_fractions: int) -> None:
        super().__init__()
        self.n_fractions = n_fractions
        self.linear = nn.Linear(state_dim, n_fractions)
        nn.init.xavier_uniform_(self.linear.weight, gain=0.01)
        nn.init.zeros_(self.linear.bias)

    def forward(self, state: Tensor) -> FractionProposals:
        return fraction_proposals(self.linear(state.detach()))
