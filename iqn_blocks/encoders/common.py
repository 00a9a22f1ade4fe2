"""What several encoders build from the configuration."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from iqn_blocks.blocks import FloatNormalization, native_encoder
from iqn_blocks.config import Config, Transformer, floats_part, stem_part, trunk_part
from iqn_blocks.errors import ConfigError
from iqn_blocks.hf import Models
from iqn_blocks.make import Shared, make_part


def build_stem(config: Config, *, tokens: bool = False) -> nn.Module:
    """The image stem that ``nn.vis`` describes; it has an integer ``out_dim``.

    ``tokens`` says whether the network takes a sequence of tokens in place of one vector.

    Raises:
        ConfigError: the stem refuses the image or its options, or gives tokens that the network
            does not take.
    """
    vis, part = config.nn.vis, stem_part(config)
    stem = make_part(
        "stem",
        part,
        vis.in_channels,
        vis.image_size.shape,
        path="nn.vis",
        shared={"activation": lambda _: config.nn.activation},
        keys={"image_size": "nn.vis.image_size", "in_channels": "nn.vis.in_channels"},
    )
    if getattr(stem, "n_tokens", None) is not None and not tokens:
        raise ConfigError(
            f"nn.vis.{part.name}: found a stem that gives tokens, where the network takes one "
            f"vector; accepted: the readout flatten, max or avg; set it, or build a network of "
            f"tokens (nn.fusion_mode: unified, or post_concat with nn.encoder.post_concat_layout: "
            f"token_sequence)"
        )
    return stem


def build_trunk(config: Config, n_tokens: int, models: Models | None) -> nn.Module:
    """The trunk ``(B, T, d) -> (B, d)`` that ``nn.encoder`` describes."""
    return make_part(
        "trunk",
        trunk_part(config),
        n_tokens,
        config.nn.encoder.transformer.d_model,
        path="nn.encoder.fusion_encoder",
        shared={"activation": lambda _: config.nn.activation, "models": lambda _: models},
        keys={"d_model": "nn.encoder.transformer.d_model"},
    )


def build_normalization(config: Config) -> FloatNormalization:
    """Normalisation of the floats by the configured statistics."""
    return FloatNormalization(
        config.float_input_dim, config.float_inputs_mean, config.float_inputs_std
    )


def build_floats(config: Config, shared: Shared | None = None) -> nn.Module:
    """The branch of the normalised floats, by default a perceptron; has an integer ``out_dim``.

    ``shared`` holds values for options that it has and that were not given.

    Raises:
        ConfigError: the part refuses its options.
    """
    return make_part(
        "floats", floats_part(config), config.float_input_dim, path="nn.float", shared=shared
    )


def native_or_identity(block: Transformer) -> nn.Module:
    """The native encoder that a block sizes; ``n_layers: 0`` leaves it out."""
    if block.n_layers == 0:
        return nn.Identity()
    keys = ("n_layers", "n_heads", "ff_mult", "dropout")
    return native_encoder(block.d_model, **{key: getattr(block, key) for key in keys})


def require(x: Tensor | None, name: str) -> Tensor:
    """The input of that name.

    Raises:
        TypeError: there is none.
    """
    if x is None:
        raise TypeError(f"{name}: this encoder reads it, got None; pass a tensor")
    return x


def freeze(encoder: nn.Module, groups: Mapping[str, bool], *, others: bool = False) -> None:
    """Set ``requires_grad=False`` in every module that ``groups`` marks, by ``others`` elsewhere.

    ``groups`` says by the path of a module whether it is frozen; the longest path that fits counts.
    """
    for name, parameter in encoder.named_parameters():
        paths = [path for path in groups if name.startswith(f"{path}.")]
        if groups[max(paths, key=len)] if paths else others:
            parameter.requires_grad_(False)
