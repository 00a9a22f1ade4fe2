"""The equations of all three topologies as plain functions: slow, and meant to be read.

Written from the equations alone, without a look at the library: a test that compares the two
compares two readings of the same page. Nothing here imports `iqn_blocks`. A configuration is any
object whose attributes are the keys of the YAML form, tensors are found by the names of the
network's `state_dict`, and every shape that the equations state is checked on the way. What the
parts are for is in docs/architecture.md, docs/topologies.md and docs/blocks.
"""

from __future__ import annotations

from .heads import head, head_linear, transformer_trunk
from .hf import (
    backbone_tokens,
    bilinear_matrix,
    has_class_token,
    hf_vision,
    pixels,
    processor,
    summary_token,
    summary_vector,
)
from .inputs import classic_float_mlp, image, normalized_floats, relu_float_mlp
from .layers import (
    activation,
    attention,
    encoder,
    encoder_layer,
    gelu,
    layer_norm,
    linear,
    noisy_linear,
    projection,
    relu,
)
from .multimodal import multimodal
from .network import TRUNK_BACKBONE, VISION_BACKBONE, forward, q_values, state, topology
from .parameters import Parameters
from .quantiles import (
    cosine_features,
    dueling,
    hadamard_mix,
    quantile_path,
    sample_tau,
    tau_embedding,
    tau_midpoints,
    tau_symmetric,
    tau_uniform,
)
from .stems import adaptive_max_pool, conv, power_iteration, spectral_weight, stem
from .trunks import conv1d, trunk, trunk_kind

__all__ = [
    "TRUNK_BACKBONE",
    "VISION_BACKBONE",
    "Parameters",
    "activation",
    "adaptive_max_pool",
    "attention",
    "backbone_tokens",
    "bilinear_matrix",
    "classic_float_mlp",
    "conv",
    "conv1d",
    "cosine_features",
    "dueling",
    "encoder",
    "encoder_layer",
    "forward",
    "gelu",
    "hadamard_mix",
    "has_class_token",
    "head",
    "head_linear",
    "hf_vision",
    "image",
    "layer_norm",
    "linear",
    "multimodal",
    "noisy_linear",
    "normalized_floats",
    "pixels",
    "power_iteration",
    "processor",
    "projection",
    "q_values",
    "quantile_path",
    "relu",
    "relu_float_mlp",
    "sample_tau",
    "spectral_weight",
    "state",
    "stem",
    "summary_token",
    "summary_vector",
    "tau_embedding",
    "tau_midpoints",
    "tau_symmetric",
    "tau_uniform",
    "topology",
    "transformer_trunk",
    "trunk",
    "trunk_kind",
]
