"""``fusion_mode: vision_transformer``: one vision vector beside the float MLP."""

from __future__ import annotations

from iqn_blocks.config import Config, trunk, vision_branch
from iqn_blocks.encoders.multimodal.vector import DirectEncoder, VectorEncoder
from iqn_blocks.encoders.multimodal.vision import VisionModule, stem_vision, transformer_vector
from iqn_blocks.hf import Models

DEFAULT_VISION_WIDTH = 256


def vision_transformer(config: Config, models: Models | None) -> DirectEncoder | VectorEncoder:
    """``z = [v, MLP(floats)]`` with ``v (B, d_v)``, zeros without an image.

    ``s = Linear(z)`` with the trunk ``linear``; with any other, ``z`` is cut into tokens for it.
    """
    branch, block = vision_branch(config), config.nn.vis.transformer
    d_v = DEFAULT_VISION_WIDTH if block is None else block.d_model
    vision: VisionModule | None = None
    if branch == "cnn":
        vision = stem_vision(config, d_v)
    elif branch != "none":
        vision = transformer_vector(config, models)
    if trunk(config) == "linear":
        return DirectEncoder(config, vision, d_v)
    return VectorEncoder(config, vision, d_v, models)
