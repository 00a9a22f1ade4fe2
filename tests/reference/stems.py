"""Image stems and spectral normalisation."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .layers import activation, relu
from .parameters import Parameters


def power_iteration(weight: Tensor, u: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """v ← Wᵀu / ‖Wᵀu‖, u ← Wv / ‖Wv‖; a zero W leaves both alone. weight: (out, in)."""
    if not weight.any():
        return u, v
    v = weight.transpose(0, 1) @ u
    v = v / torch.sqrt((v * v).sum())
    u = weight @ v
    u = u / torch.sqrt((u * u).sum())
    return u, v


def spectral_weight(params: Parameters, weight: Tensor, *, training: bool) -> Tensor:
    """W / σ with σ = uᵀWv, W as (out, in·k·k), u and v constants (arXiv:1802.05957).

    In training mode one power iteration goes first; a zero W is divided by 1.
    """
    matrix = weight.reshape(weight.shape[0], -1)
    u = params.shaped("u", matrix.shape[0]).detach()
    v = params.shaped("v", matrix.shape[1]).detach()
    if training:
        u, v = power_iteration(matrix.detach(), u, v)
    if not matrix.any():
        return weight
    return weight / (u @ (matrix @ v))


def conv(
    params: Parameters,
    x: Tensor,
    out: int,
    kernel: int,
    *,
    stride: int = 1,
    padding: int = 0,
    spectral: bool = False,
    training: bool = False,
) -> Tensor:
    """A 2-D convolution with bias, its weight spectrally normalised where `spectral`."""
    weight = params.shaped("weight", out, x.shape[1], kernel, kernel)
    if spectral:
        weight = spectral_weight(params, weight, training=training)
    return F.conv2d(x, weight, params.shaped("bias", out), stride=stride, padding=padding)


def adaptive_max_pool(x: Tensor, size: int) -> Tensor:
    """Cell i of n is the maximum over rows ⌊i·H/n⌋ … ⌈(i+1)·H/n⌉ − 1, and columns alike.

    (B, C, H, W) -> (B, C, n, n).
    """
    height, width = x.shape[2:]
    rows = []
    for i in range(size):
        top, bottom = math.floor(i * height / size), math.ceil((i + 1) * height / size)
        cells = []
        for j in range(size):
            left, right = math.floor(j * width / size), math.ceil((j + 1) * width / size)
            cells.append(x[:, :, top:bottom, left:right].amax(dim=(2, 3)))
        rows.append(torch.stack(cells, dim=-1))
    return torch.stack(rows, dim=-2)


def four_layer(config: Any, params: Parameters, x: Tensor, *, training: bool) -> Tensor:
    """Conv C→16 k4 s2, 16→32 k4 s2, 32→64 k3 s2, 64→32 k3 s1, LReLU after each."""
    cnn = config.nn.vis.cnn
    spectral = cnn.use_spectral_norm and cnn.spectral_norm_scope == "all"
    for index, (out, kernel, stride) in enumerate([(16, 4, 2), (32, 4, 2), (64, 3, 2), (32, 3, 1)]):
        layer = params.under(f"convs.{index}")
        x = conv(layer, x, out, kernel, stride=stride, spectral=spectral, training=training)
        x = activation(config.nn.activation, x)
    return x


def impala(config: Any, params: Parameters, x: Tensor, *, training: bool) -> Tensor:
    """Three stages of Conv k3 p1, MaxPool k3 s2 p1, two residual blocks; a final ReLU."""
    cnn = config.nn.vis.cnn
    everywhere = cnn.use_spectral_norm and cnn.spectral_norm_scope == "all"
    inside = cnn.use_spectral_norm
    for index, factor in enumerate([16, 32, 32]):
        out = factor * cnn.impala_model_size
        stage = params.under(f"stages.{index}")
        x = conv(stage.under("conv"), x, out, 3, padding=1, spectral=everywhere, training=training)
        x = F.max_pool2d(x, kernel_size=3, stride=2, padding=1)
        for number in range(2):
            block = stage.under(f"blocks.{number}")
            y = conv(
                block.under("conv1"), relu(x), out, 3, padding=1, spectral=inside, training=training
            )
            y = conv(
                block.under("conv2"), relu(y), out, 3, padding=1, spectral=inside, training=training
            )
            x = x + y
    return relu(x)


def stem(config: Any, params: Parameters, img: Tensor, *, training: bool = False) -> Tensor:
    """The image stem of `vis.cnn`, pooled where asked, then flat: (B, C, H, W) -> (B, conv_out)."""
    cnn = config.nn.vis.cnn
    build = impala if cnn.use_impala_cnn else four_layer
    x = build(config, params, img, training=training)
    if cnn.use_adaptive_maxpool:
        x = adaptive_max_pool(x, cnn.adaptive_maxpool_size)
    return x.reshape(x.shape[0], x.shape[1] * x.shape[2] * x.shape[3])
