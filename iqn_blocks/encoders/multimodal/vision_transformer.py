"""``fusion_mode: vision_transformer``: one vision vector beside the float MLP."""

from __future__ import annotations

from iqn_blocks.config import Config, trunk, vision_branch
from iqn_blocks.config.arithmetic import vision_width
from iqn_blocks.encoders.hf import Recipes
from iqn_blocks.encoders.multimodal.vector import DirectEncoder, VectorEncoder
from iqn_blocks.encoders.multimodal.vision import VisionModule, stem_vision, transformer_vector


def vision_transformer(config: Config, recipes: Recipes | None) -> DirectEncoder | VectorEncoder:
    """``z = [v, MLP(floats)]`` with ``v (B, d_v)``, zeros without an image.

    ``s = Linear(z)`` with the trunk ``linear``; with any other, ``z`` is cut into tokens for it.
    """
    branch, d_v = vision_branch(config), vision_width(config)
    vision: VisionModule | None = None
    if branch == "cnn":
        vision = stem_vision(config, d_v)
    elif branch != "none":
        vision = transformer_vector(config, recipes)
    if trunk(config) == "linear":
        return DirectEncoder(config, vision, d_v)
    return VectorEncoder(config, vision, d_v, recipes)
