"""The image branches of the multimodal and hf_vision topologies, from the configuration."""

from __future__ import annotations

from typing import Any

from torch import nn

from iqn_blocks.blocks import PatchTokens, PatchVision, StemVision
from iqn_blocks.config import Config, vision_branch
from iqn_blocks.encoders.common import build_stem, native_or_identity
from iqn_blocks.errors import ConfigError
from iqn_blocks.hf import HFVision, HFVisionTokens, HFVisionVector, Models, PixelSpec, PixelValues
from iqn_blocks.hf.processor import PROCESSOR_FILE, UNIT_224, timm_processor

VisionModule = StemVision | PatchTokens | HFVision  # each with n_tokens and out_dim


def transformer_vector(config: Config, models: Models | None) -> HFVisionVector | PatchVision:
    """One vector ``(B, d_v)``: the pretrained model's summary refined, or the mean native token."""
    block = config.nn.vis.transformer
    assert block is not None
    if not block.use_hf_backbone:
        return _native_vision(config, summary=True, out_dim=block.d_model)
    return HFVisionVector(
        **_backbone(config, models),
        refinement=native_or_identity(block),
        out_dim=block.d_model,
    )


def vision_tokens(config: Config, models: Models | None) -> VisionModule | None:
    """Image tokens of the trunk's width; None without an image.

    They are the tokens of a stem, or one or all of a transformer. A unified sequence takes bare
    patches, or a pretrained model without refinement.
    """
    vis, branch = config.nn.vis, vision_branch(config)
    d_model, is_unified = config.nn.encoder.transformer.d_model, config.nn.fusion_mode == "unified"
    if branch == "none":
        return None
    if branch == "cnn":
        return stem_vision(config, d_model, tokens=True)
    block = vis.transformer
    assert block is not None
    if is_unified and branch == "native_transformer":  # here both widths are equal
        return PatchTokens(
            vis.in_channels,
            vis.image_size.shape,
            block.patch_size,
            block.d_model,
            uint8_scaling=vis.uint8_scaling,
        )
    summary = not is_unified and block.fusion_tokens == "summary"
    if branch == "native_transformer":
        return _native_vision(config, summary=summary, out_dim=d_model)
    return HFVisionTokens(
        **_backbone(config, models, summary=summary),
        refinement=nn.Identity() if is_unified else native_or_identity(block),
        d_model=d_model if is_unified else block.d_model,
        out_dim=d_model,
        summary_only=summary,
    )


def stem_vision(config: Config, out_dim: int | None = None, *, tokens: bool = False) -> StemVision:
    """The image stem, projected to ``out_dim``; None leaves its output as it is.

    With ``tokens`` the stem may give a sequence of tokens.
    """
    stem = build_stem(config, tokens=tokens)
    return StemVision(stem, out_dim, uint8_scaling=config.nn.vis.uint8_scaling)


def _native_vision(config: Config, *, summary: bool, out_dim: int) -> PatchVision:
    """Patches encoded by the native transformer, all of them or their mean."""
    vis, block = config.nn.vis, config.nn.vis.transformer
    assert block is not None
    return PatchVision(
        vis.in_channels,
        vis.image_size.shape,
        block.patch_size,
        block.d_model,
        native_or_identity(block),
        summary=summary,
        out_dim=out_dim,
        uint8_scaling=vis.uint8_scaling,
    )


def _backbone(config: Config, models: Models | None, *, summary: bool = True) -> dict[str, Any]:
    """The arguments that every :class:`HFVision` takes, such as model and pixels.

    ``summary`` says whether the tokens get a summary, whose key is read only then.

    Raises:
        ConfigError: the model cannot be loaded, or its processor holds no usable numbers.
    """
    vis, models = config.nn.vis, models or Models()
    block = vis.transformer
    assert block is not None
    path, key = block.model_name_or_path, "nn.vis.transformer.model_name_or_path"
    trust = block.trust_remote_code
    model = models.get("vision", path, "pixel_values", key=key, trust_remote_code=trust)
    processor = models.processor(path, key=key)
    by_model = block.missing_processor == "model"
    size = getattr(model.config, "image_size", None)
    try:
        if not processor and size is None:
            processor = timm_processor(model) if by_model else UNIT_224
        spec = PixelSpec.from_processor(processor, size)
    except (AttributeError, TypeError, ValueError) as error:
        raise ConfigError(
            f"{key}: found {path!r}; its {PROCESSOR_FILE}, or its config.json without one, does "
            f"not say how to make pixels ({error}); accepted: a size in pixels, and image_mean and "
            "image_std of three numbers; correct the file"
        ) from error
    return {
        "backbone": model,
        "pixels": PixelValues(spec, vis.in_channels, uint8_scaling=vis.uint8_scaling),
        "dropout": block.hidden_dropout_prob,
        "summary_token": block.summary_token if summary else "auto",
        "key": key,
    }
