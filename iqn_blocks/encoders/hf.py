"""The pretrained vision model from the configuration."""

from __future__ import annotations

from typing import Any

from iqn_blocks.config import Config
from iqn_blocks.errors import ConfigError
from iqn_blocks.hf import Models, PixelSpec, PixelValues
from iqn_blocks.hf.processor import PROCESSOR_FILE, UNIT_224, timm_processor


def vision_backbone(
    config: Config, models: Models | None, *, summary: bool = True
) -> dict[str, Any]:
    """The arguments that every :class:`HFVision` takes, such as model and pixels.

    ``summary`` says whether a summary of the tokens is made, so that its key counts.

    Raises:
        ConfigError: the model cannot be had, or its processor holds no usable numbers.
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
