"""Writing a network into a folder, so that it holds the old network or the new at every moment."""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save as encode_tensors
from torch import Tensor, nn

from iqn_blocks.checkpoint.format import (
    CONFIG_FILE,
    DTYPES,
    WEIGHTS_FILE,
    Manifest,
    digest_file,
    sha256,
)
from iqn_blocks.config import Config
from iqn_blocks.hf.models import recipes
from iqn_blocks.network import IQN

_LEFTOVER = re.compile(r"\.iqn-blocks-[0-9a-f]+\.tmp|model-([0-9a-f]{64})\.safetensors")
_COMPILED = "_orig_mod."  # what torch.compile puts before the names inside a compiled module


def save_pretrained(net: IQN, folder: str | os.PathLike[str]) -> None:
    """Write ``config.json`` and ``model.safetensors`` into ``folder``, made if it does not exist.

    At every moment, also if the process dies or the disk fills, the folder loads as the network
    that was in it or as the new one. A compiled network is saved as the one it was compiled from.
    In a :mod:`torch.distributed` job rank 0 writes, the others return at once. One process at a
    time may write into a folder; any number may read.

    Raises:
        TypeError: ``net`` is not a network of this library, or holds state that is no tensor.
        OSError: the folder cannot be written; the message names the file.
    """
    net = plain_network(net)
    if not is_writer():
        return
    weights, manifest = encode(net)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    _remove_leftovers(folder)
    new_weights = folder / digest_file(manifest.weights_sha256)
    _write(new_weights, weights)
    _write(folder / CONFIG_FILE, manifest.encode())  # from here on the folder holds the new network
    os.replace(new_weights, folder / WEIGHTS_FILE)
    _sync_folder(folder)
    _remove_leftovers(folder)


def is_writer() -> bool:
    """Whether this process writes: rank 0, or any process outside torch.distributed."""
    distributed = torch.distributed
    return not (distributed.is_available() and distributed.is_initialized()) or (
        distributed.get_rank() == 0
    )


def plain_network(net: nn.Module) -> IQN:
    """The network itself, also where ``torch.compile`` wrapped it."""
    plain = getattr(net, "_orig_mod", net)
    if not isinstance(plain, IQN):
        raise TypeError(
            f"net: expected a network made by iqn_blocks.build, got {type(plain).__name__}"
        )
    return plain


def config_of(net: IQN) -> Config:
    """The configuration that a network was built from.

    Raises:
        ValueError: it was made by hand and has none.
    """
    if net.config is None:
        raise ValueError(
            "net: this network was made by hand and has no configuration, from which it could be "
            "built again; save its state_dict, or register its parts and build it with "
            "iqn_blocks.build"
        )
    return net.config


def encode(net: IQN) -> tuple[bytes, Manifest]:
    """The bytes of ``model.safetensors``, and the manifest that belongs to them."""
    state = state_tensors(net)
    # Copies: tensors that share memory, as tied weights do, are written once for each name.
    tensors = {
        name: tensor.to("cpu", copy=True, memory_format=torch.contiguous_format)
        for name, tensor in state.items()
    }
    weights = encode_tensors(tensors, metadata={"format": "pt"})
    dtype = net.dtype
    return weights, Manifest(
        config=config_of(net),
        weights_sha256=sha256(weights),
        dtype=dtype,
        other_dtypes={name: t.dtype for name, t in tensors.items() if t.dtype != dtype},
        channels_last=[name for name, tensor in state.items() if is_channels_last(tensor)],
        training=net.training,
        backbones=recipes(net.encoder),
    )


def state_tensors(net: IQN) -> dict[str, Tensor]:
    """The network's state dict, under the names that it has uncompiled.

    Raises:
        TypeError: an entry is no tensor, or has a dtype that a checkpoint cannot hold.
    """
    state: Mapping[str, Any] = net.state_dict()
    for name, value in state.items():
        if not isinstance(value, Tensor):
            raise TypeError(f"{name}: only tensors can be saved, found {type(value).__name__}")
        if value.dtype not in DTYPES.values():
            raise TypeError(
                f"{name}: dtype {value.dtype} cannot be saved; can be: {', '.join(DTYPES)}"
            )
    return {name.replace(_COMPILED, ""): tensor for name, tensor in state.items()}


def is_channels_last(tensor: Tensor) -> bool:
    """Whether a tensor has the strides of that layout, which of one channel are strides alone."""
    if tensor.ndim != 4:
        return False
    plain, last = (
        torch.empty(tensor.shape, device="meta", memory_format=layout).stride()
        for layout in (torch.contiguous_format, torch.channels_last)
    )
    return plain != tensor.stride() == last


def _remove_leftovers(folder: Path) -> None:
    """Remove what earlier saves left when cut short, but not the weights `config.json` names."""
    config = folder / CONFIG_FILE
    committed = config.read_bytes() if config.is_file() else b""
    for path in folder.iterdir():
        match = _LEFTOVER.fullmatch(path.name)
        if match and not (match[1] and match[1].encode() in committed):
            path.unlink()


def _write(path: Path, content: bytes) -> None:
    """Put ``content`` at ``path`` in one step, on the disk when this returns."""
    temporary = path.with_name(f".iqn-blocks-{secrets.token_hex(8)}.tmp")
    try:
        with open(temporary, "xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    """Bring renames in ``folder`` to the disk."""
    if os.name != "posix":  # elsewhere a folder cannot be opened, and renames are journaled
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
