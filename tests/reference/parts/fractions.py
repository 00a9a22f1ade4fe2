"""Fractions that a network proposes, and the mean that they weigh."""

from __future__ import annotations

import torch
from torch import Tensor

from tests.reference.parameters import Parameters


def proposed(params: Parameters, state: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """τ[i] = Σ_{j<i} p[j], τ̂[i] = (τ[i] + τ[i+1]) / 2, H = −Σ p log p with p = softmax(W s + b).

    state: (B, D), a constant to the gradient -> (B, K+1), (B, K), (B,).
    """
    state = state.detach()
    weight = params.shaped("linear.weight", count, state.shape[1])
    bias = params.shaped("linear.bias", count)
    taus, midpoints, entropies = [], [], []
    for s in state:
        powers = [torch.exp(weight[i] @ s + bias[i]) for i in range(count)]
        p = [power / sum(powers) for power in powers]
        tau = [torch.zeros_like(p[0])]
        for probability in p:
            tau.append(tau[-1] + probability)
        taus.append(torch.stack(tau))
        midpoints.append(torch.stack([(tau[i] + tau[i + 1]) / 2 for i in range(count)]).detach())
        entropies.append(-sum(x * torch.log(x) for x in p))
    return torch.stack(taus), torch.stack(midpoints), torch.stack(entropies)


def weighted_mean(q: Tensor, tau: Tensor) -> Tensor:
    """Σ_i (τ[i+1] − τ[i]) q(τ̂[i]), the weights being constants. q: (K·B, A), tau: (B, K+1)."""
    batch, count = tau.shape[0], tau.shape[1] - 1
    tau = tau.detach()
    rows = []
    for b in range(batch):
        rows.append(sum((tau[b, i + 1] - tau[b, i]) * q[i * batch + b] for i in range(count)))
    return torch.stack(rows)
