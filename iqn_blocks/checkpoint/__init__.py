"""Networks in folders and on the Hugging Face hub."""

from __future__ import annotations

from iqn_blocks.checkpoint.hub import from_pretrained, push_to_hub
from iqn_blocks.checkpoint.loading import load_weights
from iqn_blocks.checkpoint.saving import save_pretrained

__all__ = ["from_pretrained", "load_weights", "push_to_hub", "save_pretrained"]
