"""``fusion_mode: unified``: bare image tokens and float tokens in one sequence."""

from __future__ import annotations

from torch import nn

from iqn_blocks.blocks import DenseTokens, PatchTokens
from iqn_blocks.config import Config, vision_branch
from iqn_blocks.encoders.hf import vision_backbone
from iqn_blocks.encoders.multimodal.sequence import SequenceEncoder
from iqn_blocks.encoders.multimodal.vision import VisionModule, stem_vision
from iqn_blocks.hf import HFVisionTokens, Models


def unified(config: Config, models: Models | None) -> SequenceEncoder:
    """``[image…, floats…]``, without a float MLP and without an encoder of the image's own."""
    block = config.nn.encoder.transformer
    float_tokens = DenseTokens(config.float_input_dim, block.unified_float_tokens, block.d_model)
    return SequenceEncoder(config, _image_tokens(config, models), None, float_tokens, models)


def _image_tokens(config: Config, models: Models | None) -> VisionModule | None:
    """Image tokens of the trunk's width: none, those of the stem, patches, or all of a HF model."""
    vis, d_model = config.nn.vis, config.nn.encoder.transformer.d_model
    branch, block = vision_branch(config), vis.transformer
    if branch == "none":
        return None
    if branch == "cnn":
        return stem_vision(config, d_model, tokens=True)
    assert block is not None
    if branch == "native_transformer":
        return PatchTokens(
            vis.in_channels,
            (vis.image_size.height, vis.image_size.width),
            block.patch_size,
            block.d_model,  # which is the trunk's
            uint8_scaling=vis.uint8_scaling,
        )
    return HFVisionTokens(
        **vision_backbone(config, models, summary=False),
        refinement=nn.Identity(),
        d_model=d_model,
        out_dim=d_model,
    )
