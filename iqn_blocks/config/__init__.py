"""The configuration: schema, rules between keys, files, routing."""

from __future__ import annotations

from iqn_blocks.config.fusion import Encoder, FusionCnn, FusionMlp, HfEmbedding
from iqn_blocks.config.heads import Decoder, HeadMlp, HeadTransformer, Quantiles, Slot
from iqn_blocks.config.inputs import Cnn, FloatInputs, FloatMlp, ImageSize, Transformer, Vision
from iqn_blocks.config.loading import load_config, parse
from iqn_blocks.config.plain import FrozenMapping, thaw
from iqn_blocks.config.routing import (
    TOPOLOGIES,
    float_hidden_dim,
    route,
    trunk,
    trunk_backbone,
    vision_branch,
)
from iqn_blocks.config.schema import Btr, Config, Nn
from iqn_blocks.config.size import parameter_count, quantile_path, state_dim
from iqn_blocks.config.usage import unused_keys

__all__ = [
    "TOPOLOGIES",
    "Btr",
    "Cnn",
    "Config",
    "Decoder",
    "Encoder",
    "FloatInputs",
    "FloatMlp",
    "FrozenMapping",
    "FusionCnn",
    "FusionMlp",
    "HeadMlp",
    "HeadTransformer",
    "HfEmbedding",
    "ImageSize",
    "Nn",
    "Quantiles",
    "Slot",
    "Transformer",
    "Vision",
    "float_hidden_dim",
    "load_config",
    "parameter_count",
    "parse",
    "quantile_path",
    "route",
    "state_dim",
    "thaw",
    "trunk",
    "trunk_backbone",
    "unused_keys",
    "vision_branch",
]
