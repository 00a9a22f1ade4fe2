"""The parts, each usable on its own: modules that take plain numbers and tensors, no config."""

from __future__ import annotations

from iqn_blocks.blocks.dense import HiddenLayer
from iqn_blocks.blocks.floats import FloatMLP, FloatNormalization
from iqn_blocks.blocks.heads import Head
from iqn_blocks.blocks.init import orthogonal_, orthogonal_head_, orthogonal_tau_
from iqn_blocks.blocks.noisy import NoisyLinear
from iqn_blocks.blocks.spectral import SpectralNormConv2d
from iqn_blocks.blocks.stems import ConvStem, ImageStem, ImpalaStem
from iqn_blocks.blocks.tau import TauEmbedding
from iqn_blocks.blocks.transformer import IQNTransformerTrunk, native_encoder

__all__ = [
    "ConvStem",
    "FloatMLP",
    "FloatNormalization",
    "Head",
    "HiddenLayer",
    "IQNTransformerTrunk",
    "ImageStem",
    "ImpalaStem",
    "NoisyLinear",
    "SpectralNormConv2d",
    "TauEmbedding",
    "native_encoder",
    "orthogonal_",
    "orthogonal_head_",
    "orthogonal_tau_",
]
