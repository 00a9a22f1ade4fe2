"""Feature-wise scale and shift of the state by the embedding of τ."""

from __future__ import annotations

import math

from torch import Tensor, nn

from iqn_blocks.functional import by_level
from iqn_blocks.kinds import Size
from iqn_blocks.registry import register


@register("film", slot="mixer")
class Film(nn.Module):
    """``x[k·B + b] = (1 + γ) ⊙ s[b] + β``, ``[γ, β] = W φ[k·B + b] + c`` (arXiv:1709.07871, eq. 2).

    ``(B, D), (R, P), K -> (K·B, D)``, where ``φ`` has ``R = K·B`` rows, or ``K`` that the batch
    shares. ``phi_dim`` is ``P``, ``out_dim`` is ``D``.

    ``γ`` and ``β`` are a Linear of ``φ``, not its two halves: ``φ`` comes from an activation, and
    after a ReLU both could only be positive. The Linear's weights start small and its bias at zero:
    ``γ`` and ``β`` are then about a tenth as large as ``φ``, and ``x`` is nearly ``s``.

    Args:
        phi_dim: width P of the embedding of τ that scale and shift are made of.

    Raises:
        ValueError: ``φ`` has another number of rows.
    """

    def __init__(self, state_dim: int, *, phi_dim: Size = 128) -> None:
        super().__init__()
        self.phi_dim, self.out_dim = phi_dim, state_dim
        self.modulation = nn.Linear(phi_dim, 2 * state_dim)
        nn.init.normal_(self.modulation.weight, std=0.1 / math.sqrt(phi_dim))
        nn.init.zeros_(self.modulation.bias)

    def forward(self, state: Tensor, phi: Tensor, num_quantiles: int) -> Tensor:
        both = by_level(self.modulation(phi), state, num_quantiles)
        scale, shift = both.chunk(2, dim=-1)
        return ((1 + scale) * state + shift).flatten(0, 1)
