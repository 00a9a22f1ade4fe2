"""The embedding of τ."""

from __future__ import annotations

from torch import Tensor, nn

from iqn_blocks.blocks.activation import Activation, activate_, slope_below_zero
from iqn_blocks.functional import cosine_features, wide_dtype


class TauEmbedding(nn.Module):
    """``φ(τ) = activation(W cos(π·i·τ) + b)``: ``(R, 1) -> (R, P)`` (arXiv:1806.06923, eq. 4).

    ``i`` runs over ``embedding_dimension`` integers from ``cosine_start``. The cosines are computed
    in float32, or in float64 for float64 parameters. ``phi_dim`` is the width ``P`` that the mixer
    needs. The paper has one layer; with ``n_layers`` above 1 further ones follow, ``φ ←
    activation(W' φ + b')`` of width ``P``.
    """

    def __init__(
        self,
        embedding_dimension: int,
        phi_dim: int,
        *,
        cosine_start: int = 1,
        activation: Activation = "leaky_relu",
        n_layers: int = 1,
    ) -> None:
        super().__init__()
        self.embedding_dimension = embedding_dimension
        self.cosine_start = cosine_start
        self.negative_slope = slope_below_zero(activation)
        self.projection = nn.Linear(embedding_dimension, phi_dim)
        self.further = None
        if n_layers > 1:
            self.further = nn.ModuleList(nn.Linear(phi_dim, phi_dim) for _ in range(n_layers - 1))

    def forward(self, tau: Tensor) -> Tensor:
        dtype = self.projection.weight.dtype
        cosines = cosine_features(
            tau.to(wide_dtype(dtype)), self.embedding_dimension, self.cosine_start
        )
        phi = activate_(self.projection(cosines.to(dtype)), self.negative_slope)
        for layer in self.further or ():
            phi = activate_(layer(phi), self.negative_slope)
        return phi

    def extra_repr(self) -> str:
        last = self.cosine_start + self.embedding_dimension - 1
        return f"cos(π·i·τ), i = {self.cosine_start}…{last}"
