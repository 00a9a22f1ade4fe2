"""Pretrained parts from the configuration, or from what a checkpoint says of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from iqn_blocks.blocks import (
    HFTrunk,
    HFVision,
    PixelSpec,
    PixelValues,
    load_model,
    model_from_config,
    read_processor,
)
from iqn_blocks.blocks.processor import PROCESSOR_FILE, UNIT_224, timm_processor
from iqn_blocks.config import Config, trunk_backbone
from iqn_blocks.errors import ConfigError

# What HF parts are rebuilt from without their weights, by the name of the part in the encoder
# ("vision", "trunk"): {"config": …, "processor": …}, plain data.
Recipes = Mapping[str, Mapping[str, Any]]


def recipes(encoder: nn.Module) -> dict[str, dict[str, Any]]:
    """The recipe of every pretrained part of an encoder; ``{}`` for one that has none."""
    return {
        name: part.recipe()
        for name, part in encoder.named_modules()
        if isinstance(part, HFVision | HFTrunk)
    }


def vision_backbone(config: Config, given: Recipes | None) -> dict[str, Any]:
    """The arguments that every :class:`HFVision` takes, such as model and pixels.

    The model comes from ``nn.vis.transformer``'s path, or from its recipe where one is given.

    Raises:
        ConfigError: the model cannot be had, or its processor holds no usable numbers.
    """
    vis = config.nn.vis
    block = vis.transformer
    assert block is not None
    path, key = block.model_name_or_path, "nn.vis.transformer.model_name_or_path"
    trust = block.trust_remote_code
    if given and "vision" in given:
        processor = given["vision"]["processor"]
        model = model_from_config(
            given["vision"]["config"], "pixel_values", path=path, key=key, trust_remote_code=trust
        )
    else:
        model = load_model(path, "pixel_values", key=key, trust_remote_code=trust)
        processor = read_processor(path, key=key)
        if not processor and getattr(model.config, "image_size", None) is None:
            by_model = block.missing_processor == "model"
            processor = timm_processor(model) if by_model else UNIT_224
    try:
        spec = PixelSpec.from_processor(processor, getattr(model.config, "image_size", None))
    except ValueError as error:
        raise ConfigError(
            f"{key}: found {path!r}; its {PROCESSOR_FILE}, or its config.json without one, does "
            f"not say how to make pixels ({error}); accepted: a size in pixels, and image_mean and "
            "image_std of three numbers; correct the file"
        ) from error
    return {
        "backbone": model,
        "pixels": PixelValues(spec, vis.in_channels, uint8_scaling=vis.uint8_scaling),
        "dropout": block.hidden_dropout_prob,
        "summary_token": block.summary_token,
        "key": key,
    }


def hf_trunk(config: Config, n_tokens: int, d_model: int, given: Recipes | None) -> HFTrunk:
    """The ``hf_embedding`` trunk, from its path or from its recipe where one is given.

    Raises:
        ConfigError: the model cannot be had or takes no tokens of this number.
    """
    block = trunk_backbone(config)
    place = "hf_embedding" if block is config.nn.encoder.hf_embedding else "transformer"
    path, key = block.model_name_or_path, f"nn.encoder.{place}.model_name_or_path"
    trust = block.trust_remote_code
    if given and "trunk" in given:
        model = model_from_config(
            given["trunk"]["config"], "inputs_embeds", path=path, key=key, trust_remote_code=trust
        )
    else:
        model = load_model(path, "inputs_embeds", key=key, trust_remote_code=trust)
    return HFTrunk(model, n_tokens, d_model, dropout=block.hidden_dropout_prob, key=key)
