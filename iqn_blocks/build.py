"""From a configuration to a network. The only file that knows all slots."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from os import PathLike
from typing import Any, NoReturn

import torch
from torch import nn

from iqn_blocks.blocks import FractionProposer, TauEmbedding, orthogonal_head_, orthogonal_tau_
from iqn_blocks.config import Config, HeadSlot, Part, parse, thaw
from iqn_blocks.config import route as _route
from iqn_blocks.config.messages import join
from iqn_blocks.config.reads import Reads, unread_keys, watch
from iqn_blocks.encoders import classic, hf_vision, multimodal  # noqa: F401  # they register
from iqn_blocks.errors import ConfigError, UnsupportedTopologyError, UnusedConfigWarning
from iqn_blocks.hf import Models
from iqn_blocks.inputs import InputSpec
from iqn_blocks.make import make_part
from iqn_blocks.network import IQN
from iqn_blocks.recurrent import RecurrentIQN
from iqn_blocks.registry import find_part, read_options

ConfigLike = Config | Mapping[str, Any] | str | PathLike[str]

MAX_PARAMETERS = 2**31


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


def build(
    cfg: ConfigLike | None = None,
    *,
    strict: bool = False,
    recompute: bool = False,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
    seed: int | None = None,
    **keys: NoReturn,
) -> IQN:
    """Build the network that a configuration describes.

    It is put together twice: first on the ``meta`` device, where nothing is allocated, to see that
    all parts fit, how large they are, and which keys they read.

    Args:
        cfg: a mapping, a :class:`~iqn_blocks.Config`, or the path of a YAML or JSON file.
        strict: make keys that were set but that the network does not read an error, where otherwise
            each gives an :class:`~iqn_blocks.UnusedConfigWarning`.
        recompute: save memory in training, see :class:`~iqn_blocks.IQN`; can be set later too.
        device: where the network goes; torch's default device if omitted.
        dtype: floating dtype of its parameters; torch's default dtype if omitted.
        seed: draw the weights on the CPU from this seed, the same ones wherever the network goes;
            torch's global generators stay as they are.
        keys: none; for a message where keys of the configuration are given as arguments.

    Raises:
        ConfigError: the configuration is not valid; every fault is named with its way out.
        UnsupportedTopologyError: no topology supports it.
        CheckpointError: ``nn.init_from_pretrained`` leads to no checkpoint with such an encoder.
        TypeError: ``dtype`` is no floating dtype, or keys of the configuration as arguments.
    """
    if keys:
        raise TypeError(
            f"build: found the arguments {', '.join(keys)}; accepted: one configuration; write "
            f'build({{"{next(iter(keys))}": ..., ...}})'
        )
    if dtype is not None and not (isinstance(dtype, torch.dtype) and dtype.is_floating_point):
        raise TypeError(f"dtype: got {dtype!r}; accepted: a floating one, such as torch.bfloat16")
    config, models = parse(cfg), Models()
    start = config.nn.init_from_pretrained
    with _seeded(seed):
        net, reads = _plan(config, models)
        _report_unread(config, reads, strict=strict)
        if net.device.type == "meta":
            net = assemble(config, models)
    net.recompute = recompute
    if start:
        from iqn_blocks.pretrained import load_encoder  # which needs this module

        load_encoder(net, start)
    if seed is not None and device is None:
        device = torch.get_default_device()
    return net if device is None and dtype is None else net.to(device, dtype)


@contextmanager
def _seeded(seed: int | None) -> Iterator[None]:
    """Draw on the CPU from ``seed``, and put torch's generator there back; with None, nothing."""
    if seed is None:
        yield
        return
    with torch.random.fork_rng(devices=[]), torch.device("cpu"):
        torch.default_generator.manual_seed(seed)
        yield


def check(cfg: ConfigLike, *, strict: bool = False) -> Config:
    """The configuration, once it is known that a network can be built from it.

    Nothing is allocated, Hugging Face models aside. Arguments, warnings and errors are those of
    :func:`build`.
    """
    config = parse(cfg)
    _, reads = _plan(config, Models())
    _report_unread(config, reads, strict=strict)
    return config


def unused_keys(cfg: ConfigLike) -> list[str]:
    """Dotted paths of keys that were set to another value than their default, and are not read.

    Keys for trainers are never among them. Errors are those of :func:`build`.
    """
    config = parse(cfg)
    return unread_keys(config, _plan(config, Models())[1])


