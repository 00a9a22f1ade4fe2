"""FiLM (arXiv:1709.07871, equation 2): x = (1 + γ(τ)) ⊙ s + β(τ)."""

from __future__ import annotations

import torch
from torch import Tensor

from ..layers import linear
from ..parameters import Parameters


def film(params: Parameters, state: Tensor, phi: Tensor, num_quantiles: int) -> Tensor:
    """state: (B, D), phi: (K·B, P), or (K, P) when the batch shares its τ -> (K·B, D)."""
    batch, width = state.shape
    both = linear(params.under("modulation"), phi, 2 * width)
    rows = []
    for k in range(num_quantiles):
        for b in range(batch):
            row = both[k if len(phi) == num_quantiles else k * batch + b]
            gamma, beta = row[:width], row[width:]
            rows.append((1 + gamma) * state[b] + beta)
    return torch.stack(rows)
