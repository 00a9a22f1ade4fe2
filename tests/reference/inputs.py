"""What happens to images and floats before any weight."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .layers import activation, layer_norm, linear, relu
from .parameters import Parameters


def image(config: Any, img: Tensor, dtype: torch.dtype) -> Tensor:
    """Floating images as they are; uint8 as (x − 128) / 128, or x / 255 if `unit`."""
    if img.dtype == torch.uint8:
        if config.nn.vis.uint8_scaling == "unit":
            return img.to(dtype) / 255
        assert config.nn.vis.uint8_scaling == "signed"
        return (img.to(dtype) - 128) / 128
    return img.to(dtype)


def normalized_floats(params: Parameters, floats: Tensor, dtype: torch.dtype) -> Tensor:
    """(x − mean) / std in float32, or float64 when that is the parameters' dtype."""
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    width = floats.shape[1]
    mean, std = params.shaped("mean", width).to(wide), params.shaped("std", width).to(wide)
    return ((floats.to(wide) - mean) / std).to(dtype)


def classic_float_mlp(config: Any, params: Parameters, floats_n: Tensor) -> Tensor:
    """f = LReLU([LN](Linear_{h→h}(LReLU([LN](Linear_{F→h}(floats_n))))))."""
    x = floats_n
    for index in range(2):
        layer = params.under(f"layers.{index}")
        x = linear(layer.under("linear"), x, config.nn.float.mlp.hidden_dim)
        if config.btr.use_layer_norm:
            x = layer_norm(layer.under("norm"), x)
        x = activation(config.nn.activation, x)
    return x


def relu_float_mlp(params: Parameters, floats_n: Tensor, hidden: int) -> Tensor:
    """ReLU(Linear_{h→h}(ReLU(Linear_{F→h}(floats_n)))), never a LayerNorm."""
    x = floats_n
    for index in range(2):
        x = relu(linear(params.under(f"layers.{index}.linear"), x, hidden))
    return x
