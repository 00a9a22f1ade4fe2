"""Reading a folder: its files first, all checks next, and only then a network."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors.torch import load as decode_tensors
from torch import Tensor

from iqn_blocks.blocks import ImageNormalization
from iqn_blocks.build import assemble, route
from iqn_blocks.checkpoint.backbones import checked_recipes
from iqn_blocks.checkpoint.format import (
    CONFIG_FILE,
    DTYPE_NAMES,
    WEIGHTS_FILE,
    Manifest,
    digest_file,
    sha256,
)
from iqn_blocks.checkpoint.saving import is_channels_last, plain_network, state_tensors
from iqn_blocks.config import TOPOLOGIES
from iqn_blocks.errors import CheckpointError
from iqn_blocks.hf import Models
from iqn_blocks.network import IQN

_ATTEMPTS = 100  # of reading two files that another process is replacing


class Checkpoint(NamedTuple):
    """A folder's content: ``tensors`` by name, in memory of their own, read from ``path``."""

    manifest: Manifest
    tensors: dict[str, Tensor]
    path: Path


def read_folder(folder: str | os.PathLike[str]) -> Checkpoint:
    """The content of a checkpoint folder; nothing of it stays tied to the files.

    Raises:
        CheckpointError: a file is missing, damaged, of a newer format, or not of this save.
    """
    folder = Path(folder)
    manifest, content, path = _read_files(folder)
    try:
        tensors = decode_tensors(content)
    except Exception as error:  # the parser raises many types; each means the same here
        raise CheckpointError(f"{path}: is not a safetensors file: {error}") from error
    return Checkpoint(manifest, tensors, path)


def load_folder(
    folder: str | os.PathLike[str],
    *,
    map_location: str | torch.device | None = None,
    dtype: torch.dtype | None = None,
    trust_remote_code: bool = False,
) -> IQN:
    """The network in a folder; arguments and errors as in :func:`~iqn_blocks.from_pretrained`."""
    if dtype is not None and not dtype.is_floating_point:
        raise ValueError(f"dtype: expected a floating dtype, got {dtype}")
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
    stay as they are.

    Raises:
        CheckpointError: as in :func:`~iqn_blocks.from_pretrained`; the network is then unchanged.
    """
    net = plain_network(net)
    checkpoint = read_folder(folder)
    _check(net, checkpoint)
    _copy(net, checkpoint.tensors)


def _read_files(folder: Path) -> tuple[Manifest, bytes, Path]:
    """The manifest and the weights it names, also while another process saves into the folder."""
    config_path, weights_path = folder / CONFIG_FILE, folder / WEIGHTS_FILE
    for _ in range(_ATTEMPTS):
        before = _stamp(config_path), _stamp(weights_path)
        config = _read(config_path)
        if config is None:
            raise CheckpointError(f"{config_path}: cannot be read: No such file or directory")
        manifest = Manifest.decode(config, config_path)
        found = None
        for path in (weights_path, folder / digest_file(manifest.weights_sha256)):
            content = _read(path)
            if content is not None:
                digest = sha256(content)
                if digest == manifest.weights_sha256:
                    return manifest, content, path
                found = found or digest
        if (_stamp(config_path), _stamp(weights_path)) == before:
            break
    if found is None:
        raise CheckpointError(f"{weights_path}: not found")
    raise CheckpointError(
        f"{weights_path}: is damaged, incomplete or of another save: its SHA-256 is {found}, "
        f"{CONFIG_FILE} names {manifest.weights_sha256}"
    )


def _stamp(path: Path) -> tuple[int, int] | None:
    """What changes whenever a save replaces the file; None where there is none."""
    try:
        status = path.stat()
    except (OSError, ValueError):  # what cannot be read is told by _read
        return None
    return status.st_ino, status.st_mtime_ns


def _read(path: Path) -> bytes | None:
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
    path = checkpoint.path.with_name(CONFIG_FILE)
    try:
        built_in = route(manifest.config) in TOPOLOGIES
        recipes = checked_recipes(
            manifest, path, built_in=built_in, trust_remote_code=trust_remote_code
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
        if name in manifest.other_dtypes:
            tensor.data = tensor.data.to(manifest.other_dtypes[name])
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
    expected, found = state_tensors(net), checkpoint.tensors
    both = [name for name in expected if name in found]
    faults = [f"missing: {name} {_kind(expected[name])}" for name in expected if name not in found]
    faults += [f"unexpected: {name} {_kind(found[name])}" for name in found if name not in expected]
    faults += [
        f"{name}: found {_kind(found[name])}, expected {_kind(expected[name])}"
        for name in both
        if _kind(found[name]) != _kind(expected[name])
    ]
    if faults:
        faults.insert(0, f"{checkpoint.path}: does not fit the network")
    if checkpoint.manifest.edited:
        faults.append(
            f"{checkpoint.path.with_name(CONFIG_FILE)}: was changed after it was saved; restore "
            f"it, or if the change is meant, set settings_sha256 to {checkpoint.manifest.edited}"
        )
    if faults:
        raise CheckpointError("\n".join(faults))


def _kind(tensor: Tensor) -> str:
    return f"{DTYPE_NAMES.get(tensor.dtype, tensor.dtype)} {tuple(tensor.shape)}"


@torch.no_grad()
def _copy(net: IQN, tensors: Mapping[str, Tensor]) -> None:
    for name, tensor in state_tensors(net).items():
        tensor.copy_(tensors[name])
