"""Writing a network into a folder, so that it holds the old network or the new at every moment."""

from __future__ import annotations

import os
import re
import secrets
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from iqn_blocks.checkpoint.format import CONFIG_FILE, DTYPES, WEIGHTS_FILE, Manifest, checked_folder
from iqn_blocks.config import Config
from iqn_blocks.hf.models import recipes
from iqn_blocks.network import IQN

_LEFTOVER = re.compile(r"\.iqn-blocks-[0-9a-f]+\.tmp|model-[0-9a-f]{64}\.safetensors")
_STALE = 24 * 3600  # seconds: no save is still writing what it has not touched for so long
_COMPILED = "_orig_mod."  # what torch.compile puts before the names inside a compiled module


def save_pretrained(net: IQN, folder: str | os.PathLike[str]) -> None:
    """Write ``model.safetensors`` and ``config.json`` into ``folder``, made if it does not exist.

    At every moment, also if the process dies, the disk fills or others save into the same folder,
    it loads as one of the networks that were saved there. A compiled network is saved as the one
    it was compiled from. Noise is saved as it is: a noisy network comes back with it. In a
    :mod:`torch.distributed` job rank 0 writes, the others return at once; a network sharded by
    ``fully_shard`` is saved whole, for which every rank must call this.

    Raises:
        CheckpointError: ``folder`` is a file, or empty.
        TypeError: ``net`` is not a network of this library, or holds state that is no tensor.
        OSError: the folder cannot be written; the message names the file.
    """
    net = plain_network(net)
    folder = checked_folder(folder)
    state = state_tensors(net)
    if not is_writer():
        return
    weights, settings = encode(net, state)
    folder.mkdir(parents=True, exist_ok=True)
    _write(folder / WEIGHTS_FILE, weights)
    _write(folder / CONFIG_FILE, settings)
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


def encode(net: IQN, state: Mapping[str, Tensor]) -> tuple[bytes, bytes]:
    """The bytes of ``model.safetensors`` and of ``config.json``, of a network and its state."""
    # Copies: tensors that share memory, as tied weights do, are written once for each name.
    tensors = {
        name: tensor.to("cpu", copy=True, memory_format=torch.contiguous_format)
        for name, tensor in state.items()
    }
    dtype = net.dtype
    manifest = Manifest(
        config=config_of(net),
        dtype=dtype,
        other_dtypes={name: t.dtype for name, t in tensors.items() if t.dtype != dtype},
        channels_last=[name for name, tensor in state.items() if is_channels_last(tensor)],
        training=net.training,
        backbones=recipes(net.encoder),
    )
    return manifest.encode(tensors)


def state_tensors(net: IQN, *, whole: bool = True) -> dict[str, Tensor]:
    """The network's state dict, under the names that it has uncompiled.

    ``whole`` gathers a network that is sharded: all ranks must ask, rank 0 gets whole tensors, the
    others none. Without it every rank gets the network's own tensors, sharded as they are.

    Raises:
        TypeError: an entry is no tensor, or has a dtype that a checkpoint cannot hold.
    """
    state: Mapping[str, Any] = net.state_dict()
    if whole and any(hasattr(value, "full_tensor") for value in state.values()):
        from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict

        options = StateDictOptions(full_state_dict=True, cpu_offload=True)
        state = get_model_state_dict(net, options=options)
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
    """Remove what saves left when cut short, unless it may be of one that still goes on."""
    for path in filter(lambda path: _LEFTOVER.fullmatch(path.name), folder.iterdir()):
        with suppress(FileNotFoundError):  # another save may have removed it
            if time.time() - path.stat().st_mtime > _STALE:
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
