"""Reading a folder: its file first, all checks next, and only then a network."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import safe_open
from safetensors.torch import load as decode_tensors
from torch import Tensor

from iqn_blocks.blocks import ImageNormalization
from iqn_blocks.build import assemble, route
from iqn_blocks.checkpoint.backbones import checked_recipes
from iqn_blocks.checkpoint.format import (
    CONFIG_FILE,
    DTYPE_NAMES,
    FORMAT,
    WEIGHTS_FILE,
    Manifest,
    checked_folder,
    settings_in,
    sha256,
)
from iqn_blocks.checkpoint.saving import is_channels_last, plain_network, state_tensors
from iqn_blocks.config import TOPOLOGIES
from iqn_blocks.errors import CheckpointError
from iqn_blocks.hf import Models
from iqn_blocks.network import IQN


class Checkpoint(NamedTuple):
    """A folder's content: ``tensors`` by name, in memory of their own.

    They were read from ``path``, the manifest from ``source``.
    """

    manifest: Manifest
    tensors: dict[str, Tensor]
    path: Path
    source: Path


def read_folder(folder: str | os.PathLike[str]) -> Checkpoint:
    """The content of a checkpoint folder; nothing of it stays tied to the files.

    Raises:
        CheckpointError: a file is missing, damaged or of a newer format.
    """
    folder = checked_folder(folder)
    path = source = folder / WEIGHTS_FILE
    content = read_bytes(path)
    settings = settings_in(content or b"")
    if settings is None:  # version 1
        source = folder / CONFIG_FILE
        settings = read_bytes(source)
        if settings is None:
            raise CheckpointError(
                f"{path}: not found"
                if content is None
                else f"{path}: is damaged, or no checkpoint: it holds no settings, and there is no "
                f"{CONFIG_FILE} beside it"
            )
    manifest = Manifest.decode(settings, source)
    expected = manifest.weights_sha256
    if content is None or sha256(content, expected) != expected:
        other = folder / f"model-{expected}.safetensors"
        spare = read_bytes(other)
        if spare is None or sha256(spare) != expected:
            if read_bytes(path) != content:  # another process has saved meanwhile
                return read_folder(folder)
            raise CheckpointError(
                f"{path}: not found"
                if content is None
                else f"{path}: is damaged, incomplete or of another save: its SHA-256 is "
                f"{sha256(content, expected)}, {source.name} names {expected}"
            )
        path, content = other, spare
    try:
        tensors = decode_tensors(content)
    except Exception as error:  # the parser raises many types; each means the same here
        raise CheckpointError(f"{path}: is not a safetensors file: {error}") from error
    return Checkpoint(manifest, tensors, path, source)


def is_checkpoint(folder: Path) -> bool:
    """Whether a folder says that it is one of ours, or has a config.json too damaged to say it."""
    weights = folder / WEIGHTS_FILE
    if weights.is_file():  # opening a pipe would wait
        with suppress(Exception), safe_open(weights, "pt") as file:
            if FORMAT in (file.metadata() or {}):
                return True
    try:
        config = read_bytes(folder / CONFIG_FILE)
        data = {} if config is None else json.loads(config)
    except (ValueError, RecursionError):  # CheckpointError is a ValueError
        return True
    return not isinstance(data, dict) or data.get("format") == FORMAT


def load_folder(
    folder: str | os.PathLike[str],
    *,
    map_location: str | torch.device | None = None,
    dtype: torch.dtype | None = None,
    trust_remote_code: bool = False,
) -> IQN:
    """The network in a folder; arguments and errors as in :func:`~iqn_blocks.from_pretrained`."""
    if dtype is not None and not (isinstance(dtype, torch.dtype) and dtype.is_floating_point):
        known = isinstance(getattr(torch, str(dtype), None), torch.dtype)
        way_out = f"torch.{dtype}" if known else "one such as torch.bfloat16"
        raise ValueError(f"dtype: expected a floating dtype, got {dtype!r}; write {way_out}")
    checkpoint = read_folder(folder)
    net = _empty_network(checkpoint, trust_remote_code)
    _check(net, checkpoint)
    if net.device.type == "meta":
        net.to_empty(device="cpu")
    _copy(net, checkpoint.tensors)
    if not checkpoint.manifest.training:
        net.eval()
    if dtype is not None:
        net.to(dtype)
    return net if map_location is None else net.to(map_location)


def load_weights(net: IQN, folder: str | os.PathLike[str]) -> None:
    """Load the weights in ``folder`` into a network that exists, in place.

    Names, shapes and dtypes must be the network's. Its configuration, mode and frozen parameters
    stay as they are. Of a network that ``fully_shard`` has sharded every rank reads the folder and
    keeps its own part.

    Raises:
        CheckpointError: as in :func:`~iqn_blocks.from_pretrained`; the network is then unchanged.
    """
    net = plain_network(net)
    checkpoint = read_folder(folder)
    _check(net, checkpoint)
    _copy(net, checkpoint.tensors)


def read_bytes(path: Path) -> bytes | None:
    """The content of a file, None where there is none: a save may remove it at any moment."""
    try:
        if stat.S_ISREG(path.stat().st_mode):  # what is no regular file may block, as a pipe does
            return path.read_bytes()
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise CheckpointError(f"{path}: cannot be read: {reason}") from error
    raise CheckpointError(f"{path}: is not a file")


def _empty_network(checkpoint: Checkpoint, trust_remote_code: bool) -> IQN:
    """A network of the right structure and dtypes, whose values are yet to come."""
    manifest = checkpoint.manifest
    path = checkpoint.source
    try:
        built_in = route(manifest.config) in TOPOLOGIES
        recipes = checked_recipes(
            manifest,
            checkpoint.tensors,
            path,
            built_in=built_in,
            trust_remote_code=trust_remote_code,
        )
        net = None
        if built_in and not recipes:
            with torch.device("meta"):  # shapes alone: nothing is drawn or allocated
                net = assemble(manifest.config)
        if net is None or _computes_buffers(net):
            with torch.device("cpu"), torch.random.fork_rng(devices=[]):
                net = assemble(manifest.config, Models(recipes))
    except CheckpointError:
        raise
    except ValueError as error:
        raise CheckpointError(f"{path}: no network can be built from it:\n{error}") from error
    net.to(manifest.dtype)
    for name, tensor in net.state_dict(keep_vars=True).items():
        dtype = manifest.other_dtypes.get(name, tensor.dtype)
        if dtype.is_floating_point == tensor.is_floating_point():  # otherwise a misfit
            tensor.data = tensor.data.to(dtype)
        last = name in manifest.channels_last
        if last != is_channels_last(tensor) and tensor.ndim == 4:
            layout = torch.channels_last if last else torch.contiguous_format
            tensor.data = torch.empty_like(tensor, memory_format=layout)
    return net


def _computes_buffers(net: IQN) -> bool:
    """Whether a part computes tensors that no file holds, which ``meta`` cannot."""
    saved = net.state_dict()
    own = (name for name, _ in net.named_buffers() if name not in saved)
    owners = (net.get_submodule(name.rpartition(".")[0]) for name in own)
    return any(not isinstance(owner, ImageNormalization) for owner in owners)


def _check(net: IQN, checkpoint: Checkpoint) -> None:
    """Raise one CheckpointError with everything in which the file does not fit the network."""
    expected, found = state_tensors(net, whole=False), checkpoint.tensors
    both = [name for name in expected if name in found]
    faults = [f"missing: {name} {_kind(expected[name])}" for name in expected if name not in found]
    faults += [f"unexpected: {name} {_kind(found[name])}" for name in found if name not in expected]
    faults += [
        f"{name}: found {_kind(found[name])}, expected {_kind(expected[name])}"
        for name in both
        if _kind(found[name]) != _kind(expected[name])
    ]
    manifest, names = checkpoint.manifest, expected.keys() | found.keys()
    faults += [
        f"other_dtypes: {name} is {DTYPE_NAMES[dtype]}, expected the name and dtype of a tensor"
        for name, dtype in manifest.other_dtypes.items()
        if name not in names or (name in found and found[name].dtype != dtype)
    ]
    faults += [
        f"channels_last: {name}, expected the name of a tensor of four dimensions"
        for name in manifest.channels_last
        if name not in names or (name in found and found[name].ndim != 4)
    ]
    if faults:
        faults.insert(0, f"{checkpoint.path}: does not fit the network")
    if checkpoint.manifest.edited:
        faults.append(
            f"{checkpoint.source}: was changed after it was saved; restore it, or if the change is "
            f"meant, set settings_sha256 to {checkpoint.manifest.edited}"
        )
    if faults:
        raise CheckpointError("\n".join(faults))


def _kind(tensor: Tensor) -> str:
    return f"{DTYPE_NAMES.get(tensor.dtype, tensor.dtype)} {tuple(tensor.shape)}"


@torch.no_grad()
def _copy(net: IQN, tensors: Mapping[str, Tensor]) -> None:
    for name, tensor in state_tensors(net, whole=False).items():
        tensor.copy_(_sharded_like(tensor, tensors[name]))


def _sharded_like(tensor: Any, whole: Tensor) -> Tensor:
    """This rank's part of ``whole`` where ``tensor`` is sharded; no rank waits for another."""
    if not hasattr(tensor, "device_mesh"):
        return whole
    from torch.distributed.tensor import distribute_tensor

    on_device = whole.to(tensor.device)
    return distribute_tensor(on_device, tensor.device_mesh, tensor.placements, src_data_rank=None)
