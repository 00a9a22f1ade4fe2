"""The configuration: schema, rules between keys, files, routing."""

from __future__ import annotations

from iqn_blocks.config.config import Config
from iqn_blocks.config.fusion import Encoder, HfEmbedding
from iqn_blocks.config.heads import Decoder, HeadSlot, Quantiles
from iqn_blocks.config.inputs import Cnn, FloatInputs, FloatMlp, ImageSize, Transformer, Vision
from iqn_blocks.config.loading import load_config, parse
from iqn_blocks.config.merge import list_presets
from iqn_blocks.config.part import Part
from iqn_blocks.config.routing import (
    TOPOLOGIES,
    floats_part,
    route,
    stem_part,
    trunk,
    trunk_part,
    vision_branch,
)
from iqn_blocks.config.schema import Btr, Nn
from iqn_blocks.plain import FrozenMapping, thaw

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
    "HeadSlot",
    "HfEmbedding",
    "ImageSize",
    "Nn",
    "Part",
    "Quantiles",
    "Transformer",
    "Vision",
    "floats_part",
    "list_presets",
    "load_config",
    "parse",
    "route",
    "stem_part",
    "thaw",
    "trunk",
    "trunk_part",
    "vision_branch",
]
