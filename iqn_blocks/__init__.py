"""Network parts for implicit quantile networks, and one ``build(cfg)`` that assembles them."""

from __future__ import annotations

from iqn_blocks import (
    blocks,
    diagnostics,
    export,
    functional,
    interop,
    losses,
    plasticity,
    presets,
    risk,
    target,
)
from iqn_blocks._version import VERSION
from iqn_blocks.assembly import route
from iqn_blocks.build import build, check
from iqn_blocks.checkpoint.hub import from_pretrained, push_to_hub
from iqn_blocks.checkpoint.loading import load_weights
from iqn_blocks.config import Config, list_presets, load_config
from iqn_blocks.describe import Stage, describe
from iqn_blocks.describe import stages as describe_stages
from iqn_blocks.errors import (
    CheckpointError,
    ConfigError,
    ImportedConfigWarning,
    UnsupportedTopologyError,
    UnusedConfigWarning,
)
from iqn_blocks.fast.folded import InferenceIQN
from iqn_blocks.fast.optimize import optimize_for_inference
from iqn_blocks.inputs import InputSpec
from iqn_blocks.network import IQN
from iqn_blocks.recurrent import RecurrentIQN, RecurrentQuantiles, RecurrentValues
from iqn_blocks.registry import list_parts, register

__version__ = VERSION

__all__ = [
    "IQN",
    "CheckpointError",
    "Config",
    "ConfigError",
    "ImportedConfigWarning",
    "InferenceIQN",
    "InputSpec",
    "RecurrentIQN",
    "RecurrentQuantiles",
    "RecurrentValues",
    "Stage",
    "UnsupportedTopologyError",
    "UnusedConfigWarning",
    "blocks",
    "build",
    "check",
    "describe",
    "describe_stages",
    "diagnostics",
    "export",
    "from_pretrained",
    "functional",
    "interop",
    "list_parts",
    "list_presets",
    "load_config",
    "load_weights",
    "losses",
    "optimize_for_inference",
    "plasticity",
    "presets",
    "push_to_hub",
    "register",
    "risk",
    "route",
    "target",
]
