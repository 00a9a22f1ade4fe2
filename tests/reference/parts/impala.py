"""IMPALA (arXiv:1802.01561, figure 3) with LayerNorm and its readouts; Impoola is one of them."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ..layers import relu
from ..parameters import Parameters
from ..stems import conv
from .readout import readout


def map_norm(params: Parameters, x: Tensor) -> Tensor:
    """(x − mean) / √(variance + 1e-5) · γ + β over channels and positions of one sample."""
    samples = []
    for sample in x:
        mean = sample.sum() / sample.numel()
        variance = ((sample - mean) ** 2).sum() / sample.numel()
        samples.append((sample - mean) / torch.sqrt(variance + 1e-5))
    scale, shift = params.shaped("weight", *x.shape[1:]), params.shaped("bias", *x.shape[1:])
    return torch.stack(samples) * scale + shift


def impala(
    params: Parameters,
    img: Tensor,
    *,
    width: int = 2,
    layer_norm: bool = False,
    kind: str = "flatten",
    size: int = 1,
) -> Tensor:
    """Per stage: conv k3 p1, [LayerNorm], max-pool k3 s2 p1, two residual blocks; a final ReLU."""
    x = img
    for index, factor in enumerate([16, 32, 32]):
        stage, out = params.under(f"stages.{index}"), factor * width
        x = conv(stage.under("conv"), x, out, 3, padding=1)
        if layer_norm:
            x = map_norm(stage.under("norm"), x)
        x = F.max_pool2d(x, kernel_size=3, stride=2, padding=1)
        for number in range(2):
            block = stage.under(f"blocks.{number}")
            y = conv(block.under("conv1"), relu(x), out, 3, padding=1)
            x = x + conv(block.under("conv2"), relu(y), out, 3, padding=1)
    return readout(relu(x), kind, size)


def impoola(params: Parameters, img: Tensor, *, width: int = 2, layer_norm: bool = False) -> Tensor:
    """arXiv:2503.05546: the mean over all positions, (B, C, H, W) -> (B, 32·width)."""
    return impala(params, img, width=width, layer_norm=layer_norm, kind="avg", size=1)
