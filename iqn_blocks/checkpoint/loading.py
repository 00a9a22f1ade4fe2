"""A network from a folder: the file is read and checked before the network gets its weights."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from iqn_blocks.assembly import assemble, route
from iqn_blocks.blocks import FloatNormalization, ImageNormalization
from iqn_blocks.blocks.floats import fault_of
from iqn_blocks.checkpoint.backbones import checked_recipes
from iqn_blocks.checkpoint.format import DTYPE_NAMES
from iqn_blocks.checkpoint.reading import Checkpoint, read_folder
from iqn_blocks.checkpoint.saving import is_channels_last, state_tensors
from iqn_blocks.config import TOPOLOGIES
from iqn_blocks.errors import CheckpointError
from iqn_blocks.hf import Models
from iqn_blocks.network import IQN, plain_network


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

    Names, shapes and dtypes must be the network's. Its configuration, mode and frozen parameters do
    not change. If ``fully_shard`` has sharded the network, every rank reads the folder and keeps
    its own part.

    Raises:
        CheckpointError: as in :func:`~iqn_blocks.from_pretrained`; the network is then unchanged.
    """
    net = plain_network(net)
    checkpoint = read_folder(folder)
    _check(net, checkpoint)
    _copy(net, checkpoint.tensors)


def _empty_network(checkpoint: Checkpoint, trust_remote_code: bool) -> IQN:
    """A network of the right structure, dtypes and layouts, without the saved values."""
    manifest = checkpoint.manifest
    try:
        built_in = route(manifest.config) in TOPOLOGIES
        recipes = checked_recipes(
            checkpoint, built_in=built_in, trust_remote_code=trust_remote_code
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
        raise CheckpointError(
            f"{checkpoint.source}: no network can be built from it:\n{error}"
        ) from error
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
    """Whether a part computes tensors that no file holds, which needs a real device."""
    saved = net.state_dict()
    own = (name for name, _ in net.named_buffers() if name not in saved)
    owners = (net.get_submodule(name.rpartition(".")[0]) for name in own)
    return any(not isinstance(owner, ImageNormalization) for owner in owners)


def _check(net: IQN, checkpoint: Checkpoint) -> None:
    """Raise one CheckpointError that lists every misfit between the file and the network."""
    expected, saved = state_tensors(net, whole=False), checkpoint.tensors
    ours, theirs = ({n: _kind(x) for n, x in tensors.items()} for tensors in (expected, saved))
    faults = [f"missing: {name} {kind}" for name, kind in ours.items() if name not in theirs]
    faults += [f"unexpected: {name} {kind}" for name, kind in theirs.items() if name not in ours]
    faults += [
        f"{name}: found {theirs[name]}, expected {kind}"
        for name, kind in ours.items()
        if theirs.get(name, kind) != kind
    ]
    manifest, names = checkpoint.manifest, expected.keys() | saved.keys()
    faults += [
        f"other_dtypes: {name} is {DTYPE_NAMES[dtype]}, expected the name and dtype of a tensor"
        for name, dtype in manifest.other_dtypes.items()
        if name not in names or (name in saved and saved[name].dtype != dtype)
    ]
    faults += [
        f"channels_last: {name}, expected the name of a tensor of four dimensions"
        for name in manifest.channels_last
        if name not in names or (name in saved and saved[name].ndim != 4)
    ]
    if not faults:
        faults = _unusable_statistics(net, saved)
    if faults:
        faults.insert(0, f"{checkpoint.path}: does not fit the network")
    if manifest.edited:
        faults.append(
            f"{checkpoint.source}: was changed after it was saved; restore it, or if the change is "
            f"meant, set settings_sha256 to {manifest.edited}"
        )
    if faults:
        raise CheckpointError("\n".join(faults))


def _unusable_statistics(net: IQN, saved: Mapping[str, Tensor]) -> list[str]:
    """The faults of float statistics that :meth:`iqn_blocks.IQN.set_float_stats` refuses."""
    faults = []
    for path, layer in net.named_modules():
        if isinstance(layer, FloatNormalization):
            for stat in ("mean", "std"):
                name = f"{path}.{stat}".replace("_orig_mod.", "")
                if wrong := fault_of(stat, saved[name], saved[name]):
                    faults.append(f"{name}: {wrong}")
    return faults


def _kind(tensor: Tensor) -> str:
    return f"{DTYPE_NAMES.get(tensor.dtype, tensor.dtype)} {tuple(tensor.shape)}"


@torch.no_grad()
def _copy(net: IQN, tensors: Mapping[str, Tensor]) -> None:
    for name, tensor in state_tensors(net, whole=False).items():
        tensor.copy_(_sharded_like(tensor, tensors[name]))


def _sharded_like(tensor: Any, whole: Tensor) -> Tensor:
    """``whole``, or this rank's part of it if ``tensor`` is sharded; no rank waits for others."""
    if not hasattr(tensor, "device_mesh"):
        return whole
    from torch.distributed.tensor import distribute_tensor

    on_device = whole.to(tensor.device)
    return distribute_tensor(on_device, tensor.device_mesh, tensor.placements, src_data_rank=None)
