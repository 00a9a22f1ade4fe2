"""Networks of trackmania_rl: its state dicts, its YAML files, its ``weights1.torch``."""

from __future__ import annotations

from iqn_blocks.interop.trackmania_rl.configs import load_config
from iqn_blocks.interop.trackmania_rl.files import (
    FUSION_WEIGHTS_FILE,
    WEIGHTS_FILE,
    load_checkpoint,
    read_fusion_folder,
    read_weights,
)
from iqn_blocks.interop.trackmania_rl.state_dicts import (
    load_encoder,
    load_state_dict,
    to_state_dict,
)

__all__ = [
    "FUSION_WEIGHTS_FILE",
    "WEIGHTS_FILE",
    "load_checkpoint",
    "load_config",
    "load_encoder",
    "load_state_dict",
    "read_fusion_folder",
    "read_weights",
    "to_state_dict",
]
