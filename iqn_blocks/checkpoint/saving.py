"""Writing a network into a folder, which holds the old network or the new at every moment."""

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
from iqn_blocks.inputs import check_has_values

_LEFTOVER = re.compile(r"\.iqn-blocks-[0-9a-f]+\.tmp|model-[0-9a-f]{64}\.safetensors")
_STALE = 24 * 3600  # seconds after which no save is still writing a file
_COMPILED = "_orig_mod."  # torch.compile puts it before the names inside a compiled module


def save(
    net: nn.Module, folder: str | os.PathLike[str], *, config: Config, dtype: torch.dtype
) -> None:
    """Write ``model.safetensors`` and ``config.json`` into ``folder``.

    ``dtype`` is that of the network's parameters. :meth:`iqn_blocks.IQN.save_pretrained` says how a
    folder changes, and which errors there are.
    """
    folder = checked_folder(folder)
    check_has_values(next(net.parameters()).device)
    state = state_tensors(net)
    if not is_writer():
        return
    weights, settings = _encode(net, state, config, dtype)
    folder.mkdir(parents=True, exist_ok=True)
    _write(folder / WEIGHTS_FILE, weights)
    _write(folder / CONFIG_FILE, settings)
    _remove_leftovers(folder)


def is_writer() -> bool:
    """Whether this process writes: rank 0, or any process outside torch.distributed."""
    distributed = torch.distributed
    is_job = distributed.is_available() and distributed.is_initialized()
    return not is_job or distributed.get_rank() == 0


def _encode(
    net: nn.Module, state: Mapping[str, Tensor], config: Config, dtype: torch.dtype
) -> tuple[bytes, bytes]:
    """The bytes of ``model.safetensors`` and of ``config.json``."""
    # Copies, since tied weights share memory, which the format cannot hold.
    tensors = {
        name: tensor.to("cpu", copy=True, memory_format=torch.contiguous_format)
        for name, tensor in state.items()
    }
    manifest = Manifest(
        config=config,
        dtype=dtype,
        other_dtypes={name: t.dtype for name, t in tensors.items() if t.dtype != dtype},
        channels_last=[name for name, tensor in state.items() if is_channels_last(tensor)],
        training=net.training,
        backbones=recipes(net.get_submodule("encoder")),
    )
    return manifest.encode(tensors)


def state_tensors(net: nn.Module, *, whole: bool = True) -> dict[str, Tensor]:
    """The network's state dict, under the names that it has uncompiled.

    ``whole`` gathers the tensors of a sharded network: every rank must call this, rank 0 gets whole
    tensors, the others none. Without it every rank gets its own part.

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
    """Whether a tensor has the strides of the channels-last layout, and not those of both."""
    if tensor.ndim != 4:
        return False
    plain, last = (
        torch.empty(tensor.shape, device="meta", memory_format=layout).stride()
        for layout in (torch.contiguous_format, torch.channels_last)
    )
    return plain != tensor.stride() == last


def _remove_leftovers(folder: Path) -> None:
    """Remove files that interrupted saves left behind, unless a save may still be writing them."""
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
    """Write renames in ``folder`` to the disk."""
    if os.name != "posix":  # elsewhere a folder cannot be opened, and renames are journaled
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
