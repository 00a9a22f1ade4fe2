"""From a configuration to a network: routing, registration, assembly."""

from __future__ import annotations

import difflib
import warnings
from collections.abc import Callable, Mapping
from os import PathLike
from typing import Any, TypeVar

from torch import nn

from iqn_blocks.blocks import (
    Head,
    IQNTransformerTrunk,
    TauEmbedding,
    orthogonal_head_,
    orthogonal_tau_,
)
from iqn_blocks.config import TOPOLOGIES, Config, Slot, parse, thaw, unused_keys
from iqn_blocks.config import route as _route
from iqn_blocks.encoders.classic import ClassicEncoder
from iqn_blocks.encoders.hf import Recipes
from iqn_blocks.encoders.hf_vision import HFVisionEncoder
from iqn_blocks.encoders.multimodal import multimodal_encoder
from iqn_blocks.errors import ConfigError, UnsupportedTopologyError, UnusedConfigWarning
from iqn_blocks.network import IQN

ConfigLike = Config | Mapping[str, Any] | str | PathLike[str]
EncoderClass = TypeVar("EncoderClass", bound=Callable[..., nn.Module])

_ENCODERS: dict[str, Callable[..., nn.Module]] = {}


def register(name: str) -> Callable[[EncoderClass], EncoderClass]:
    """Make a state encoder available as ``nn.topology: name``.

    The encoder is called as ``Encoder(config, **nn.topology_options)``; it is a module with
    ``forward(img, floats) -> (B, D)`` and an integer ``state_dim`` ``D``.

    >>> @register("floats_as_they_are")
    ... class Raw(nn.Module):
    ...     def __init__(self, config):
    ...         super().__init__()
    ...         self.state_dim = config.float_input_dim
    ...     def forward(self, img, floats):
    ...         return floats
    >>> net = build({"n_actions": 3, "float_input_dim": 2, "nn": {
    ...     "topology": "floats_as_they_are", "vis": {"no_image": True}}})

    Raises:
        ValueError: another encoder has that name.
    """

    def add(encoder: EncoderClass) -> EncoderClass:
        if _ENCODERS.get(name, encoder) is not encoder:
            raise ValueError(f"register: the name {name!r} is taken by {_ENCODERS[name]!r}")
        _ENCODERS[name] = encoder
        return encoder

    return add


def list_topologies() -> list[str]:
    """Names that ``nn.topology`` accepts.

    >>> list_topologies()[:3]
    ['classic', 'hf_vision', 'multimodal']
    """
    return list(_ENCODERS)


