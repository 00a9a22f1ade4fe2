"""Building a network from a configuration: a plan on the ``meta`` device, then the weights."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from numbers import Integral
from typing import NoReturn

import torch

from iqn_blocks.assembly import ConfigLike, assemble, route
from iqn_blocks.config import Config, parse
from iqn_blocks.config.reads import Reads, unread_keys, watch
from iqn_blocks.errors import ConfigError, UnusedConfigWarning
from iqn_blocks.hf import Models
from iqn_blocks.network import IQN
from iqn_blocks.pretrained import load_encoder

MAX_PARAMETERS = 2**31


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
        keys: none are accepted; the error says where keys of the configuration belong.

    Raises:
        ConfigError: the configuration is not valid; every fault is named with its way out.
        UnsupportedTopologyError: no topology supports it.
        CheckpointError: ``nn.init_from_pretrained`` leads to no checkpoint with such an encoder.
        TypeError: ``dtype`` is no floating dtype, or keys of the configuration are arguments.
        ValueError: ``device`` or ``seed`` is none.
    """
    if keys:
        raise TypeError(
            f"build: found the arguments {', '.join(keys)}; accepted: one configuration; write "
            f'build({{"{next(iter(keys))}": ..., ...}})'
        )
    if dtype is not None and not (isinstance(dtype, torch.dtype) and dtype.is_floating_point):
        raise TypeError(f"dtype: got {dtype!r}; accepted: a floating one, such as torch.bfloat16")
    device, seed = _checked_device(device), _checked_seed(seed)
    config, models = parse(cfg), Models()
    start = config.nn.init_from_pretrained
    with _seeded(seed):
        net, reads = _plan(config, models)
        _report_unread(config, reads, strict=strict)
        if net.device.type == "meta":
            net = assemble(config, models)
    net.recompute = recompute
    if start:
        load_encoder(net, start)
    if seed is not None and device is None:
        device = torch.get_default_device()
    return net if device is None and dtype is None else net.to(device, dtype)


def _checked_device(device: torch.device | str | None) -> torch.device | None:
    try:
        return None if device is None else torch.device(device)
    except (RuntimeError, TypeError):
        raise ValueError(
            f"device: found {device!r}; accepted: a device of PyTorch, such as 'cpu', 'cuda' for a "
            f"GPU, or 'cuda:1'"
        ) from None


def _checked_seed(seed: object) -> int | None:
    if seed is None:
        return None
    if isinstance(seed, Integral) and not isinstance(seed, bool) and -(2**63) <= int(seed) < 2**64:
        return int(seed)
    raise ValueError(f"seed: found {seed!r}; accepted: a whole number of 64 bits, such as 0")


@contextmanager
def _seeded(seed: int | None) -> Iterator[None]:
    """Draw on the CPU from ``seed``, then restore torch's generator there; None changes nothing."""
    if seed is None:
        yield
        return
    with torch.random.fork_rng(devices=[]), torch.device("cpu"):
        torch.default_generator.manual_seed(seed)
        yield


def check(cfg: ConfigLike, *, strict: bool = False) -> Config:
    """The configuration, if a network can be built from it.

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


def _plan(config: Config, models: Models) -> tuple[IQN, Reads]:
    """The network on ``meta``, checked, and the keys that were read for it.

    A part of the user's own may compute with tensors while it is built, which is impossible on
    ``meta``: the network is then built for real at once.
    """
    with watch() as reads:
        _ = config.nn.init_from_pretrained  # `build` reads it
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
