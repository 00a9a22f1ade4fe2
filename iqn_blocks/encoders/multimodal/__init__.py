"""The multimodal topology: image and floats as one vector, or as one sequence of tokens."""

from __future__ import annotations

from typing import cast

from torch import nn

from iqn_blocks.blocks import DenseTokens, FeatureTokens
from iqn_blocks.config import Config, trunk, vision_branch
from iqn_blocks.encoders.common import build_floats, freeze
from iqn_blocks.encoders.multimodal.sequence import SequenceEncoder
from iqn_blocks.encoders.multimodal.vector import DirectEncoder, VectorEncoder
from iqn_blocks.encoders.vision import (
    VisionModule,
    stem_vision,
    transformer_vector,
    vision_tokens,
)
from iqn_blocks.hf import Models
from iqn_blocks.registry import register

DEFAULT_VISION_WIDTH = 256
# The projection of transformer tokens to the fusion's width, which only a sequence has, is frozen
# with the fusion, as in trackmania_rl.
_TOKEN_PROJECTION = {
    "native_transformer": "vision.projection",
    "hf_transformer": "vision.token_projection",
}


@register("multimodal")
def multimodal_encoder(config: Config, models: Models | None = None) -> nn.Module:
    """The encoder of ``nn.fusion_mode``: ``(B, C, H, W), (B, F) -> (B, D)``.

    ``models`` says where pretrained models come from.
    """
    mode, fusion = config.nn.fusion_mode, config.nn.encoder
    is_vector = mode == "vision_transformer" or (
        mode == "post_concat" and fusion.post_concat_layout == "fused_vector"
    )
    encoder = _vector_encoder(config, models) if is_vector else _token_encoder(config, models)
    frozen = {"vision": config.nn.vis.freeze}
    if list(encoder.float_mlp.parameters()):
        frozen["float_mlp"] = config.nn.float.freeze
    branch = vision_branch(config)
    if branch in _TOKEN_PROJECTION:
        frozen[_TOKEN_PROJECTION[branch]] = fusion.freeze
    freeze(encoder, frozen, others=fusion.freeze)
    return encoder


def _vector_encoder(config: Config, models: Models | None) -> DirectEncoder | VectorEncoder:
    """``z = [v, MLP(floats)]``, which becomes the state at once or cut into tokens for a trunk.

    With ``fusion_mode: vision_transformer``, ``v`` has a width of its own and is zero without an
    image. With ``post_concat`` it is what the stem gives, and nothing without an image.
    """
    branch, width = vision_branch(config), 0
    has_own_width = config.nn.fusion_mode == "vision_transformer"
    if has_own_width:
        block = config.nn.vis.transformer
        width = DEFAULT_VISION_WIDTH if block is None else block.d_model
    vision: VisionModule | None = None
    if branch == "cnn":
        vision = stem_vision(config, width or None)
    elif branch != "none":
        vision = transformer_vector(config, models)
    vision_dim = width if vision is None else cast(int, vision.out_dim)
    if has_own_width and trunk(config) == "linear":
        return DirectEncoder(config, vision, vision_dim)
    return VectorEncoder(config, vision, vision_dim, models)


def _token_encoder(config: Config, models: Models | None) -> SequenceEncoder:
    """``[image…, floats…]``; a unified sequence has neither float MLP nor encoder of the image."""
    encoder, n_floats = config.nn.encoder, config.float_input_dim
    d_model, is_unified = encoder.transformer.d_model, config.nn.fusion_mode == "unified"
    has_mlp = not is_unified and encoder.float_token_input == "mlp_hidden"
    mlp = build_floats(config) if has_mlp else None
    float_tokens: DenseTokens | FeatureTokens
    if not is_unified and encoder.float_token_layout == "per_feature":
        float_tokens = FeatureTokens(n_floats, d_model)
    else:
        in_dim = n_floats if mlp is None else cast(int, mlp.out_dim)
        float_tokens = DenseTokens(in_dim, encoder.transformer.unified_float_tokens, d_model)
    return SequenceEncoder(config, vision_tokens(config, models), mlp, float_tokens, models)
