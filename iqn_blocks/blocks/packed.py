"""Single operations over fixed weights, in the layout that the CPU's kernels read fastest.

Each function packs a layer's weight as it is now, as ``torch.compile`` does with frozen weights,
and gives the call that computes with it. What is too small to gain from oneDNN runs as PyTorch's
own. The calls know neither gradients nor autocast.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from iqn_blocks.blocks.activation import activate_
from iqn_blocks.blocks.dense import HiddenLayer
from iqn_blocks.blocks.stems import ResidualBlock
from iqn_blocks.blocks.transformer import EncoderLayer

Step = Callable[[Tensor], Tensor]

# Below these, PyTorch's own float32 kernels are faster than oneDNN's, whose calls cost more.
FEWEST_POSITIONS = 128  # of a convolution's output
FEWEST_PRODUCTS = 5_000_000  # multiply-adds of a matrix product

_UNIT = [1, 1]  # dilation


def can_pack(weight: Tensor) -> bool:
    """Whether there is a layout of oneDNN's for such a weight, and PyTorch has the operations."""
    return (
        weight.device.type == "cpu"
        and weight.dtype in (torch.float32, torch.bfloat16)
        and torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
        and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    )


def in_turn(steps: Sequence[Step]) -> Step:
    """One step after the other."""

    def run(x: Tensor) -> Tensor:
        for step in steps:
            x = step(x)
        return x

    return run


def linear(weight: Tensor, bias: Tensor, negative_slope: float | None = None) -> Step:
    """``x Wᵀ + b``: ``(…, in) -> (…, out)``; with a slope a leaky ReLU follows, a ReLU for 0."""
    packed, bias, fewest = _packed_matrix(weight, bias)
    product: Callable[..., Tensor] = torch.ops.mkldnn._linear_pointwise.default
    fused = _fused(negative_slope)

    def step(x: Tensor) -> Tensor:
        if x.numel() < fewest:
            return _activated(F.linear(x, weight, bias), negative_slope)
        return product(x, packed, bias, *fused)

    return step


def linear_gelu(weight: Tensor, bias: Tensor) -> Step:
    """``GELU(x Wᵀ + b)``: ``(…, in) -> (…, out)``."""
    packed, bias, fewest = _packed_matrix(weight, bias)
    product: Callable[..., Tensor] = torch.ops.mkldnn._linear_pointwise.default

    def step(x: Tensor) -> Tensor:
        if x.numel() < fewest:
            return F.gelu(F.linear(x, weight, bias))
        return product(x, packed, bias, "gelu", [], "none")

    return step


