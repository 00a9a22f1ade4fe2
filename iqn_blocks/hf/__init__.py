"""Parts that need transformers, which is imported when the first model is made."""

from __future__ import annotations

from iqn_blocks.hf.loading import load_model, model_from_config
from iqn_blocks.hf.models import Models, hf_embedding
from iqn_blocks.hf.processor import PixelSpec, PixelValues, read_processor
from iqn_blocks.hf.trunk import HFTrunk
from iqn_blocks.hf.vision import HFVision, HFVisionTokens, HFVisionVector

__all__ = [
    "HFTrunk",
    "HFVision",
    "HFVisionTokens",
    "HFVisionVector",
    "Models",
    "PixelSpec",
    "PixelValues",
    "hf_embedding",
    "load_model",
    "model_from_config",
    "read_processor",
]
