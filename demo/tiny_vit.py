"""A vision transformer small enough to make on the spot, saved as any Hugging Face model is."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import ViTConfig, ViTModel


def save_tiny_vit(folder: Path) -> None:
    """Write a ViT of 2 layers and width 64 over 8×8 patches of 64×64 pixels, untrained."""
    torch.manual_seed(0)
    config = ViTConfig(
        image_size=64,
        patch_size=8,
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=128,
    )
    ViTModel(config, add_pooling_layer=False).save_pretrained(folder)
