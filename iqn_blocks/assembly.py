"""From a configuration to a network: the only file that knows all slots."""

from __future__ import annotations

from collections.abc import Mapping
from os import PathLike
from typing import Any

from torch import nn

from iqn_blocks.blocks import FractionProposer, TauEmbedding, orthogonal_head_, orthogonal_tau_
from iqn_blocks.config import Config, HeadSlot, Part, parse, thaw
from iqn_blocks.config import route as _route
from iqn_blocks.config.messages import join
from iqn_blocks.encoders import classic, hf_vision, multimodal  # noqa: F401  # they register
from iqn_blocks.errors import ConfigError, UnsupportedTopologyError
from iqn_blocks.hf import Models
from iqn_blocks.inputs import InputSpec
from iqn_blocks.make import make_part
from iqn_blocks.network import IQN
from iqn_blocks.recurrent import RecurrentIQN
from iqn_blocks.registry import find_part, read_options

ConfigLike = Config | Mapping[str, Any] | str | PathLike[str]


def route(cfg: ConfigLike) -> str:
    """The topology that a configuration leads to, such as ``'classic'``.

    Raises:
        ConfigError: the configuration is not valid.
        UnsupportedTopologyError: no topology supports it, or ``nn.topology`` is not registered.
    """
    topology = _route(parse(cfg))
    try:
        find_part("topology", topology)
    except LookupError as error:
        raise UnsupportedTopologyError(f"nn.topology: {error.args[0]}") from None
    return topology


def assemble(config: Config, models: Models | None = None) -> IQN:
    """The network that a configuration describes, with new weights.

    It neither reports unread keys nor limits sizes. ``models`` says where pretrained parts come
    from: by default from their folder or hub id.

    Raises:
        ConfigError: no network can be built from the configuration.
    """
    nn_config = config.nn
    encoder: Any = _encoder(config, route(config), models)
    core: Any = None
    state_dim = encoder.state_dim
    if nn_config.core is not None:
        core = make_part("core", nn_config.core, state_dim, path="nn.core")
        state_dim = core.state_dim
    mixer: Any = make_part("mixer", nn_config.iqn.mixer, state_dim, path="nn.iqn.mixer")
    tau_embedding = TauEmbedding(
        nn_config.iqn.embedding_dimension,
        mixer.phi_dim,
        cosine_start=nn_config.iqn.cosine_start,
        activation=nn_config.activation,
        n_layers=nn_config.iqn.n_layers,
    )
    if nn_config.init == "orthogonal":
        orthogonal_tau_(tau_embedding)
    tau_embedding.requires_grad_(not nn_config.iqn.freeze)
    offsets, actions = config.n_actions_per_block, config.n_actions
    heads = {"advantage": (actions,) if offsets == 1 else (offsets, actions)}
    dueling = nn_config.decoder.dueling
    if dueling != "none":
        heads["value"] = (1,)
    made, faults = {}, []
    for name, out_shape in heads.items():
        try:
            made[f"{name}_head"] = _head(config, name, mixer.out_dim, out_shape)
        except ConfigError as error:
            faults.append(str(error))
    if faults:
        raise ConfigError(join(faults))
    options: dict[str, Any] = {
        **made,
        "dueling": "per_level" if dueling == "none" else dueling,
        "n": nn_config.iqn.n,
        "k": nn_config.iqn.k,
        "inputs": _inputs(config, any_image_size=getattr(encoder, "resizes_images", False)),
        "config": config,
    }
    if nn_config.iqn.fractions == "fqf":
        options["fractions"] = FractionProposer(state_dim, nn_config.iqn.n)
    if core is not None:
        return RecurrentIQN(encoder, core, tau_embedding, mixer, **options)
    return IQN(encoder, tau_embedding, mixer, **options)


def _encoder(config: Config, topology: str, models: Models | None) -> nn.Module:
    part = find_part("topology", topology)
    values, faults = read_options(part, "topology", config.nn.topology_options)
    if faults:
        lines = [f"nn.topology_options.{option}: {text}" for option, text in faults]
        raise ConfigError(join(lines))
    return make_part(
        "topology",
        Part(topology, {name: thaw(value) for name, value in values.items()}),
        config,
        path="nn.topology",
        shared={"models": lambda _: models},
    )


def _head(config: Config, name: str, in_dim: int, out_shape: tuple[int, ...]) -> nn.Module:
    decoder, btr = config.nn.decoder, config.btr
    slot: HeadSlot = getattr(decoder, name)
    head = make_part(
        "head",
        slot.part,
        in_dim,
        out_shape,
        path=f"nn.decoder.{name}",
        shared={
            "hidden_dim": lambda _: max(1, decoder.dense_hidden_dimension // 2),
            "activation": lambda _: config.nn.activation,
            "layer_norm": lambda _: btr.use_layer_norm,
            "noisy": lambda _: btr.use_noisy_linear,
            "noisy_readout": lambda _: (
                btr.noisy_value_readout if name == "value" else btr.use_noisy_linear
            ),
            "sigma0": lambda options: (
                btr.noisy_sigma0
                if options.get("noisy", True) or options.get("noisy_readout", True)
                else 0.5
            ),
        },
    )
    if config.nn.init == "orthogonal":
        orthogonal_head_(head)
    head.requires_grad_(not slot.freeze)
    return head


def _inputs(config: Config, *, any_image_size: bool) -> InputSpec:
    vis, n_floats = config.nn.vis, config.float_input_dim
    if vis.no_image:
        return InputSpec(None, n_floats)
    shape = (vis.in_channels, *vis.image_size.shape)
    return InputSpec(shape, n_floats, any_image_size)
