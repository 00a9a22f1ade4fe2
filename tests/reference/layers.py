"""The layers that everything else is made of."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .parameters import Parameters


def activation(name: str, x: Tensor) -> Tensor:
    """LeakyReLU with slope 0.01, or ReLU (`nn.activation`)."""
    if name == "leaky_relu":
        return torch.where(x > 0, x, 0.01 * x)
    assert name == "relu", name
    return relu(x)


def relu(x: Tensor) -> Tensor:
    """max(x, 0)."""
    return torch.where(x > 0, x, torch.zeros_like(x))


def gelu(x: Tensor) -> Tensor:
    """x · Φ(x) with the normal distribution function Φ, not its tanh approximation."""
    return x * 0.5 * (1 + torch.erf(x / math.sqrt(2)))


def linear(params: Parameters, x: Tensor, out: int) -> Tensor:
    """y = xWᵀ + b, W: (out, in)."""
    weight = params.shaped("weight", out, x.shape[-1])
    bias = params.shaped("bias", out)
    return x @ weight.transpose(0, 1) + bias


def projection(params: Parameters, x: Tensor, out: int) -> Tensor:
    """ "proj a→b": a Linear, left out when a = b."""
    return x if x.shape[-1] == out else linear(params, x, out)


def noisy_linear(params: Parameters, x: Tensor, out: int) -> Tensor:
    """y = x (μ_w + σ_w ⊙ ε_out ε_inᵀ)ᵀ + μ_b + σ_b ⊙ ε_out (NoisyLinear)."""
    width = x.shape[-1]
    epsilon_in = params.shaped("epsilon_in", width)
    epsilon_out = params.shaped("epsilon_out", out)
    outer = torch.stack([epsilon_out[row] * epsilon_in for row in range(out)])
    weight = (
        params.shaped("weight_mu", out, width) + params.shaped("weight_sigma", out, width) * outer
    )
    bias = params.shaped("bias_mu", out) + params.shaped("bias_sigma", out) * epsilon_out
    return x @ weight.transpose(0, 1) + bias


def layer_norm(params: Parameters, x: Tensor) -> Tensor:
    """(x − mean) / √(variance + 1e-5) · γ + β over the last axis (PyTorch's LayerNorm)."""
    width = x.shape[-1]
    centred = x - x.sum(-1, keepdim=True) / width
    variance = (centred * centred).sum(-1, keepdim=True) / width
    scale, shift = params.shaped("weight", width), params.shaped("bias", width)
    return centred / torch.sqrt(variance + 1e-5) * scale + shift


def attention(params: Parameters, x: Tensor, n_heads: int) -> Tensor:
    """softmax(q kᵀ / √(d/n_heads)) v head by head, as in nn.MultiheadAttention. x: (R, T, d)."""
    width = x.shape[-1]
    packed_weight = params.shaped("in_proj_weight", 3 * width, width)
    packed_bias = params.shaped("in_proj_bias", 3 * width)
    packed = x @ packed_weight.transpose(0, 1) + packed_bias
    size = width // n_heads
    heads = []
    for head in range(n_heads):
        starts = [part * width + head * size for part in range(3)]
        q, k, v = (packed[..., start : start + size] for start in starts)
        scores = q @ k.transpose(-2, -1) / math.sqrt(size)
        heads.append(torch.softmax(scores, dim=-1) @ v)
    return linear(params.under("out_proj"), torch.cat(heads, dim=-1), width)


def encoder_layer(params: Parameters, x: Tensor, n_heads: int, ff_mult: int) -> Tensor:
    """One post-norm encoder layer, x: (R, T, d).

    x ← LN(x + attention(x)); x ← LN(x + W₂ GELU(W₁ x)), the width between being max(64, d·ff_mult).
    """
    width = x.shape[-1]
    x = layer_norm(params.under("norm1"), x + attention(params.under("self_attn"), x, n_heads))
    inner = gelu(linear(params.under("linear1"), x, max(64, width * ff_mult)))
    return layer_norm(params.under("norm2"), x + linear(params.under("linear2"), inner, width))


def encoder(params: Parameters, x: Tensor, n_layers: int, n_heads: int, ff_mult: int) -> Tensor:
    """`n_layers` encoder layers one after the other, none for 0; no norm after the last."""
    for index in range(n_layers):
        x = encoder_layer(params.under(f"layers.{index}"), x, n_heads, ff_mult)
    return x
