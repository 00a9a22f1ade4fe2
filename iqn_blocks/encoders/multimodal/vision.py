"""Vision branches that several modes build."""

from __future__ import annotations

from iqn_blocks.blocks import PatchTokens, PatchVision, StemVision
from iqn_blocks.config import Config
from iqn_blocks.encoders.common import build_stem, native_or_identity
from iqn_blocks.encoders.hf import vision_backbone
from iqn_blocks.hf import HFVision, HFVisionVector, Models

VisionModule = StemVision | PatchTokens | HFVision  # each with n_tokens and out_dim


def transformer_vector(config: Config, models: Models | None) -> HFVisionVector | PatchVision:
    """One vector ``(B, d_v)``: the pretrained model's summary refined, or the mean native token."""
    block = config.nn.vis.transformer
    assert block is not None
    if block.use_hf_backbone:
        return HFVisionVector(
            **vision_backbone(config, models),
            refinement=native_or_identity(block),
            out_dim=block.d_model,
        )
    return native_vision(config, summary=True, out_dim=block.d_model)


def native_vision(config: Config, *, summary: bool, out_dim: int) -> PatchVision:
    """Patches encoded by the native transformer, all of them or their mean."""
    vis = config.nn.vis
    block = vis.transformer
    assert block is not None
    return PatchVision(
        vis.in_channels,
        (vis.image_size.height, vis.image_size.width),
        block.patch_size,
        block.d_model,
        native_or_identity(block),
        summary=summary,
        out_dim=out_dim,
        uint8_scaling=vis.uint8_scaling,
    )


def stem_vision(config: Config, out_dim: int | None = None, *, tokens: bool = False) -> StemVision:
    """The image stem, projected to ``out_dim``; its flat output as it is without one.

    With ``tokens`` the stem may give a sequence of them.
    """
    stem = build_stem(config, tokens=tokens)
    return StemVision(stem, out_dim, uint8_scaling=config.nn.vis.uint8_scaling)
