"""Matrix products with weights that are trained, by the faster of the CPU's two libraries."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# From so many multiply-adds on oneDNN's float32 product is faster than MKL's, which PyTorch takes.
FEWEST_PRODUCTS = 2**25


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """``x Wᵀ + b``: ``(…, in) -> (…, out)``, in values and gradients ``F.linear``."""
    if torch.compiler.is_compiling() or not _is_for_onednn(x, weight):
        return F.linear(x, weight, bias)
    apply: Callable[..., Tensor] = _Linear.apply
    return apply(x, weight, bias)


class Linear(nn.Linear):
    """An ``nn.Linear`` that computes by :func:`linear`."""

    def forward(self, x: Tensor) -> Tensor:
        return linear(x, self.weight, self.bias)


def _is_for_onednn(x: Tensor, weight: Tensor) -> bool:
    return (
        torch._C._get_tracing_state() is None
        and x.numel() * weight.shape[0] >= FEWEST_PRODUCTS
        and x.dtype == weight.dtype == torch.float32
        and x.device.type == weight.device.type == "cpu"
        and hasattr(torch.ops.mkldnn, "_linear_pointwise")
        and not torch.is_autocast_enabled("cpu")
        # Whoever looks on expects PyTorch's usual operations.
        and type(x) is Tensor
        and type(weight) in (Tensor, nn.Parameter)
        and not torch._C._are_functorch_transforms_active()
        and not torch._C._functorch.is_legacy_batchedtensor(x)
        and not torch._C._len_torch_dispatch_stack()
    )


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        product: Callable[..., Tensor] = torch.ops.mkldnn._linear_pointwise
        # Of a bias it takes the address alone.
        return product(x, weight, None if bias is None else bias.contiguous(), "none", [], "")

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        ctx.save_for_backward(*inputs[:2])
        ctx.save_for_forward(*inputs[:2])

    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor | None) -> Tensor:
        x, weight = ctx.saved_tensors
        of_x, of_weight, of_bias = tangents
        tangent = x.new_zeros(()) if of_bias is None else of_bias
        if of_x is not None:
            tangent = tangent + F.linear(of_x, weight)
        return tangent if of_weight is None else tangent + F.linear(x, of_weight)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        wants_x, wants_weight, wants_bias = ctx.needs_input_grad
        rows = grad.reshape(-1, grad.shape[-1])
        return (
            linear(grad, weight.t()) if wants_x else None,
            rows.t() @ x.reshape(-1, x.shape[-1]) if wants_weight else None,
            rows.sum(0) if wants_bias else None,
        )
