"""Max-pooling that keeps the positions of its maxima for backward instead of its input."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

_WINDOW = ([3, 3], [2, 2], [1, 1])  # kernel, stride, padding


class HalvingMaxPool(nn.Module):
    """``max_pool2d`` with k3 s2 p1: ``(B, C, H, W) -> (B, C, ⌈H/2⌉, ⌈W/2⌉)``.

    Values and gradients are those of ``nn.MaxPool2d(3, 2, 1)``, which keeps its whole input for
    backward although the positions of the maxima are enough.
    """

    def forward(self, x: Tensor) -> Tensor:
        # Compiled code keeps only the positions anyway.
        if torch.compiler.is_compiling() or not (torch.is_grad_enabled() and x.requires_grad):
            return torch.max_pool2d(x, *_WINDOW)
        apply: Callable[[Tensor], tuple[Tensor, Tensor]] = _HalvingMaxPool.apply
        return apply(x)[0]


class _HalvingMaxPool(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor) -> tuple[Tensor, Tensor]:
        pooled, positions = torch.ops.aten.max_pool2d_with_indices(x, *_WINDOW)
        return pooled, positions

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: tuple[Tensor, Tensor]) -> None:
        ctx.mark_non_differentiable(output[1])
        ctx.save_for_backward(output[1])
        ctx.save_for_forward(output[1])
        ctx.size = inputs[0].shape

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor) -> tuple[Tensor, None]:
        (positions,) = ctx.saved_tensors
        return tangent.flatten(2).gather(2, positions.flatten(2)).view(positions.shape), None

    @staticmethod
    def backward(ctx: Any, grad: Tensor, _: Tensor) -> Tensor:
        (positions,) = ctx.saved_tensors
        # The operator reads only shape and layout of its input.
        like = torch.empty(
            ctx.size, dtype=grad.dtype, device=grad.device, memory_format=torch.channels_last
        )
        grad_x: Tensor = torch.ops.aten.max_pool2d_with_indices_backward(
            grad, like, *_WINDOW, [1, 1], False, positions
        )
        return grad_x