def linear_add(weight: Tensor, bias: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
    """``y + x Wᵀ + b`` of ``x (…, in)`` and ``y (…, out)``."""
    packed, bias, fewest = _packed_matrix(weight, bias)
    product: Callable[..., Tensor] = torch.ops.mkldnn._linear_pointwise.binary

    def step(x: Tensor, y: Tensor) -> Tensor:
        if x.numel() < fewest:
            return F.linear(x, weight, bias).add_(y)
        return product(x, y, packed, bias, "add")

    return step


def layer_norm(norm: nn.LayerNorm) -> Step:
    """Layer normalisation over the last axis."""
    shape, weight, bias, eps = norm.normalized_shape, norm.weight, norm.bias, norm.eps
    return lambda x: torch.layer_norm(x, shape, weight, bias, eps)


def hidden_layer(layer: HiddenLayer) -> Step:
    """A :class:`~iqn_blocks.blocks.HiddenLayer` whose Linear is plain."""
    slope = layer.negative_slope
    plain = layer.linear
    assert isinstance(plain, nn.Linear)
    if layer.norm is None:
        return linear(plain.weight, plain.bias, slope)
    is_usual = type(layer.norm) is nn.LayerNorm
    norm = layer_norm(layer.norm) if is_usual else layer.norm.forward
    return in_turn([linear(plain.weight, plain.bias), norm, lambda x: activate_(x, slope)])


def convolution(
    conv: nn.Conv2d, out_size: tuple[int, int], negative_slope: float | None = None
) -> Step:
    """``conv``, with output maps of ``out_size``; with a slope a leaky ReLU follows."""
    packed, bias, fewest = _packed_kernel(conv, out_size)
    product: Callable[..., Tensor] = torch.ops.mkldnn._convolution_pointwise.default
    weight, stride, padding = conv.weight, *_geometry(conv)
    fused = _fused(negative_slope)

    def step(x: Tensor) -> Tensor:
        if x.shape[0] < fewest:
            return _activated(torch.conv2d(x, weight, bias, stride, padding), negative_slope)
        return product(x, packed, bias, padding, stride, _UNIT, 1, *fused)

    return step


def residual_block(block: ResidualBlock, size: tuple[int, int]) -> Step:
    """A residual block of plain convolutions over maps of ``size``, which it overwrites."""
    first, second = block.conv1, block.conv2
    hidden = convolution(first, size, negative_slope=0.0)
    packed, bias, fewest = _packed_kernel(second, size)
    product: Callable[..., Tensor] = torch.ops.mkldnn._convolution_pointwise_.binary
    weight, stride, padding = second.weight, *_geometry(second)
    add: tuple[Any, ...] = "add", 1.0, None, [], None

    def step(x: Tensor) -> Tensor:
        residual = hidden(torch.relu(x))
        if x.shape[0] < fewest:
            return torch.conv2d(residual, weight, bias, stride, padding).add_(x)
        return product(x, residual, packed, bias, padding, stride, _UNIT, 1, *add)

    return step


def encoder_layer(layer: EncoderLayer) -> Step:
    """An :class:`~iqn_blocks.blocks.transformer.EncoderLayer` without dropout."""
    attention = layer.self_attn
    n_heads = attention.n_heads
    query_key_value = linear(attention.in_proj_weight, attention.in_proj_bias)
    project = linear_add(attention.out_proj.weight, attention.out_proj.bias)
    widen = linear_gelu(layer.linear1.weight, layer.linear1.bias)
    narrow = linear_add(layer.linear2.weight, layer.linear2.bias)
    norm1, norm2 = layer_norm(layer.norm1), layer_norm(layer.norm2)

    def step(x: Tensor) -> Tensor:
        batch, tokens, d_model = x.shape
        qkv = query_key_value(x).view(batch, tokens, 3, n_heads, d_model // n_heads)
        q, k, v = qkv.transpose(1, 3).unbind(2)
        mixed = F.scaled_dot_product_attention(q, k, v)
        x = norm1(project(mixed.transpose(1, 2).flatten(2), x))
        return norm2(narrow(widen(x), x))

    return step


def _packed_matrix(weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor, int]:
    """Both as oneDNN reads them, and how many numbers of input make its product the faster one."""
    reorder: Callable[[Tensor], Tensor] = torch.ops.mkldnn._reorder_linear_weight
    fewest = 1 if weight.dtype == torch.bfloat16 else -(-FEWEST_PRODUCTS // weight.shape[0])
    return reorder(weight.detach()), bias.contiguous(), fewest


def _packed_kernel(conv: nn.Conv2d, out_size: tuple[int, int]) -> tuple[Tensor, Tensor, int]:
    """Weight and bias as oneDNN reads them, and how many images make it the faster one."""
    assert conv.bias is not None
    reorder: Callable[..., Tensor] = torch.ops.mkldnn._reorder_convolution_weight
    stride, padding = _geometry(conv)
    positions = out_size[0] * out_size[1]
    fewest = 1 if conv.weight.dtype == torch.bfloat16 else -(-FEWEST_POSITIONS // positions)
    packed = reorder(conv.weight.detach(), padding, stride, _UNIT, 1, None)
    return packed, conv.bias.contiguous(), fewest


def _geometry(conv: nn.Conv2d) -> tuple[list[int], list[int]]:
    return list(conv.stride), [int(side) for side in conv.padding]


def _activated(x: Tensor, negative_slope: float | None) -> Tensor:
    return x if negative_slope is None else activate_(x, negative_slope)


def _fused(negative_slope: float | None) -> tuple[str, list[Any], str]:
    """The same in the words of oneDNN's operations."""
    if negative_slope is None:
        return "none", [], ""
    return ("leaky_relu", [negative_slope], "") if negative_slope else ("relu", [], "")