def assemble(config: Config, models: Models | None = None) -> IQN:
    """The network that a configuration describes, with weights from nowhere else.

    Keys that it does not read are not reported, and sizes are not limited. ``models`` says where
    pretrained parts come from; by default from their folder or hub id.

    Raises:
        ConfigError: no network can be built from the configuration.
    """
    nn_config, faults = config.nn, list[str]()
    encoder = _encoder(config, route(config), models)
    state_dim: Any = encoder.state_dim
    core = None
    if nn_config.core is not None:
        core = make_part("core", nn_config.core, state_dim, path="nn.core")
        state_dim = core.state_dim
    mixer = make_part("mixer", nn_config.iqn.mixer, state_dim, path="nn.iqn.mixer")
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
    made = {}
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


def _plan(config: Config, models: Models) -> tuple[IQN, Reads]:
    """The network on ``meta``, checked, and the keys that were read for it.

    A part of the user's own may compute with tensors while it is built, which ``meta`` cannot: the
    network is then built for real at once.
    """
    with watch() as reads:
        _ = config.nn.init_from_pretrained  # read by whoever asks for weights
        try:
            with torch.device("meta"):
                net = assemble(config, models)
        except (NotImplementedError, RuntimeError, TypeError) as error:
            if "overflow" in str(error):
                raise ConfigError(_too_large("more than 2^63", "")) from None
            net = assemble(config, models)
    _check_size(net)
    return net, reads


def _check_size(net: IQN) -> None:
    """Refuse a network of more than :data:`MAX_PARAMETERS`, Hugging Face models aside."""
    encoder, whole = (
        sum(p.numel() for p in module.parameters() if p.is_meta) for module in (net.encoder, net)
    )
    if whole > MAX_PARAMETERS:
        where = f"; the encoder has {encoder} of them, τ projection and heads {whole - encoder}"
        raise ConfigError(_too_large(str(whole), where))


def _too_large(found: str, where: str) -> str:
    return (
        f"the network: found {found} parameters; accepted: at most {MAX_PARAMETERS}{where}: reduce "
        f"the sizes there"
    )


def _report_unread(config: Config, reads: Reads, *, strict: bool) -> None:
    topology = route(config)
    lines = [
        f"{path}: set, but a {topology} network does not read it"
        for path in unread_keys(config, reads)
    ]
    if strict and lines:
        raise ConfigError("\n".join(lines) + "\nRemove them, or build with strict=False.")
    for line in lines:
        warnings.warn(line, UnusedConfigWarning, stacklevel=3)


def _encoder(config: Config, topology: str, models: Models | None) -> nn.Module:
    part = find_part("topology", topology)
    values, faults = read_options(part, "topology", config.nn.topology_options)
    if faults:
        lines = [f"nn.topology_options.{option}: {text}" for option, text in faults]
        raise ConfigError(join(lines))
    encoder: nn.Module = make_part(
        "topology",
        Part(topology, {name: thaw(value) for name, value in values.items()}),
        config,
        path="nn.topology",
        shared={"models": lambda _: models},
    )
    state_dim = getattr(encoder, "state_dim", None)
    if not isinstance(state_dim, int) or state_dim < 1:
        raise UnsupportedTopologyError(
            f"nn.topology: the encoder registered as {topology!r} must be an nn.Module with an "
            f"integer state_dim >= 1, got {type(encoder).__name__} with state_dim {state_dim!r}"
        )
    return encoder


def _head(config: Config, name: str, in_dim: int, out_shape: tuple[int, ...]) -> nn.Module:
    decoder, btr = config.nn.decoder, config.btr
    slot: HeadSlot = getattr(decoder, name)
    noisy_readout = {
        "advantage": lambda _: btr.use_noisy_linear,
        "value": lambda _: btr.noisy_value_readout,
    }
    head: nn.Module = make_part(
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
            "noisy_readout": noisy_readout[name],
            "sigma0": lambda found: (
                btr.noisy_sigma0
                if found.get("noisy", True) or found.get("noisy_readout", True)
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
    shape = (vis.in_channels, vis.image_size.height, vis.image_size.width)
    return InputSpec(shape, n_floats, any_image_size)
