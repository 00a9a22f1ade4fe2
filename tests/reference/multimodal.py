"""The multimodal topology, mode by mode."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .hf import backbone_tokens, summary_token, summary_vector
from .inputs import normalized_floats, relu_float_mlp
from .layers import encoder, linear, projection
from .parameters import Parameters
from .stems import stem
from .trunks import trunk, trunk_kind


def vision_kind(config: Any) -> str:
    """`none`, `cnn`, `native_transformer` or `hf_transformer`."""
    vis = config.nn.vis
    if vis.no_image:
        return "none"
    if vis.transformer is None:
        return "cnn"
    return "hf_transformer" if vis.transformer.use_hf_backbone else "native_transformer"


def vision_width(config: Any) -> int:
    """d_v = vis.transformer.d_model, 256 if `vis.transformer` is absent."""
    vit = config.nn.vis.transformer
    return 256 if vit is None else int(vit.d_model)


def float_hidden(config: Any, params: Parameters, floats_n: Tensor) -> Tensor:
    """The float MLP with h = encoder.mlp.hidden_dim or else float.mlp.hidden_dim. -> (B, h)."""
    own = config.nn.encoder.mlp
    hidden = config.nn.float.mlp.hidden_dim if own is None else own.hidden_dim
    return relu_float_mlp(params.under("float_mlp"), floats_n, hidden)


def patches(config: Any, params: Parameters, img: Tensor) -> Tensor:
    """Patch embedding: Conv C→d_v, kernel = stride = patch_size, row by row. -> (B, T, d_v)."""
    vit = config.nn.vis.transformer
    size = vit.patch_size
    weight = params.shaped("patch_embedding.weight", vit.d_model, img.shape[1], size, size)
    bias = params.shaped("patch_embedding.bias", vit.d_model)
    grid = F.conv2d(img, weight, bias, stride=size)
    rows, columns = grid.shape[2:]
    return torch.stack([grid[:, :, i, j] for i in range(rows) for j in range(columns)], dim=1)


def encoded_patches(config: Any, params: Parameters, img: Tensor) -> Tensor:
    """encoder(patches + position). -> (B, T, d_v)."""
    vit = config.nn.vis.transformer
    tokens = patches(config, params, img)
    tokens = tokens + params.shaped("position", 1, tokens.shape[1], vit.d_model)
    return encoder(params.under("encoder"), tokens, vit.n_layers, vit.n_heads, vit.ff_mult)


def vision_vector(
    config: Any, params: Parameters, img: Tensor, model: nn.Module | None, *, training: bool
) -> Tensor:
    """`v` of `vision_transformer` and of the `fused_vector` layout, where there is an image."""
    kind = vision_kind(config)
    if kind == "cnn":
        flat = stem(config, params.under("stem"), img, training=training)
        if config.nn.fusion_mode == "post_concat":
            return flat
        return projection(params.under("projection"), flat, vision_width(config))
    if kind == "native_transformer":
        return encoded_patches(config, params, img).mean(dim=1)
    assert model is not None
    return summary_vector(config.nn.vis.transformer, params, img, model)


def sequence_vision_tokens(
    config: Any, params: Parameters, img: Tensor, model: nn.Module | None, *, training: bool
) -> Tensor:
    """Vision tokens of the `token_sequence` layout, where there is an image. -> (B, T, d)."""
    kind = vision_kind(config)
    width = config.nn.encoder.transformer.d_model
    if kind == "cnn":
        flat = stem(config, params.under("stem"), img, training=training)
        return projection(params.under("projection"), flat, width)[:, None, :]
    vit = config.nn.vis.transformer
    every = vit.fusion_tokens == "patch_tokens"
    if kind == "native_transformer":
        tokens = encoded_patches(config, params, img)
        tokens = tokens if every else tokens.mean(dim=1, keepdim=True)
        return projection(params.under("projection"), tokens, width)
    assert model is not None
    tokens = backbone_tokens(params.under("backbone"), img, vit.model_name_or_path, model)
    # A mean token commutes with the projection, so that its place before it is no choice.
    tokens = tokens if every else summary_token(tokens, model, vit.summary_token)[:, None]
    tokens = projection(params.under("projection"), tokens, vit.d_model)
    refining = params.under("refinement")
    tokens = encoder(refining, tokens, vit.n_layers, vit.n_heads, vit.ff_mult)
    return projection(params.under("token_projection"), tokens, width)


def unified_vision_tokens(
    config: Any, params: Parameters, img: Tensor, model: nn.Module | None, *, training: bool
) -> Tensor:
    """Image tokens of `unified`, where there is an image. -> (B, T, d)."""
    kind = vision_kind(config)
    width = config.nn.encoder.transformer.d_model
    if kind == "cnn":
        flat = stem(config, params.under("stem"), img, training=training)
        return projection(params.under("projection"), flat, width)[:, None, :]
    if kind == "native_transformer":
        return patches(config, params, img)
    assert model is not None
    folder = config.nn.vis.transformer.model_name_or_path
    tokens = backbone_tokens(params.under("backbone"), img, folder, model)
    return projection(params.under("projection"), tokens, width)


def dense_float_tokens(config: Any, params: Parameters, x: Tensor) -> Tensor:
    """One Linear to k·d, viewed as k tokens. (B, ·) -> (B, k, d)."""
    block = config.nn.encoder.transformer
    count, width = block.unified_float_tokens, block.d_model
    flat = linear(params.under("projection"), x, count * width)
    return torch.stack([flat[:, i * width : (i + 1) * width] for i in range(count)], dim=1)


def feature_tokens(config: Any, params: Parameters, floats_n: Tensor) -> Tensor:
    """One Linear_{1→d} shared by the scalars, plus a slot embedding (F, d). (B, F) -> (B, F, d)."""
    width, count = config.nn.encoder.transformer.d_model, floats_n.shape[1]
    slots = params.shaped("slot_embedding", count, width)
    tokens = [
        linear(params.under("projection"), floats_n[:, i : i + 1], width) + slots[i]
        for i in range(count)
    ]
    return torch.stack(tokens, dim=1)


def float_tokens(config: Any, params: Parameters, floats_n: Tensor) -> Tensor:
    """Float tokens of `unified` and of the `token_sequence` layout. -> (B, k or F, d)."""
    block = config.nn.encoder
    own = params.under("float_tokens")
    if config.nn.fusion_mode == "unified":
        return dense_float_tokens(config, own, floats_n)
    if block.float_token_layout == "per_feature":
        assert block.float_token_input == "raw"
        return feature_tokens(config, own, floats_n)
    if block.float_token_input == "mlp_hidden":
        return dense_float_tokens(config, own, float_hidden(config, params, floats_n))
    return dense_float_tokens(config, own, floats_n)


def vector_tokens(config: Any, params: Parameters, z: Tensor) -> Tensor:
    """`Linear(z) → L` tokens of width d, without their position. (B, ·) -> (B, L, d)."""
    block = config.nn.encoder.transformer
    flat = linear(params.under("to_tokens"), z, block.post_concat_seq_len * block.d_model)
    return flat.reshape(z.shape[0], block.post_concat_seq_len, block.d_model)


def multimodal(
    config: Any,
    params: Parameters,
    img: Tensor | None,
    floats: Tensor,
    dtype: torch.dtype,
    vision_model: nn.Module | None,
    trunk_model: nn.Module | None,
    *,
    training: bool = False,
) -> Tensor:
    """s: (B, D) of any mode, vision branch, layout and trunk."""
    mode, out = config.nn.fusion_mode, config.nn.decoder.dense_hidden_dimension
    floats_n = normalized_floats(params.under("float_normalization"), floats, dtype)
    vision = params.under("vision")
    vectors = mode == "vision_transformer" or (
        mode == "post_concat" and config.nn.encoder.post_concat_layout == "fused_vector"
    )
    parts: list[Tensor] = []
    if img is not None:
        if vectors:
            branch = vision_vector
        else:
            branch = unified_vision_tokens if mode == "unified" else sequence_vision_tokens
        parts.append(branch(config, vision, img, vision_model, training=training))
    elif mode == "vision_transformer":
        parts.append(torch.zeros(floats.shape[0], vision_width(config), dtype=dtype))

    if vectors:
        z = torch.cat([*parts, float_hidden(config, params, floats_n)], dim=1)
        if mode == "vision_transformer" and trunk_kind(config) == "linear":
            return linear(params.under("output"), z, out)
        tokens = vector_tokens(config, params, z)
    else:
        tokens = torch.cat([*parts, float_tokens(config, params, floats_n)], dim=1)
    tokens = tokens + params.shaped("position", 1, tokens.shape[1], tokens.shape[2])
    x = trunk(config, params.under("trunk"), tokens, trunk_model)
    return linear(params.under("output"), x, out)