def route(cfg: ConfigLike) -> str:
    """The topology that a configuration leads to, such as ``'classic'``.

    Raises:
        ConfigError: the configuration is not valid.
        UnsupportedTopologyError: no topology supports it, or ``nn.topology`` is not registered.
    """
    topology = _route(parse(cfg))
    if topology not in _ENCODERS:
        close = difflib.get_close_matches(topology, _ENCODERS, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else "."
        raise UnsupportedTopologyError(
            f"nn.topology: {topology!r} is not registered{hint} Registered are "
            f"{', '.join(map(repr, _ENCODERS))}; add your own with iqn_blocks.register"
        )
    return topology


def build(cfg: ConfigLike, *, strict: bool = False, recompute: bool = False) -> IQN:
    """Build the network that a configuration describes.

    Args:
        cfg: a mapping, a :class:`~iqn_blocks.config.Config`, or the path of a YAML or JSON file.
        strict: make keys that were set but that the network does not read an error, where otherwise
            each gives an :class:`~iqn_blocks.UnusedConfigWarning`.
        recompute: save memory in training, see :class:`~iqn_blocks.IQN`; can be set later too.

    Raises:
        ConfigError: the configuration is not valid; every fault is named with its way out.
        UnsupportedTopologyError: no topology supports it.
        CheckpointError: ``nn.init_from_pretrained`` leads to no checkpoint with such an encoder.
    """
    config = parse(cfg)
    _report_unused(config, route(config), strict=strict)
    net = assemble(config)
    net.recompute = recompute
    if config.nn.init_from_pretrained:
        from iqn_blocks.pretrained import load_encoder  # which needs this module

        load_encoder(net, config.nn.init_from_pretrained)
    return net


def assemble(config: Config, recipes: Recipes | None = None) -> IQN:
    """The network that a configuration describes, with weights from nowhere else.

    Keys that it does not read are not reported. Where there are ``recipes``, its Hugging Face
    models are built from them, with random weights and without their folder or the hub.

    Raises:
        ConfigError: no network can be built from the configuration.
    """
    encoder = _build_encoder(config, route(config), recipes)
    state_dim = encoder.state_dim
    assert isinstance(state_dim, int)
    decoder = config.nn.decoder
    offsets, actions = config.n_actions_per_block, config.n_actions
    out_shape = (actions,) if offsets == 1 else (offsets, actions)
    return IQN(
        config,
        encoder,
        _build_tau_embedding(config, state_dim),
        _build_head(
            config,
            decoder.advantage,
            state_dim,
            out_shape,
            noisy_readout=config.btr.use_noisy_linear,
        ),
        _build_head(
            config,
            decoder.value,
            state_dim,
            (1,),
            noisy_readout=config.btr.noisy_value_readout,
        ),
    )


def _report_unused(config: Config, topology: str, *, strict: bool) -> None:
    paths = unused_keys(config, topology)
    if strict and paths:
        raise ConfigError(
            "\n".join(f"{path}: set, but a {topology} network does not read it" for path in paths)
            + "\nRemove them, or build with strict=False."
        )
    for path in paths:
        warnings.warn(
            f"{path}: set, but a {topology} network does not read it",
            UnusedConfigWarning,
            stacklevel=3,
        )


def _build_encoder(config: Config, topology: str, recipes: Recipes | None) -> nn.Module:
    # The built-in encoders have no options of their own: set ones are reported as not read.
    options = thaw(config.nn.topology_options)
    if topology in TOPOLOGIES:
        options = {"recipes": recipes} if recipes else {}
    encoder = _ENCODERS[topology](config, **options)
    state_dim = getattr(encoder, "state_dim", None)
    if not isinstance(encoder, nn.Module) or not isinstance(state_dim, int) or state_dim < 1:
        raise UnsupportedTopologyError(
            f"nn.topology: the encoder registered as {topology!r} must be an nn.Module with an "
            f"integer state_dim >= 1, got {type(encoder).__name__} with state_dim {state_dim!r}"
        )
    return encoder


def _build_tau_embedding(config: Config, state_dim: int) -> TauEmbedding:
    iqn = config.nn.iqn
    embedding = TauEmbedding(
        iqn.embedding_dimension,
        state_dim,
        cosine_start=iqn.cosine_start,
        activation=config.nn.activation,
    )
    if config.nn.init == "orthogonal":
        orthogonal_tau_(embedding)
    embedding.requires_grad_(not iqn.freeze)
    return embedding


def _build_head(
    config: Config,
    slot: Slot,
    state_dim: int,
    out_shape: tuple[int, ...],
    *,
    noisy_readout: bool,
) -> Head:
    half = max(1, config.nn.decoder.dense_hidden_dimension // 2)
    trunk, hidden_dims = None, [half]
    if slot.transformer is not None:
        t = slot.transformer
        trunk = IQNTransformerTrunk(
            state_dim,
            t.d_model,
            n_layers=t.n_layers,
            n_heads=t.n_heads,
            ff_mult=t.ff_mult,
            dropout=t.dropout,
        )
    elif slot.mlp is not None:
        hidden_dims = [slot.mlp.hidden_dim or half] * slot.mlp.n_hidden_layers
    head = Head(
        state_dim,
        hidden_dims,
        out_shape,
        trunk=trunk,
        layer_norm=config.btr.use_layer_norm,
        noisy=config.btr.use_noisy_linear,
        noisy_readout=noisy_readout,
        sigma0=config.btr.noisy_sigma0,
        activation=config.nn.activation,
    )
    if config.nn.init == "orthogonal":
        orthogonal_head_(head)
    head.requires_grad_(not slot.freeze)
    return head


register("classic")(ClassicEncoder)
register("hf_vision")(HFVisionEncoder)
register("multimodal")(multimodal_encoder)
