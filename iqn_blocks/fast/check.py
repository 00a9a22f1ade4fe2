"""The check that a copy for acting gives the values of its network."""

from __future__ import annotations

import copy

import torch
from torch import Tensor

from iqn_blocks.blocks import SpectralNormConv2d
from iqn_blocks.fast.folded import InferenceIQN, fold
from iqn_blocks.functional import midpoints, wide_dtype
from iqn_blocks.inputs import check_has_values
from iqn_blocks.network import IQN
from iqn_blocks.recurrent import RecurrentIQN

TOLERANCE = 1e-4  # of the largest value
ROUNDED_TOLERANCE = 1e-2  # if PyTorch is set to round the operands of matrix products


def check_foldable(net: object) -> None:
    """Refuse a network whose folded copy would give other values.

    Raises:
        TypeError: ``net`` is not an IQN, but a subclass, one with memory among them, a wrapper or a
            copy.
        ValueError: it has no values, or the copy's differ.
    """
    if isinstance(net, InferenceIQN):
        raise TypeError(
            "net: found a copy made by optimize_for_inference; use it as it is, or pass the "
            "network that it was made from"
        )
    if isinstance(net, RecurrentIQN):
        raise TypeError(
            f"net: found a {type(net).__name__}, accepted is an iqn_blocks.IQN without memory "
            f"(nn.core: null), since copies and exported graphs carry none from call to call; act "
            f"with the network itself, under torch.no_grad()"
        )
    if type(net) is not IQN:
        raise TypeError(
            f"net: found {type(net).__module__}.{type(net).__qualname__}, accepted is an "
            f"iqn_blocks.IQN itself, since a copy loses the methods of another class; give IQN the "
            f"change as a part (encoder, mixer, head), or pass the network inside a wrapper"
        )
    check_has_values(net.device)
    exact = torch.get_float32_matmul_precision() == "highest"
    accepted = TOLERANCE if exact else ROUNDED_TOLERANCE
    error = _error(net)
    if not error <= accepted:
        raise ValueError(
            f"net: found other values in the folded copy, by {error:.2g} of the largest; accepted "
            f"is {accepted:g}. Hooks and changed methods of a part that is folded (Head, "
            f"NoisyLinear, SpectralNormConv2d, IQN) are lost in a copy; random parts and weights "
            f"that are not finite differ too. Put the change into a class of your own, which is "
            f"kept as it is, or act with the network itself"
        )


def relative_error(actual: Tensor, expected: Tensor) -> float:
    """``max|actual − expected| / max|expected|``, without values of actions that do not exist."""
    lowest = torch.finfo(expected.dtype).min
    actual, expected = (x.masked_fill(x == lowest, 0) for x in (actual, expected))
    scale = expected.abs().max().clamp(min=torch.finfo(expected.dtype).tiny)
    return ((actual - expected).abs().max() / scale).item()


@torch.no_grad()
def _error(net: IQN) -> float:
    """The copy's relative error; NaN if a value is not a number."""
    net = copy.deepcopy(net).eval().to(wide_dtype(net.dtype))
    for layer in net.modules():
        if type(layer) is SpectralNormConv2d:
            layer.iterate_in_eval = False  # a copy keeps the vectors that the network has now
    folded, inputs = fold(net), net.example_inputs(2)
    tau = midpoints(3, device=net.device, dtype=net.dtype)
    with torch.autocast(net.device.type, enabled=False):
        mean = relative_error(folded.q_values(*inputs), net.q_values(*inputs))
        each = relative_error(folded(*inputs, 3, tau)[0], net(*inputs, 3, tau)[0])
    return mean if mean > each or mean != mean else each
