"""The projection of τ with further layers."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from tests.reference.layers import activation, linear
from tests.reference.parameters import Parameters
from tests.reference.quantiles import tau_embedding


def deep_tau_embedding(
    config: Any, params: Parameters, tau: Tensor, width: int, n_layers: int
) -> Tensor:
    """φ = LReLU(W c + b) and then n − 1 times φ ← LReLU(W' φ + b'). tau: (R, 1) -> (R, P)."""
    phi = tau_embedding(config, params, tau, width)
    for i in range(n_layers - 1):
        phi = activation(config.nn.activation, linear(params.under(f"further.{i}"), phi, width))
    return phi
