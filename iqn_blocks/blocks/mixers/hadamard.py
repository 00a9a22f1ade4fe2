"""The mixer of the IQN paper."""

from __future__ import annotations

from torch import Tensor, nn

from iqn_blocks.functional import hadamard_mix
from iqn_blocks.registry import register


@register("hadamard", slot="mixer")
class Hadamard(nn.Module):
    """``x[k·B + b] = s[b] ⊙ φ[k·B + b]`` (arXiv:1806.06923, section 3.1).

    ``(B, D), (R, D), K -> (K·B, D)``, where ``φ`` has ``R = K·B`` rows, or ``K`` that the batch
    shares. ``phi_dim`` and ``out_dim`` are ``D``.

    Raises:
        ValueError: ``φ`` has another number of rows.
    """

    def __init__(self, state_dim: int) -> None:
        super().__init__()
        self.phi_dim = self.out_dim = state_dim

    def forward(self, state: Tensor, phi: Tensor, num_quantiles: int) -> Tensor:
        return hadamard_mix(state, phi, num_quantiles)

    def extra_repr(self) -> str:
        return str(self.out_dim)
