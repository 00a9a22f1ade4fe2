"""The parts, each usable on its own: modules that take plain numbers and tensors, no config."""

from __future__ import annotations

from iqn_blocks.blocks.dense import HiddenLayer
from iqn_blocks.blocks.floats import FloatMLP, FloatNormalization
from iqn_blocks.blocks.heads import Head
from iqn_blocks.blocks.hf import load_model, model_from_config
from iqn_blocks.blocks.hf_trunk import HFTrunk
from iqn_blocks.blocks.hf_vision import HFVision, HFVisionTokens, HFVisionVector
from iqn_blocks.blocks.init import orthogonal_, orthogonal_head_, orthogonal_tau_
from iqn_blocks.blocks.noisy import NoisyLinear
from iqn_blocks.blocks.pixels import PixelValues
from iqn_blocks.blocks.processor import PixelSpec, read_processor
from iqn_blocks.blocks.spectral import SpectralNormConv2d
from iqn_blocks.blocks.stems import ConvStem, ImageStem, ImpalaStem
from iqn_blocks.blocks.tau import TauEmbedding
from iqn_blocks.blocks.tokens import DenseTokens, FeatureTokens, as_tokens
from iqn_blocks.blocks.transformer import IQNTransformerTrunk, native_encoder
from iqn_blocks.blocks.trunks import ConvTrunk, MeanTrunk, MLPTrunk, NativeTrunk
from iqn_blocks.blocks.vision import PatchTokens, PatchVision, StemVision

__all__ = [
    "ConvStem",
    "ConvTrunk",
    "DenseTokens",
    "FeatureTokens",
    "FloatMLP",
    "FloatNormalization",
    "HFTrunk",
    "HFVision",
    "HFVisionTokens",
    "HFVisionVector",
    "Head",
    "HiddenLayer",
    "IQNTransformerTrunk",
    "ImageStem",
    "ImpalaStem",
    "MLPTrunk",
    "MeanTrunk",
    "NativeTrunk",
    "NoisyLinear",
    "PatchTokens",
    "PatchVision",
    "PixelSpec",
    "PixelValues",
    "SpectralNormConv2d",
    "StemVision",
    "TauEmbedding",
    "as_tokens",
    "load_model",
    "model_from_config",
    "native_encoder",
    "orthogonal_",
    "orthogonal_head_",
    "orthogonal_tau_",
    "read_processor",
]
