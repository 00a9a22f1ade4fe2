"""Hadamax (arXiv:2505.15345): maxpool(GELU(LN(W₁x)) ⊙ GELU(LN(W₂x))), three times."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..layers import gelu
from ..parameters import Parameters
from ..stems import conv
from .readout import readout


def channel_norm(params: Parameters, x: Tensor) -> Tensor:
    """(x − mean) / √(variance + 1e-6) · γ + β over the channels of each position."""
    channels = x.shape[1]
    centred = x - x.sum(1, keepdim=True) / channels
    variance = (centred * centred).sum(1, keepdim=True) / channels
    scale = params.shaped("weight", channels).reshape(1, channels, 1, 1)
    shift = params.shaped("bias", channels).reshape(1, channels, 1, 1)
    return centred / torch.sqrt(variance + 1e-6) * scale + shift


def max_pool(x: Tensor, kernel: int, stride: int, padding: int) -> Tensor:
    """The largest value of each window that begins inside; what is outside does not count."""
    height, width = x.shape[2:]
    rows = []
    for top in range(-padding, height + padding - kernel + stride, stride):
        row = []
        for left in range(-padding, width + padding - kernel + stride, stride):
            window = x[:, :, max(top, 0) : top + kernel, max(left, 0) : left + kernel]
            row.append(window.amax(dim=(2, 3)))
        rows.append(torch.stack(row, dim=-1))
    return torch.stack(rows, dim=-2)


def same_conv(params: Parameters, x: Tensor, out: int, kernel: int) -> Tensor:
    """Stride 1, zeros around: ⌊(k − 1)/2⌋ above and to the left, the others below and right."""
    before, after = (kernel - 1) // 2, math.ceil((kernel - 1) / 2)
    batch, channels, height, width = x.shape
    padded = x.new_zeros(batch, channels, height + kernel - 1, width + kernel - 1)
    assert before + after == kernel - 1
    padded[:, :, before : before + height, before : before + width] = x
    return conv(params, padded, out, kernel)


def hadamax(params: Parameters, img: Tensor, kind: str = "flatten", size: int = 1) -> Tensor:
    """(B, C, H, W) -> (B, 64·⌈H/8⌉·⌈W/8⌉)."""
    x = img
    blocks = [(32, 8, (4, 4, 0)), (64, 4, (2, 2, 0)), (64, 3, (3, 1, 1))]
    for index, (out, kernel, pool) in enumerate(blocks):
        block = params.under(f"blocks.{index}")
        factors = []
        for branch in range(2):
            y = same_conv(block.under(f"convs.{branch}"), x, out, kernel)
            factors.append(gelu(channel_norm(block.under(f"norms.{branch}"), y)))
        x = max_pool(factors[0] * factors[1], *pool)
    return readout(x, kind, size)
