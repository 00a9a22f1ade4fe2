"""Pixels for a pretrained vision model, by the size and statistics of its processor."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from iqn_blocks.functional import Uint8Scaling, normalize_image, wide_dtype
from iqn_blocks.hf.loading import as_config_error

PROCESSOR_FILE = "preprocessor_config.json"
# 224 × 224 pixels in [0, 1], without mean and std.
UNIT_224: Mapping[str, Any] = {"size": 224, "image_mean": [0, 0, 0], "image_std": [1, 1, 1]}
_LARGEST = 4096  # a file that asks for more would only fill the memory
DEFAULT_MEAN = DEFAULT_STD = (0.5, 0.5, 0.5)


class PixelSpec(NamedTuple):
    """What a vision model expects: ``size`` is ``(H, W)``, ``mean`` and ``std`` one a channel."""

    size: tuple[int, int]
    mean: tuple[float, ...] = DEFAULT_MEAN
    std: tuple[float, ...] = DEFAULT_STD

    @classmethod
    def from_processor(
        cls, processor: Mapping[str, Any], image_size: int | Sequence[int] | None
    ) -> PixelSpec:
        """The numbers of a ``preprocessor_config.json``; ``{}`` where there is none.

        The size is ``crop_size``, or else ``height × width``, or else ``shortest_edge`` squared, or
        else the model's ``image_size``. Missing statistics are 0.5. Other keys, such as
        ``do_normalize``, are not read.

        Raises:
            ValueError: no size, one above 4096 pixels, or a value that is no number.
        """
        return cls(
            _sides(processor.get("crop_size") or processor.get("size") or image_size),
            _per_channel(processor, "image_mean", DEFAULT_MEAN),
            _per_channel(processor, "image_std", DEFAULT_STD),
        )

    def to_processor(self) -> dict[str, Any]:
        """Plain data that :meth:`from_processor` reads back."""
        height, width = self.size
        return {
            "size": {"height": height, "width": width},
            "image_mean": list(self.mean),
            "image_std": list(self.std),
        }


class PixelValues(nn.Module):
    """Frames as a pretrained vision model takes them: ``(B, C, H, W) -> (B, 3, H', W')``.

    Bilinear resize, clamp to [−1, 1], map to [0, 1], ``(x − mean) / std``; one channel becomes
    three. uint8 is scaled first, as :func:`~iqn_blocks.functional.normalize_image` does. Computed
    in float32, or in float64 if ``dtype`` is float64, and then cast to ``dtype``.

    Raises:
        ValueError: ``in_channels`` is neither 1 nor 3.
    """

    def __init__(
        self, spec: PixelSpec, in_channels: int, *, uint8_scaling: Uint8Scaling = "signed"
    ) -> None:
        if in_channels not in (1, 3):
            raise ValueError(f"in_channels: got {in_channels}, accepted are 1 (repeated) and 3")
        super().__init__()
        self.spec = spec
        self.uint8_scaling = uint8_scaling

    def forward(self, img: Tensor, dtype: torch.dtype) -> Tensor:
        x = normalize_image(img, wide_dtype(dtype), self.uint8_scaling)
        x = F.interpolate(x, size=self.spec.size, mode="bilinear", align_corners=False)
        x = (x.clamp(-1, 1) + 1) / 2
        # Channel by channel: a single channel is normalised three times instead of copied first.
        channels = (
            (x[:, min(i, x.shape[1] - 1)] - mean) / std
            for i, (mean, std) in enumerate(zip(self.spec.mean, self.spec.std, strict=True))
        )
        return torch.stack(list(channels), dim=1).to(dtype)

    def extra_repr(self) -> str:
        return f"size={self.spec.size}, mean={self.spec.mean}, std={self.spec.std}"


def read_processor(path: str, *, key: str = "path") -> dict[str, Any]:
    """The ``preprocessor_config.json`` of a folder or hub id, ``{}`` where there is none.

    Raises:
        ConfigError: it cannot be read, or the hub cannot be asked for it.
    """
    with as_config_error(
        key, path, f"its {PROCESSOR_FILE} cannot be read", "a JSON object, or no file"
    ):
        file = _processor_file(path)
        processor = {} if file is None else json.loads(file.read_text(encoding="utf-8"))
        if not isinstance(processor, dict):
            raise ValueError(f"it holds {type(processor).__name__}")
    return processor


def timm_processor(model: Any) -> dict[str, Any]:
    """A processor from the data configuration of a timm model, ``{}`` of any other model.

    timm keeps ``input_size (3, H, W)``, ``mean`` and ``std`` beside the weights.
    """
    data = getattr(model.config, "pretrained_cfg", None)
    data = data or getattr(getattr(model, "timm_model", None), "pretrained_cfg", None) or {}
    size = (getattr(model.config, "model_args", None) or {}).get("img_size")
    processor = {
        "size": size or list(data.get("input_size", ()))[1:],
        "image_mean": list(data.get("mean", ())),
        "image_std": list(data.get("std", ())),
    }
    return {key: value for key, value in processor.items() if value}


def _processor_file(path: str) -> Path | None:
    """The path of the processor, None without one; offline, the cache must know its absence."""
    from huggingface_hub import _CACHED_NO_EXIST, hf_hub_download, try_to_load_from_cache
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    if Path(path).is_dir():
        file = Path(path) / PROCESSOR_FILE
        return file if file.is_file() else None
    try:
        return Path(hf_hub_download(path, PROCESSOR_FILE))
    except LocalEntryNotFoundError:
        if try_to_load_from_cache(path, PROCESSOR_FILE) is not _CACHED_NO_EXIST:
            raise
    except EntryNotFoundError:
        pass
    return None


def _sides(size: Any) -> tuple[int, int]:
    """Height and width, from the forms that processors and model configurations have."""
    sides: Any = [size] * 2
    if isinstance(size, Mapping):
        edge = size.get("shortest_edge")
        sides = [size.get("height", edge), size.get("width", edge)]
    elif isinstance(size, Sequence) and not isinstance(size, str):
        sides = size
    if len(sides) != 2 or not all(type(side) is int and 1 <= side <= _LARGEST for side in sides):
        raise ValueError(f"no image size of 1 to {_LARGEST} pixels can be read from {size!r}")
    height, width = sides
    return height, width


def _per_channel(
    processor: Mapping[str, Any], key: str, default: tuple[float, ...]
) -> tuple[float, ...]:
    given = processor.get(key)
    values = default if given is None else given
    values = values if isinstance(values, Sequence) else [values] * 3
    numbers = all(type(value) in (int, float) and abs(value) <= 1e30 for value in values)
    if not numbers or len(values) != 3 or (key == "image_std" and min(values) <= 0):
        above = " above 0" if key == "image_std" else ""
        raise ValueError(f"{key}: expected three numbers{above}, found {given!r}")
    return tuple(float(value) for value in values)
