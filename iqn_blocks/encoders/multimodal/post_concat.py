"""``fusion_mode: post_concat``: one fused vector cut into tokens, or a sequence of tokens."""

from __future__ import annotations

from typing import cast

from iqn_blocks.blocks import DenseTokens, FeatureTokens
from iqn_blocks.config import Config, vision_branch
from iqn_blocks.encoders.common import build_floats, native_or_identity
from iqn_blocks.encoders.hf import vision_backbone
from iqn_blocks.encoders.multimodal.sequence import SequenceEncoder
from iqn_blocks.encoders.multimodal.vector import VectorEncoder
from iqn_blocks.encoders.multimodal.vision import (
    VisionModule,
    native_vision,
    stem_vision,
    transformer_vector,
)
from iqn_blocks.hf import HFVisionTokens, Models


def post_concat(config: Config, models: Models | None) -> VectorEncoder | SequenceEncoder:
    """The encoder of ``nn.encoder.post_concat_layout``."""
    if config.nn.encoder.post_concat_layout == "token_sequence":
        return _token_sequence(config, models)
    return _fused_vector(config, models)


def _fused_vector(config: Config, models: Models | None) -> VectorEncoder:
    """``[v, MLP(floats)]`` cut into tokens; ``v`` is nothing without an image."""
    branch = vision_branch(config)
    if branch == "none":
        return VectorEncoder(config, None, 0, models)
    vision = stem_vision(config) if branch == "cnn" else transformer_vector(config, models)
    return VectorEncoder(config, vision, vision.out_dim, models)


def _token_sequence(config: Config, models: Models | None) -> SequenceEncoder:
    """``[vision…, floats…]``."""
    encoder = config.nn.encoder
    block, n_floats = encoder.transformer, config.float_input_dim
    mlp = build_floats(config) if encoder.float_token_input == "mlp_hidden" else None
    float_tokens: DenseTokens | FeatureTokens
    if encoder.float_token_layout == "per_feature":
        float_tokens = FeatureTokens(n_floats, block.d_model)
    else:
        width = n_floats if mlp is None else cast(int, mlp.out_dim)
        float_tokens = DenseTokens(width, block.unified_float_tokens, block.d_model)
    return SequenceEncoder(config, _vision_tokens(config, models), mlp, float_tokens, models)


def _vision_tokens(config: Config, models: Models | None) -> VisionModule | None:
    """Vision tokens of the trunk's width: none, those of the stem, one or all of a transformer."""
    branch, d_model = vision_branch(config), config.nn.encoder.transformer.d_model
    if branch == "none":
        return None
    if branch == "cnn":
        return stem_vision(config, d_model, tokens=True)
    block = config.nn.vis.transformer
    assert block is not None
    summary = block.fusion_tokens == "summary"
    if branch == "native_transformer":
        return native_vision(config, summary=summary, out_dim=d_model)
    return HFVisionTokens(
        **vision_backbone(config, models, summary=summary),
        refinement=native_or_identity(block),
        d_model=block.d_model,
        out_dim=d_model,
        summary_only=summary,
    )
