"""The quantile path's widest tensors, computed again in backward instead of being kept."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.checkpoint import checkpoint

Result = TypeVar("Result")


def recomputing(
    mix: Callable[[Tensor, Tensor], Tensor],
    read: Callable[[Tensor], Result],
    state: Tensor,
    tau: Tensor,
) -> Result:
    """``read(mix(state, tau))``, keeping neither the mixed vector ``x`` nor what it is made of.

    Backward runs ``mix`` once more. What ``read`` saves of ``x``, such as the input of a head's
    first layer, is taken from there. Modules inside ``read`` run as usual, whatever they are.
    """

    def remembered(state: Tensor, tau: Tensor) -> Tensor:
        return _remember(mix(state, tau))

    if torch.compiler.is_compiling():  # the compiler recomputes what leaves a checkpoint, too
        return read(checkpoint(mix, state, tau, use_reentrant=False))
    x: Tensor = checkpoint(remembered, state, tau, use_reentrant=False)
    if not x.requires_grad:
        return read(x)
    again = _Again(x)
    with saved_tensors_hooks(again.pack, again.unpack):
        return read(x)


class _Remember(torch.autograd.Function):
    """The identity, which saves its input: inside a checkpoint that costs nothing."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return grad


_remember: Callable[[Tensor], Tensor] = _Remember.apply


class _Again:
    """Stands for ``x`` where it was saved. The checkpoint gives it back once for a backward."""

    def __init__(self, x: Tensor) -> None:
        self.node: Any = x.grad_fn
        self.memory = x.untyped_storage().data_ptr()
        self.saved = self.asked = 0
        self.x: Tensor | None = None

    def pack(self, tensor: Tensor) -> Any:
        if tensor.untyped_storage().data_ptr() != self.memory:
            return tensor
        self.saved += 1
        return tensor.shape, tensor.stride(), tensor.storage_offset()

    def unpack(self, packed: Any) -> Tensor:
        if isinstance(packed, Tensor):
            return packed
        if self.x is None:
            (self.x,) = self.node.saved_tensors
        x = self.x.as_strided(*packed)
        self.asked += 1
        if self.asked % self.saved == 0:  # all have it, and the next backward makes it anew
            self.x = None
        return x
