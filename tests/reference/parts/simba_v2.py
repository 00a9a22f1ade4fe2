"""SimbaV2 (arXiv:2502.15280, section 4), with the constants of its program."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..layers import relu
from ..parameters import Parameters


def unit(x: Tensor) -> Tensor:
    """x / ‖x‖ along the last axis."""
    return x / torch.sqrt((x * x).sum(-1, keepdim=True))


def scaled(params: Parameters, x: Tensor, start: float, scale: float) -> Tensor:
    """s ⊙ x, where s is the parameter times start / scale."""
    return params.shaped("scaler", x.shape[-1]) * (start / scale) * x


def product(params: Parameters, x: Tensor, out: int) -> Tensor:
    """W x, without a bias."""
    return x @ params.shaped("weight", out, x.shape[-1]).transpose(0, 1)


def simba_v2(
    params: Parameters, x: Tensor, *, width: int, blocks: int, expansion: int = 4, shift: float = 3
) -> Tensor:
    """õ = unit([o, shift]); h = unit(s ⊙ W õ); per block h ← unit((1 − α) ⊙ h + α ⊙ h̃).

    h̃ = unit(W₂ (ReLU(s ⊙ W₁ h) + 1e-8)). (R, in) -> (R, h).
    """
    start = math.sqrt(2 / width)
    x = unit(torch.cat([x, torch.full_like(x[:, :1], shift)], dim=1))
    x = unit(
        scaled(params.under("scaler"), product(params.under("embedding"), x, width), start, start)
    )
    for index in range(blocks):
        block, inside = params.under(f"blocks.{index}"), start / math.sqrt(expansion)
        y = product(block.under("linear1"), x, expansion * width)
        y = relu(scaled(block.under("scaler"), y, inside, inside)) + 1e-8
        y = unit(product(block.under("linear2"), y, width))
        ones = torch.ones_like(x)
        alpha = scaled(block.under("lerp"), ones, 1 / (blocks + 1), 1 / math.sqrt(width))
        x = unit((1 - alpha) * x + alpha * y)
    return x


def simba_v2_head(
    params: Parameters, x: Tensor, *, out_shape: tuple[int, ...], width: int, blocks: int
) -> Tensor:
    """W₂ (s ⊙ W₁ h) + b: (R, in) -> (R, *out_shape)."""
    x = simba_v2(params.under("trunk"), x, width=width, blocks=blocks)
    readout, n_outputs = params.under("readout"), math.prod(out_shape)
    x = scaled(readout.under("scaler"), product(readout.under("linear1"), x, width), 1, 1)
    out = product(readout.under("linear2"), x, n_outputs) + readout.shaped("bias", n_outputs)
    return out.reshape(len(x), *out_shape)
