"""Copies of modules in which plain layers replace noisy and spectrally normalised ones."""

from __future__ import annotations

import copy
from typing import Any, TypeVar

from torch import Tensor, nn

from iqn_blocks.blocks import NoisyLinear, SpectralNormConv2d

Part = TypeVar("Part", bound=nn.Module)


def plain_copy(part: Part) -> Part:
    """A deep copy with a Conv2d for each SpectralNormConv2d and a Linear for each NoisyLinear.

    Only layers of exactly these classes are replaced; any other module is copied as it is.
    """
    memo: dict[int, nn.Module] = {}  # deepcopy uses these copies instead of making its own
    for layer in part.modules():
        if type(layer) is SpectralNormConv2d:
            conv = nn.Conv2d(layer.in_channels, layer.out_channels, *layer.geometry, device="meta")
            conv.weight = nn.Parameter(layer.normalized_weight())
            conv.bias = copy.deepcopy(layer.bias)
            memo[id(layer)] = conv
        elif type(layer) is NoisyLinear:
            memo[id(layer)] = linear(*layer.effective_weight())
    return copy.deepcopy(part, memo)


def linear(weight: Tensor, bias: Tensor) -> nn.Linear:
    """The Linear of a weight ``(out, in)`` and a bias ``(out,)``."""
    layer = nn.Linear(weight.shape[1], weight.shape[0], device="meta")
    layer.weight, layer.bias = nn.Parameter(weight), nn.Parameter(bias)
    return layer


def is_linear(layer: object) -> bool:
    """Whether :func:`weight_and_bias` knows the layer."""
    return type(layer) in (nn.Linear, NoisyLinear)


def weight_and_bias(layer: Any) -> tuple[Tensor, Tensor]:
    """Weight and bias of a Linear, or of a NoisyLinear under its present noise."""
    if type(layer) is NoisyLinear:
        return layer.effective_weight()
    weight: Tensor = layer.weight
    return weight, weight.new_zeros(len(weight)) if layer.bias is None else layer.bias
