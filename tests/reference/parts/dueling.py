"""Dueling with a centre that does not depend on τ."""

from __future__ import annotations

import torch
from torch import Tensor


def dueling_at_midpoints(
    value: Tensor, advantage: Tensor, at_midpoints: Tensor, num_quantiles: int, n_midpoints: int
) -> Tensor:
    """Q(s, a, τ) = V(s, τ) + A(s, a, τ) − 1/(M·|A|) Σ_m Σ_a' A(s, a', τ_m), for each offset.

    value: (K·B, 1), advantage: (K·B, A) or (K·B, N, A), at_midpoints: the same with M·B rows.
    """
    if advantage.dim() == 3:
        columns = [
            dueling_at_midpoints(
                value, advantage[:, n], at_midpoints[:, n], num_quantiles, n_midpoints
            )
            for n in range(advantage.shape[1])
        ]
        return torch.stack(columns, dim=1)
    batch, actions = value.shape[0] // num_quantiles, advantage.shape[1]
    rows = []
    for k in range(num_quantiles):
        for b in range(batch):
            centre = torch.zeros_like(value[0, 0])
            for m in range(n_midpoints):
                for a in range(actions):
                    centre = centre + at_midpoints[m * batch + b, a] / (n_midpoints * actions)
            row = k * batch + b
            rows.append(value[row, 0] + advantage[row] - centre)
    return torch.stack(rows)
