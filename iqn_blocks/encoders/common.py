"""What several encoders build from the configuration."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from iqn_blocks.blocks import FloatMLP, FloatNormalization, native_encoder
from iqn_blocks.config import Config, Transformer, float_hidden_dim, stem_part, trunk_part
from iqn_blocks.errors import ConfigError
from iqn_blocks.hf import Models
from iqn_blocks.make import make_part


def build_stem(config: Config) -> nn.Module:
    """The image stem that ``nn.vis`` describes; it has an integer ``out_dim``.

    Raises:
        ConfigError: the stem refuses the image or its options, or has no such width.
    """
    vis = config.nn.vis
    stem: nn.Module = make_part(
        "stem",
        stem_part(config),
        vis.in_channels,
        (vis.image_size.height, vis.image_size.width),
        path="nn.vis",
        shared={"activation": lambda _: config.nn.activation},
        keys={"image_size": "nn.vis.image_size", "in_channels": "nn.vis.in_channels"},
    )
    if not isinstance(getattr(stem, "out_dim", None), int):
        raise ConfigError(
            f"nn.vis: the stem {type(stem).__name__} must have an integer out_dim; set "
            f"self.out_dim in its __init__"
        )
    return stem


def build_trunk(config: Config, n_tokens: int, models: Models | None) -> nn.Module:
    """The trunk ``(B, T, d) -> (B, d)`` that ``nn.encoder`` describes."""
    trunk: nn.Module = make_part(
        "trunk",
        trunk_part(config),
        n_tokens,
        config.nn.encoder.transformer.d_model,
        path="nn.encoder.fusion_encoder",
        shared={"activation": lambda _: config.nn.activation, "models": lambda _: models},
        keys={"d_model": "nn.encoder.transformer.d_model"},
    )
    return trunk


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


def given(x: Tensor | None, name: str) -> Tensor:
    """The input of that name.

    Raises:
        TypeError: there is none.
    """
    if x is None:
        raise TypeError(f"{name}: this encoder reads it, got None; pass a tensor")
    return x


def freeze(encoder: nn.Module, groups: Mapping[str, bool], *, others: bool = False) -> None:
    """Set ``requires_grad=False`` on the parts that ``groups`` marks, with ``others`` on the rest.

    ``groups`` names parts by the path of their module; the longest path that fits counts.
    """
    for name, parameter in encoder.named_parameters():
        paths = [path for path in groups if name.startswith(f"{path}.")]
        if groups[max(paths, key=len)] if paths else others:
            parameter.requires_grad_(False)
