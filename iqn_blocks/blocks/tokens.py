"""Tokens from scalar features, and small helpers for tokens and vectors."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def projection(in_dim: int, out_dim: int) -> nn.Module:
    """A Linear from one width to another, or the identity for equal widths."""
    return nn.Identity() if in_dim == out_dim else nn.Linear(in_dim, out_dim)


def as_tokens(x: Tensor) -> Tensor:
    """Tokens ``(B, T, d)`` as they are, a vector ``(B, d)`` as one token ``(B, 1, d)``."""
    return x if x.ndim == 3 else x.unsqueeze(1)


class DenseTokens(nn.Module):
    """One vector cut into tokens: ``projection(x)``, ``(B, in_dim) -> (B, T, d)``.

    One Linear to ``T·d``; the input is cast to its dtype.
    """

    def __init__(self, in_dim: int, n_tokens: int, d_model: int) -> None:
        super().__init__()
        self.n_tokens, self.d_model = n_tokens, d_model
        self.projection = nn.Linear(in_dim, n_tokens * d_model)

    def forward(self, x: Tensor) -> Tensor:
        flat: Tensor = self.projection(x.to(self.projection.weight.dtype))
        return flat.view(-1, self.n_tokens, self.d_model)


class FeatureTokens(nn.Module):
    """One token for each scalar: ``token[i] = w·x[i] + b + slot[i]``, ``(B, F) -> (B, F, d)``.

    ``w`` and ``b`` are shared by all scalars, ``slot (F, d)`` is learned and starts at zero. The
    input is cast to the parameters' dtype.
    """

    def __init__(self, n_floats: int, d_model: int) -> None:
        super().__init__()
        self.n_tokens = n_floats
        self.projection = nn.Linear(1, d_model)
        self.slot_embedding = nn.Parameter(torch.zeros(n_floats, d_model))

    def forward(self, x: Tensor) -> Tensor:
        tokens: Tensor = self.projection(x.to(self.slot_embedding.dtype).unsqueeze(-1))
        return tokens + self.slot_embedding
