"""A quantile function of a mean and slopes above 0 (arXiv:2105.06696, arXiv:2504.08215)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..layers import activation, linear
from ..parameters import Parameters


def monotone_head(
    params: Parameters,
    x: Tensor,
    tau: Tensor,
    *,
    out_shape: tuple[int, ...],
    width: int,
    levels: int,
    num_quantiles: int,
) -> Tensor:
    """q(τ) = mean_i y[i] + I(τ) − ∫₀¹ I, I(τ) = ∫₀^τ slope, slope = ln(1 + e^z[i]) in piece i.

    x: (M·B, in), mixed at the middle of each piece; tau: (K·B, 1) or (K, 1) -> (K·B, *out_shape).
    """
    n_outputs = math.prod(out_shape)
    batch = len(x) // levels
    hidden = activation("leaky_relu", linear(params.under("hidden.0.linear"), x, width))
    out = linear(params.under("readout"), hidden, 2 * n_outputs)
    y, slope = out[:, :n_outputs], torch.log(1 + torch.exp(out[:, n_outputs:]))

    def integral(b: int, upto: Tensor) -> Tensor:
        total = torch.zeros_like(y[0])
        for i in range(levels):
            inside = (upto - i / levels).clamp(0, 1 / levels)  # how much of piece i lies below
            total = total + inside * slope[i * batch + b]
        return total

    rows = []
    for k in range(num_quantiles):
        for b in range(batch):
            level = tau[k if len(tau) == num_quantiles else k * batch + b, 0]
            mean = sum(y[i * batch + b] for i in range(levels)) / levels
            # I is straight in a piece, so that its value in the middle is its mean over the piece.
            middles = [torch.tensor((i + 0.5) / levels, dtype=x.dtype) for i in range(levels)]
            average = sum(integral(b, middle) for middle in middles) / levels
            rows.append(mean + integral(b, level) - average)
    return torch.stack(rows).reshape(-1, *out_shape)
