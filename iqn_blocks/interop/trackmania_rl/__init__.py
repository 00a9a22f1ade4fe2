"""Networks of trackmania_rl: its state dicts, its YAML files, its ``weights1.torch``."""

from __future__ import annotations

from iqn_blocks.interop.trackmania_rl.configs import load_config
from iqn_blocks.interop.trackmania_rl.files import load_checkpoint
from iqn_blocks.interop.trackmania_rl.state_dicts import load_state_dict, to_state_dict

__all__ = ["load_checkpoint", "load_config", "load_state_dict", "to_state_dict"]
