"""The multimodal topology: vectors or tokens of image and floats, joined by one of three modes."""

from __future__ import annotations

from torch import nn

from iqn_blocks.config import Config, vision_branch
from iqn_blocks.encoders.common import freeze
from iqn_blocks.encoders.multimodal.post_concat import post_concat
from iqn_blocks.encoders.multimodal.unified import unified
from iqn_blocks.encoders.multimodal.vision_transformer import vision_transformer
from iqn_blocks.hf import Models
from iqn_blocks.registry import register

_MODES = {
    "vision_transformer": vision_transformer,
    "post_concat": post_concat,
    "unified": unified,
}


@register("multimodal")
def multimodal_encoder(config: Config, models: Models | None = None) -> nn.Module:
    """The encoder of ``nn.fusion_mode``: ``(B, C, H, W), (B, F) -> (B, D)``.

    ``models`` says where pretrained models come from.
    """
    encoder = _MODES[config.nn.fusion_mode](config, models)
    branches = {"vision": config.nn.vis.freeze}
    if list(encoder.float_mlp.parameters()):
        branches["float_mlp"] = config.nn.float.freeze
    # The projection of transformer tokens to the fusion's width, which only a token sequence has,
    # belongs to the fusion, as in trackmania_rl.
    projections = {
        "native_transformer": "vision.projection",
        "hf_transformer": "vision.token_projection",
    }
    if vision_branch(config) in projections:
        branches[projections[vision_branch(config)]] = config.nn.encoder.freeze
    freeze(encoder, branches, others=config.nn.encoder.freeze)
    return encoder
