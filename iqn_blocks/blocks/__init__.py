"""The parts, each usable on its own: modules that take plain numbers and tensors, no config."""

from __future__ import annotations

from iqn_blocks.blocks.cores.base import Core
from iqn_blocks.blocks.cores.gru import GRU
from iqn_blocks.blocks.cores.lstm import LSTM
from iqn_blocks.blocks.dense import HiddenLayer
from iqn_blocks.blocks.floats import FloatMLP, FloatNormalization
from iqn_blocks.blocks.fractions import FractionProposer
from iqn_blocks.blocks.heads.block import BlockHead
from iqn_blocks.blocks.heads.head import Head
from iqn_blocks.blocks.heads.mlp import mlp_head
from iqn_blocks.blocks.heads.monotone import MonotoneHead
from iqn_blocks.blocks.heads.simba import Simba, SimbaHead
from iqn_blocks.blocks.heads.simba_v2 import SimbaV2, SimbaV2Head, project_simba_v2_
from iqn_blocks.blocks.heads.transformer import transformer_head
from iqn_blocks.blocks.init import orthogonal_, orthogonal_head_, orthogonal_tau_
from iqn_blocks.blocks.mixers.film import Film
from iqn_blocks.blocks.mixers.hadamard import Hadamard
from iqn_blocks.blocks.noisy import NoisyLinear
from iqn_blocks.blocks.scaling import ImageNormalization
from iqn_blocks.blocks.spectral import SpectralNormConv2d
from iqn_blocks.blocks.stems.base import MapReadout
from iqn_blocks.blocks.stems.conv import ConvStem
from iqn_blocks.blocks.stems.hadamax import HadamaxStem
from iqn_blocks.blocks.stems.impala import ImpalaStem
from iqn_blocks.blocks.stems.impoola import impoola_stem
from iqn_blocks.blocks.stems.minatar import MinAtarStem
from iqn_blocks.blocks.stems.nature import NatureStem
from iqn_blocks.blocks.tau import TauEmbedding
from iqn_blocks.blocks.tokens import DenseTokens, FeatureTokens, as_tokens
from iqn_blocks.blocks.transformer import IQNTransformerTrunk, native_encoder
from iqn_blocks.blocks.trunks.conv import ConvTrunk
from iqn_blocks.blocks.trunks.mean import MeanTrunk
from iqn_blocks.blocks.trunks.mlp import MLPTrunk
from iqn_blocks.blocks.trunks.native import NativeTrunk
from iqn_blocks.blocks.vision import PatchTokens, PatchVision, StemVision

__all__ = [
    "GRU",
    "LSTM",
    "BlockHead",
    "ConvStem",
    "ConvTrunk",
    "Core",
    "DenseTokens",
    "FeatureTokens",
    "Film",
    "FloatMLP",
    "FloatNormalization",
    "FractionProposer",
    "Hadamard",
    "HadamaxStem",
    "Head",
    "HiddenLayer",
    "IQNTransformerTrunk",
    "ImageNormalization",
    "ImpalaStem",
    "MLPTrunk",
    "MapReadout",
    "MeanTrunk",
    "MinAtarStem",
    "MonotoneHead",
    "NativeTrunk",
    "NatureStem",
    "NoisyLinear",
    "PatchTokens",
    "PatchVision",
    "Simba",
    "SimbaHead",
    "SimbaV2",
    "SimbaV2Head",
    "SpectralNormConv2d",
    "StemVision",
    "TauEmbedding",
    "as_tokens",
    "impoola_stem",
    "mlp_head",
    "native_encoder",
    "orthogonal_",
    "orthogonal_head_",
    "orthogonal_tau_",
    "project_simba_v2_",
    "transformer_head",
]
