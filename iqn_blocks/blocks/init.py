"""Orthogonal initialisation (arXiv:1312.6120) with the gains the networks use."""

from __future__ import annotations

import math

import torch
from torch import nn

from iqn_blocks.blocks.spectral import SpectralNormConv2d
from iqn_blocks.blocks.tau import TauEmbedding

LEAKY_RELU_GAIN = math.sqrt(2 / (1 + 0.01**2))


def orthogonal_(module: nn.Module, gain: float = LEAKY_RELU_GAIN) -> None:
    """Orthogonal weights and zero biases for every Linear and Conv2d inside ``module``.

    NoisyLinear, LayerNorm and a transformer's packed attention projection stay as they are.

    Args:
        module: changed in place; its spectrally normalised convolutions are warmed up anew.
        gain: factor of the orthogonal weights, that of a LeakyReLU of slope 0.01 by default.
    """
    for layer in module.modules():
        if not isinstance(layer, nn.Linear | nn.Conv2d) or layer.weight.is_meta:
            continue
        # A contiguous tensor, since a channels-last one cannot be viewed as a matrix.
        weight = torch.empty_like(layer.weight, memory_format=torch.contiguous_format)
        nn.init.orthogonal_(weight, gain)
        with torch.no_grad():
            layer.weight.copy_(weight)
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)
        if isinstance(layer, SpectralNormConv2d):
            layer.warm_up()


def orthogonal_head_(head: nn.Module) -> None:
    """Gain 1 for the child ``readout`` of ``head``, ``√(2 / (1 + 0.01²))`` for the others."""
    for name, part in head.named_children():
        orthogonal_(part, gain=1.0 if name == "readout" else LEAKY_RELU_GAIN)


def orthogonal_tau_(embedding: TauEmbedding) -> None:
    """Gain ``√2·√(2 / (1 + 0.01²))`` for ``embedding``: a cosine has variance ½."""
    orthogonal_(embedding, gain=math.sqrt(2) * LEAKY_RELU_GAIN)
