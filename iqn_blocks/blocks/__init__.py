"""The parts, each usable on its own: modules that take plain numbers and tensors, no config."""

from __future__ import annotations

from iqn_blocks.blocks.cores.base import Core as Core
from iqn_blocks.blocks.cores.gru import GRU as GRU
from iqn_blocks.blocks.cores.lstm import LSTM as LSTM
from iqn_blocks.blocks.dense import HiddenLayer as HiddenLayer
from iqn_blocks.blocks.floats import FloatMLP as FloatMLP
from iqn_blocks.blocks.floats import FloatNormalization as FloatNormalization
from iqn_blocks.blocks.fractions import FractionProposer as FractionProposer
from iqn_blocks.blocks.heads.head import Head as Head
from iqn_blocks.blocks.heads.mlp import mlp_head as mlp_head
from iqn_blocks.blocks.heads.simba import Simba as Simba
from iqn_blocks.blocks.heads.simba import SimbaHead as SimbaHead
from iqn_blocks.blocks.heads.simba_v2 import SimbaV2 as SimbaV2
from iqn_blocks.blocks.heads.simba_v2 import SimbaV2Head as SimbaV2Head
from iqn_blocks.blocks.heads.simba_v2 import project_simba_v2_ as project_simba_v2_
from iqn_blocks.blocks.heads.transformer import transformer_head as transformer_head
from iqn_blocks.blocks.init import orthogonal_ as orthogonal_
from iqn_blocks.blocks.init import orthogonal_head_ as orthogonal_head_
from iqn_blocks.blocks.init import orthogonal_tau_ as orthogonal_tau_
from iqn_blocks.blocks.mixers.film import Film as Film
from iqn_blocks.blocks.mixers.hadamard import Hadamard as Hadamard
from iqn_blocks.blocks.noisy import NoisyLinear as NoisyLinear
from iqn_blocks.blocks.scaling import ImageNormalization as ImageNormalization
from iqn_blocks.blocks.spectral import SpectralNormConv2d as SpectralNormConv2d
from iqn_blocks.blocks.stems.base import MapReadout as MapReadout
from iqn_blocks.blocks.stems.conv import ConvStem as ConvStem
from iqn_blocks.blocks.stems.hadamax import HadamaxStem as HadamaxStem
from iqn_blocks.blocks.stems.impala import ImpalaStem as ImpalaStem
from iqn_blocks.blocks.stems.impoola import impoola_stem as impoola_stem
from iqn_blocks.blocks.stems.minatar import MinAtarStem as MinAtarStem
from iqn_blocks.blocks.stems.nature import NatureStem as NatureStem
from iqn_blocks.blocks.tau import TauEmbedding as TauEmbedding
from iqn_blocks.blocks.tokens import DenseTokens as DenseTokens
from iqn_blocks.blocks.tokens import FeatureTokens as FeatureTokens
from iqn_blocks.blocks.tokens import as_tokens as as_tokens
from iqn_blocks.blocks.transformer import IQNTransformerTrunk as IQNTransformerTrunk
from iqn_blocks.blocks.transformer import native_encoder as native_encoder
from iqn_blocks.blocks.trunks.conv import ConvTrunk as ConvTrunk
from iqn_blocks.blocks.trunks.mean import MeanTrunk as MeanTrunk
from iqn_blocks.blocks.trunks.mlp import MLPTrunk as MLPTrunk
from iqn_blocks.blocks.trunks.native import NativeTrunk as NativeTrunk
from iqn_blocks.blocks.vision import PatchTokens as PatchTokens
from iqn_blocks.blocks.vision import PatchVision as PatchVision
from iqn_blocks.blocks.vision import StemVision as StemVision
