"""The whole network, from inputs to quantile values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from .hf import hf_vision
from .inputs import classic_float_mlp, image, normalized_floats
from .multimodal import multimodal
from .parameters import Parameters
from .quantiles import quantile_path, tau_midpoints
from .stems import stem

VISION_BACKBONE = "encoder.vision.backbone"
TRUNK_BACKBONE = "encoder.trunk.backbone"


def topology(config: Any) -> str:
    """`classic`, `hf_vision` or `multimodal`."""
    if config.nn.fusion_mode != "none":
        return "multimodal"
    vit = config.nn.vis.transformer
    return "hf_vision" if vit is not None and vit.use_hf_backbone else "classic"


def classic(
    config: Any,
    params: Parameters,
    img: Tensor | None,
    floats: Tensor | None,
    dtype: torch.dtype,
    *,
    training: bool,
) -> Tensor:
    """s = concat(stem(img), f), or either alone. -> (B, D)."""
    parts = []
    if img is not None:
        parts.append(stem(config, params.under("stem"), img, training=training))
    if floats is not None:
        floats_n = normalized_floats(params.under("float_normalization"), floats, dtype)
        parts.append(classic_float_mlp(config, params.under("float_mlp"), floats_n))
    return torch.cat(parts, dim=1)


def state(
    config: Any,
    tensors: Mapping[str, Tensor] | Parameters,
    img: Tensor | None,
    floats: Tensor | None,
    *,
    training: bool = False,
    hf_models: Mapping[str, nn.Module] | None = None,
) -> Tensor:
    """s: (B, D) of the topology that the configuration routes to."""
    params = tensors if isinstance(tensors, Parameters) else Parameters(tensors)
    models = {} if hf_models is None else hf_models
    dtype = params["tau_embedding.projection.weight"].dtype
    picture = None
    if not config.nn.vis.no_image:
        assert img is not None
        picture = image(config, img, dtype)
    numbers = floats if config.float_input_dim > 0 else None
    own = params.under("encoder")
    kind = topology(config)
    if kind == "classic":
        return classic(config, own, picture, numbers, dtype, training=training)
    assert numbers is not None
    if kind == "hf_vision":
        assert picture is not None
        return hf_vision(config, own, picture, numbers, models[VISION_BACKBONE])
    vision_model, trunk_model = models.get(VISION_BACKBONE), models.get(TRUNK_BACKBONE)
    return multimodal(
        config, own, picture, numbers, dtype, vision_model, trunk_model, training=training
    )


def forward(
    config: Any,
    tensors: Mapping[str, Tensor] | Parameters,
    img: Tensor | None,
    floats: Tensor | None,
    tau: Tensor,
    num_quantiles: int,
    *,
    training: bool = False,
    hf_models: Mapping[str, nn.Module] | None = None,
) -> Tensor:
    """q: (K·B, A), or (K·B, N, A) with N > 1, at given τ: (K·B, 1) or the shared (K, 1).

    `tensors` are the network's parameters and buffers by name; pass a `Parameters` to learn from
    its `read` which of them counted. `hf_models` holds a model of the right architecture under the
    name of each HF backbone; its weights come from `tensors`. `training` concerns spectral
    normalisation alone, whose `u` and `v` are those before the call: dropout is not covered.
    """
    params = tensors if isinstance(tensors, Parameters) else Parameters(tensors)
    s = state(config, params, img, floats, training=training, hf_models=hf_models)
    return quantile_path(config, params, s, tau, num_quantiles)


def q_values(
    config: Any,
    tensors: Mapping[str, Tensor] | Parameters,
    img: Tensor | None,
    floats: Tensor | None,
    tau: Tensor | None = None,
    *,
    hf_models: Mapping[str, nn.Module] | None = None,
) -> Tensor:
    """The mean of q over a sample's K rows, at a shared (K, 1) τ, by default iqn.k midpoints.

    -> (B, A) or (B, N, A).
    """
    if tau is None:
        tau = tau_midpoints(config.nn.iqn.k)
    count = tau.shape[0]
    q = forward(config, tensors, img, floats, tau, count, hf_models=hf_models)
    batch = q.shape[0] // count
    total = torch.zeros_like(q[:batch])
    for k in range(count):
        total = total + q[k * batch : (k + 1) * batch]
    return total / count
