"""Pretrained parts from the configuration, or from what a checkpoint says of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

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
from iqn_blocks.blocks.hf import Input
from iqn_blocks.blocks.processor import PROCESSOR_FILE
from iqn_blocks.config import Config, trunk_backbone
from iqn_blocks.errors import ConfigError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

# What HF parts are rebuilt from without their weights, by the name of the part in the encoder
# ("vision", "trunk"): {"config": …, "processor": …}, plain data. Whoever rebuilds them from a file
# of somebody else adds their own word on trust_remote_code, for the configuration's does not count,
# and the sizes of the tensors in that file.
Recipes = Mapping[str, Mapping[str, Any]]


def recipes(encoder: nn.Module) -> dict[str, dict[str, Any]]:
    """The recipe of every pretrained part of an encoder; ``{}`` for one that has none."""
    return {
        name: part.recipe()
        for name, part in encoder.named_modules()
        if isinstance(part, HFVision | HFTrunk)
    }


def vision_backbone(config: Config, given: Recipes | None) -> dict[str, Any]:
    """The arguments that every :class:`HFVision` takes: model, pixels, dropout and key.

    The model comes from ``nn.vis.transformer``'s path, or from its recipe where one is given.

    Raises:
        ConfigError: the model cannot be had, or its processor holds no usable numbers.
    """
    vis = config.nn.vis
    block = vis.transformer
    assert block is not None
    path, key = block.model_name_or_path, "nn.vis.transformer.model_name_or_path"
    if given and "vision" in given:
        processor = given["vision"]["processor"]
        model = _rebuilt(given["vision"], "pixel_values", path, key)
    else:
        trust = block.trust_remote_code
        model = load_model(path, "pixel_values", key=key, trust_remote_code=trust)
        processor = read_processor(path, key=key)
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
    if given and "trunk" in given:
        model = _rebuilt(given["trunk"], "inputs_embeds", path, key)
    else:
        trust = block.trust_remote_code
        model = load_model(path, "inputs_embeds", key=key, trust_remote_code=trust)
    return HFTrunk(model, n_tokens, d_model, dropout=block.hidden_dropout_prob, key=key)


def _rebuilt(recipe: Mapping[str, Any], takes: Input, path: str, key: str) -> PreTrainedModel:
    trust = recipe.get("trust_remote_code", False)
    return model_from_config(
        recipe["config"],
        takes,
        path=path,
        key=key,
        trust_remote_code=trust,
        sizes=recipe.get("sizes"),
    )
