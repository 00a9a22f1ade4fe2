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

    ``tokens`` says whether a sequence of them can be used in the place of one vector.

    Raises:
        ConfigError: the stem refuses the image or its options, has no such width, or gives tokens
            where they cannot be used.
    """
    vis, part = config.nn.vis, stem_part(config)
    stem: nn.Module = make_part(
        "stem",
        part,
        vis.in_channels,
        (vis.image_size.height, vis.image_size.width),
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
    return with_out_dim(stem, f"nn.vis.{part.name}")


def with_out_dim(module: nn.Module, path: str) -> nn.Module:
    """The same module, once it is known to have an integer ``out_dim``."""
    if not isinstance(getattr(module, "out_dim", None), int):
        raise ConfigError(
            f"{path}: {type(module).__name__} must have an integer out_dim; set self.out_dim in "
            f"its __init__"
        )
    return module


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


def build_floats(config: Config, shared: Shared | None = None) -> nn.Module:
    """The branch of the normalised floats, by default a perceptron; has an integer ``out_dim``.

    ``shared`` fills options that it has and nobody set.

    Raises:
        ConfigError: the part refuses its options, or has no such width.
    """
    part = floats_part(config)
    floats: nn.Module = make_part(
        "floats", part, config.float_input_dim, path="nn.float", shared=shared
    )
    return with_out_dim(floats, f"nn.float.{part.name}")


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
