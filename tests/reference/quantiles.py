"""τ, the cosines, the mixing, the dueling combination."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from .heads import head
from .layers import activation, linear
from .parameters import Parameters


def tau_symmetric(u: Tensor) -> Tensor:
    """τ[k] = (k + u[k]) / K for k < K/2, τ[k] = 1 − τ[k − K/2] for the others.

    u: (K/2, B) draws of U[0, 1) -> (K·B, 1), row k·B + b.
    """
    half, batch = u.shape
    tau = torch.zeros(2 * half, batch, dtype=u.dtype)
    for k in range(2 * half):
        for b in range(batch):
            tau[k, b] = (k + u[k, b]) / (2 * half) if k < half else 1 - tau[k - half, b]
    return tau.reshape(2 * half * batch, 1)


def tau_uniform(u: Tensor) -> Tensor:
    """τ[k, b] = u[k, b]. u: (K, B) draws of U[0, 1) -> (K·B, 1)."""
    return u.reshape(-1, 1)


def tau_midpoints(num_quantiles: int, batch_size: int = 1) -> Tensor:
    """τ[k, b] = (k + ½) / K in float64 -> (K·B, 1); with B = 1 the shared (K, 1)."""
    rows = [(k + 0.5) / num_quantiles for k in range(num_quantiles) for _ in range(batch_size)]
    return torch.tensor(rows, dtype=torch.float64).reshape(-1, 1)


def sample_tau(scheme: str, num_quantiles: int, u: Tensor) -> Tensor:
    """The τ of a scheme from its draws u: (K/2, B) symmetric, (K, B) uniform and midpoints."""
    if scheme == "symmetric":
        assert num_quantiles % 2 == 0 and u.shape[0] == num_quantiles // 2
        return tau_symmetric(u)
    assert u.shape[0] == num_quantiles
    if scheme == "uniform":
        return tau_uniform(u)
    assert scheme == "midpoints", scheme
    return tau_midpoints(num_quantiles, u.shape[1]).to(u.dtype)


def cosine_features(tau: Tensor, embedding_dimension: int, start: int = 1) -> Tensor:
    """c[r, j] = cos(π · (start + j) · τ[r]), j = 0 … E − 1.

    Evaluated in float64, returned in float32 or wider. tau: (R, 1) -> (R, E).
    """
    wide = torch.float64 if tau.dtype == torch.float64 else torch.float32
    indices = range(start, start + embedding_dimension)
    columns = [torch.cos(math.pi * i * tau.double()).to(wide) for i in indices]
    return torch.cat(columns, dim=1)


def hadamard_mix(state: Tensor, phi: Tensor, num_quantiles: int) -> Tensor:
    """x[k·B + b] = s[b] ⊙ φ[k·B + b].

    state: (B, D), phi: (K·B, D), or (K, D) when the batch shares its τ -> (K·B, D).
    """
    batch = state.shape[0]
    if phi.shape[0] == num_quantiles:
        phi = torch.repeat_interleave(phi, batch, dim=0)
    return state.repeat(num_quantiles, 1) * phi


def dueling(value: Tensor, advantage: Tensor) -> Tensor:
    """Q = V + Adv − mean_over_A(Adv), the mean per offset.

    value: (R, 1), advantage: (R, A) or (R, N, A) -> like advantage.
    """
    if advantage.dim() == 3:
        offsets = [dueling(value, advantage[:, n]) for n in range(advantage.shape[1])]
        return torch.stack(offsets, dim=1)
    actions = advantage.shape[1]
    mean = sum((advantage[:, a] for a in range(actions)), torch.zeros_like(value[:, 0])) / actions
    return torch.stack([value[:, 0] + advantage[:, a] - mean for a in range(actions)], dim=1)


def tau_embedding(config: Any, params: Parameters, tau: Tensor, width: int) -> Tensor:
    """φ = LReLU(Linear_{E→D}(c)). tau: (R, 1) -> (R, D)."""
    iqn = config.nn.iqn
    parameters = params["projection.weight"]
    wide = torch.float64 if parameters.dtype == torch.float64 else torch.float32
    cosines = cosine_features(tau.to(wide), iqn.embedding_dimension, iqn.cosine_start)
    phi = linear(params.under("projection"), cosines.to(parameters.dtype), width)
    return activation(config.nn.activation, phi)


def quantile_path(
    config: Any, params: Parameters, state: Tensor, tau: Tensor, num_quantiles: int
) -> Tensor:
    """q from s: (B, D) and τ: (K·B, 1) or (K, 1) -> (K·B, A) or (K·B, N, A)."""
    assert tau.shape in {(num_quantiles * state.shape[0], 1), (num_quantiles, 1)}
    phi = tau_embedding(config, params.under("tau_embedding"), tau, state.shape[1])
    x = hadamard_mix(state, phi, num_quantiles)
    value = head(config, params.under("value_head"), x, "value")
    advantage = head(config, params.under("advantage_head"), x, "advantage")
    return dueling(value, advantage)
