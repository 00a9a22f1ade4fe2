"""The loss and the targets, one number at a time."""

from __future__ import annotations

import math
from itertools import product

import torch
from torch import Tensor


def quantile_huber(pred: Tensor, target: Tensor, tau: Tensor, kappa: float) -> Tensor:
    """mean_j Σ_i |τ[b,i] − 1{δ<0}| · L_κ(δ[b,i,j]) with δ[b,i,j] = target[b,j] − pred[b,i]."""

    def pair(b: int, i: int, j: int) -> float:
        delta = target[b, j].item() - pred[b, i].item()
        size = abs(delta)
        huber = delta**2 / (2 * kappa) if size < kappa else size - kappa / 2
        return abs(tau[b, i].item() - (delta < 0)) * huber

    batch, quantiles, targets = *pred.shape, target.shape[1]
    pairs = list(product(range(quantiles), range(targets)))
    losses = [sum(pair(b, i, j) for i, j in pairs) / targets for b in range(batch)]
    return torch.tensor(losses, dtype=torch.float64)


def log_policy(values: list[float], temperature: float, allowed: list[bool]) -> list[float]:
    """log softmax(values / T) over the allowed actions, −∞ for the others."""
    logits = [v / temperature if ok else -math.inf for v, ok in zip(values, allowed, strict=True)]
    top = max(logits)
    return [x - top - math.log(sum(math.exp(y - top) for y in logits)) for x in logits]


def target(
    kind: str,
    reward: Tensor,
    discount: Tensor,
    q: Tensor,
    other: Tensor,
    actions: Tensor,
    mask: Tensor,
    *,
    temperature: float = 0.5,
    alpha: float = 0.9,
    floor: float = -1.0,
    clamp: str = "scaled",
) -> Tensor:
    """``max``, ``double`` (``other`` is q_online) or ``munchausen`` (q_target_now), of blocks."""
    batch, quantiles, offsets, n_actions = q.shape
    result = torch.zeros(batch, quantiles, dtype=torch.float64)
    for b, j in product(range(batch), range(quantiles)):
        value, bonus = 0.0, 0.0
        for n in range(offsets):
            allowed = [a for a in range(n_actions) if mask[b, n, a]]
            means = other[b, :, n].mean(0).tolist()
            if kind == "max":
                value += max(q[b, j, n, a].item() for a in allowed)
            elif kind == "double":
                value += q[b, j, n, max(allowed, key=means.__getitem__)].item()
            else:
                log_pi = log_policy(q[b, :, n].mean(0).tolist(), temperature, mask[b, n].tolist())
                for a in allowed:
                    value += math.exp(log_pi[a]) * (q[b, j, n, a].item() - temperature * log_pi[a])
                now = log_policy(means, temperature, [True] * n_actions)[actions[b, n]]
                if clamp == "scaled":
                    bonus += alpha * min(max(temperature * now, floor), 0.0)
                else:
                    bonus += alpha * temperature * min(max(now, floor), 0.0)
        result[b, j] = reward[b].item() + bonus + discount[b].item() * value
    return result
