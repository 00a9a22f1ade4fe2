"""What several encoders build from the configuration."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from iqn_blocks.blocks import (
    ConvStem,
    FloatMLP,
    FloatNormalization,
    ImageStem,
    ImpalaStem,
    native_encoder,
)
from iqn_blocks.config import Config, Transformer, float_hidden_dim


def build_stem(config: Config) -> ImageStem:
    """The image stem that ``nn.vis.cnn`` describes."""
    vis = config.nn.vis
    cnn = vis.cnn
    assert cnn is not None
    image_size = (vis.image_size.height, vis.image_size.width)
    pool = cnn.adaptive_maxpool_size if cnn.use_adaptive_maxpool else None
    spectral_norm = cnn.spectral_norm_scope if cnn.use_spectral_norm else None
    if cnn.use_impala_cnn:
        return ImpalaStem(
            vis.in_channels,
            image_size,
            uint8_scaling=vis.uint8_scaling,
            model_size=cnn.impala_model_size,
            adaptive_maxpool_size=pool,
            spectral_norm=spectral_norm,
        )
    return ConvStem(
        vis.in_channels,
        image_size,
        uint8_scaling=vis.uint8_scaling,
        activation=config.nn.activation,
        adaptive_maxpool_size=pool,
        spectral_norm=spectral_norm,
    )


def build_normalization(config: Config) -> FloatNormalization:
    """Normalisation of the floats by the configured statistics."""
    return FloatNormalization(
        config.float_input_dim, config.float_inputs_mean, config.float_inputs_std
    )


def build_float_mlp(config: Config) -> FloatMLP:
    """The ReLU perceptron over floats that hf_vision and multimodal networks have."""
    return FloatMLP(config.float_input_dim, float_hidden_dim(config))


def native_or_identity(block: Transformer) -> nn.Module:
    """The native encoder that a block sizes; ``n_layers: 0`` leaves it out."""
    if block.n_layers == 0:
        return nn.Identity()
    return native_encoder(
        block.d_model,
        n_layers=block.n_layers,
        n_heads=block.n_heads,
        ff_mult=block.ff_mult,
        dropout=block.dropout,
    )


def freeze(encoder: nn.Module, groups: Mapping[str, bool], *, others: bool = False) -> None:
    """Set ``requires_grad=False`` on the parts that ``groups`` marks, with ``others`` on the rest.

    ``groups`` names parts by the path of their module; the longest path that fits counts.
    """
    for name, parameter in encoder.named_parameters():
        paths = [path for path in groups if name.startswith(f"{path}.")]
        if groups[max(paths, key=len)] if paths else others:
            parameter.requires_grad_(False)
