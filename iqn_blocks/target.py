"""Updating a target network in place, buffers included."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from iqn_blocks._arguments import checked_number

# Buffers are recognised by the last part of their name. Spectral norm's vectors (this library's and
# PyTorch's) are a singular pair of one matrix: the average of two pairs is no singular pair.
_SPECTRAL_VECTORS = frozenset({"u", "v", "_u", "_v"})
_NOISE = frozenset({"epsilon_in", "epsilon_out"})
_FAULTS_SHOWN = 10


@torch.no_grad()
def polyak_update_(
    target: nn.Module, online: nn.Module, weight: float, *, noise: bool = False
) -> None:
    """Move ``target`` towards ``online`` in place: ``θ ← θ + weight · (θ_online − θ)``.

    Floating parameters and buffers are averaged; spectral norm's vectors and tensors that are not
    floating are copied. The target keeps its noise, unless ``noise=True`` copies that too.
    Both networks may be compiled ones. Averages are computed on the target's device and in its
    dtype; in half precision a small ``weight`` is lost to rounding.

    Raises:
        ValueError: ``weight`` outside [0, 1], or networks whose parameters and buffers do not have
            the same names and shapes; the message lists the differences.
    """
    weight = checked_number("weight", weight, "0 <= weight <= 1", low=0, high=1)
    averaged, copied = _averaged_and_copied(target, noise)
    source = _checked_source(averaged | copied, online, noise)
    if averaged:
        ends = [source[name].to(tensor) for name, tensor in averaged.items()]
        torch._foreach_lerp_(list(averaged.values()), ends, weight)
    _copy_(copied, source)


@torch.no_grad()
def hard_update_(target: nn.Module, online: nn.Module, *, noise: bool = False) -> None:
    """Copy every parameter and buffer of ``online`` into ``target``, in place.

    The target keeps the noise of its noisy layers unless ``noise=True``. Devices and dtypes may
    differ.

    Raises:
        ValueError: networks whose parameters and buffers do not have the same names and shapes; the
            message lists the differences.
    """
    averaged, copied = _averaged_and_copied(target, noise)
    tensors = averaged | copied
    _copy_(tensors, _checked_source(tensors, online, noise))


def _copy_(tensors: dict[str, Tensor], source: dict[str, Tensor]) -> None:
    if tensors:
        torch._foreach_copy_(list(tensors.values()), [source[name] for name in tensors])


def _averaged_and_copied(
    network: nn.Module, noise: bool
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The tensors to average and those to copy, by name."""
    averaged: dict[str, Tensor] = {}
    copied: dict[str, Tensor] = {}
    for name, parameter in network.named_parameters():
        (averaged if parameter.is_floating_point() else copied)[_plain(name)] = parameter
    for name, buffer in network.named_buffers():
        kind = name.rpartition(".")[2]
        if kind in _NOISE and not noise:
            continue
        exact = kind in _SPECTRAL_VECTORS | _NOISE or not buffer.is_floating_point()
        (copied if exact else averaged)[_plain(name)] = buffer
    return averaged, copied


def _checked_source(
    tensors: dict[str, Tensor], online: nn.Module, noise: bool
) -> dict[str, Tensor]:
    """The tensors of ``online`` by name, if they match those of the target."""
    averaged, copied = _averaged_and_copied(online, noise)
    source = averaged | copied
    faults = [f"{name}: only in target" for name in tensors if name not in source]
    faults += [f"{name}: only in online" for name in source if name not in tensors]
    faults += [
        f"{name}: {tuple(tensor.shape)} in target, {tuple(source[name].shape)} in online"
        for name, tensor in tensors.items()
        if name in source and source[name].shape != tensor.shape
    ]
    if faults:
        if len(faults) > _FAULTS_SHOWN:
            faults[_FAULTS_SHOWN:] = [f"and {len(faults) - _FAULTS_SHOWN} more"]
        raise ValueError(
            "target and online differ; build both from one config, or deep-copy one:\n  "
            + "\n  ".join(faults)
        )
    return source


def _plain(name: str) -> str:
    """A name without the prefix that ``torch.compile`` adds to a module."""
    return name.replace("_orig_mod.", "")
