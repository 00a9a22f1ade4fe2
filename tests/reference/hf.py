"""Pixels and tokens of a HF vision backbone, and hf_vision."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .inputs import normalized_floats, relu_float_mlp
from .layers import encoder, linear, projection
from .parameters import Parameters


def _pair(size: Any) -> tuple[int, int]:
    """(height, width) of a size that a JSON file states as a number, a pair or by name."""
    if isinstance(size, int):
        return size, size
    if isinstance(size, (list, tuple)):
        return size[0], size[1]
    if "height" in size:
        return size["height"], size["width"]
    return size["shortest_edge"], size["shortest_edge"]


def processor(folder: str, model: nn.Module) -> tuple[tuple[int, int], list[float], list[float]]:
    """(height, width), mean and std of `preprocessor_config.json`, or of the model's config."""
    file = Path(folder) / "preprocessor_config.json"
    if not file.exists():
        config: Any = model.config
        return _pair(config.image_size), [0.5] * 3, [0.5] * 3
    values = json.loads(file.read_text())
    size = values["crop_size"] if values.get("crop_size") is not None else values["size"]
    return _pair(size), values["image_mean"], values["image_std"]


def bilinear_matrix(source: int, target: int, dtype: torch.dtype) -> Tensor:
    """(target, source) weights of bilinear interpolation along one axis, `align_corners=False`.

    Target cell i lies at max(0, (i + ½) · source/target − ½) between two cells of the source.
    """
    matrix = torch.zeros(target, source, dtype=torch.float64)
    for i in range(target):
        position = max(0.0, (i + 0.5) * source / target - 0.5)
        low = min(int(position), source - 1)
        high = min(low + 1, source - 1)
        matrix[i, low] += 1 - (position - low)
        matrix[i, high] += position - low
    return matrix.to(dtype)


def pixels(img: Tensor, size: tuple[int, int], mean: list[float], std: list[float]) -> Tensor:
    """Three channels, resized, clamped to [−1, 1], mapped to [0, 1], normalised.

    (B, 1 or 3, H, W) -> (B, 3, height, width).
    """
    if img.shape[1] == 1:
        img = torch.cat([img, img, img], dim=1)
    assert img.shape[1] == 3, img.shape
    down = bilinear_matrix(img.shape[2], size[0], img.dtype)
    across = bilinear_matrix(img.shape[3], size[1], img.dtype)
    img = down @ img @ across.transpose(0, 1)
    img = (img.clamp(-1, 1) + 1) / 2
    channels = [(img[:, c] - mean[c]) / std[c] for c in range(3)]
    return torch.stack(channels, dim=1)


def has_class_token(model: nn.Module) -> bool:
    """Whether the backbone puts a learned class token first."""
    names = {name.split(".")[-1] for name, _ in model.named_parameters()}
    return bool(names & {"cls_token", "class_embedding"})


def backbone_tokens(params: Parameters, img: Tensor, folder: str, model: nn.Module) -> Tensor:
    """All tokens: `last_hidden_state`, a 4-D map as one token a position. -> (B, T, hidden)."""
    values = pixels(img, *processor(folder, model))
    arguments = {"pixel_values": values}
    output = torch.func.functional_call(model, params.everything(), (), arguments)
    hidden: Tensor = output.last_hidden_state
    return hidden.flatten(2).transpose(1, 2) if hidden.dim() == 4 else hidden


def summary_token(tokens: Tensor, model: nn.Module, kind: str = "auto") -> Tensor:
    """The first or the mean token; `auto`: the first of a model with a class token, else the mean.

    -> (B, hidden).
    """
    if kind == "auto":
        kind = "first" if has_class_token(model) else "mean"
    return tokens[:, 0] if kind == "first" else tokens.sum(dim=1) / tokens.shape[1]


def summary_vector(vit: Any, params: Parameters, img: Tensor, model: nn.Module) -> Tensor:
    """`p`: the summary token, proj hidden→d_v, the refining encoder over that one. -> (B, d_v)."""
    tokens = backbone_tokens(params.under("backbone"), img, vit.model_name_or_path, model)
    summary = summary_token(tokens, model, vit.summary_token)
    p = projection(params.under("projection"), summary, vit.d_model)
    refining = params.under("refinement")
    return encoder(refining, p[:, None, :], vit.n_layers, vit.n_heads, vit.ff_mult)[:, 0]


def hf_vision(
    config: Any, params: Parameters, img: Tensor, floats: Tensor, model: nn.Module
) -> Tensor:
    """s = concat(p, z), z = Linear_{h→d}(MLP(floats_n)), D = 2d."""
    vit = config.nn.vis.transformer
    p = summary_vector(vit, params.under("vision"), img, model)
    floats_n = normalized_floats(params.under("float_normalization"), floats, img.dtype)
    hidden = relu_float_mlp(params.under("float_mlp"), floats_n, config.nn.float.mlp.hidden_dim)
    z = linear(params.under("float_projection"), hidden, vit.d_model)
    return torch.cat([p, z], dim=1)
