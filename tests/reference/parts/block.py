"""A head that all offsets of a block share: x[n] = x ⊙ e[n]."""

from __future__ import annotations

import torch
from torch import Tensor

from ..layers import activation, encoder, linear
from ..parameters import Parameters


def block_head(
    params: Parameters, x: Tensor, *, out_shape: tuple[int, ...], width: int, layers: int
) -> Tensor:
    """q[n] = readout(LReLU(W x'[n] + b)), x' = encoder(x[1], …, x[N]).

    x: (R, D) -> (R, *out_shape).
    """
    offsets = out_shape[0] if len(out_shape) > 1 else 1
    vectors = params.shaped("offsets", offsets, x.shape[1])
    rows = []
    for row in x:
        each = torch.stack([row * vectors[n] for n in range(offsets)])
        each = encoder(params.under("encoder"), each[None], layers, 2, 4)[0]
        hidden = activation("leaky_relu", linear(params.under("hidden.0.linear"), each, width))
        rows.append(linear(params.under("readout"), hidden, out_shape[-1]))
    return torch.stack(rows).reshape(-1, *out_shape)
