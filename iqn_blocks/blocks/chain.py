"""Layers in a row as one differentiable function, for training on a CPU.

Autograd never overwrites a gradient, since others may look at it, so that the backward of every
activation fills fresh memory, which takes a CPU longer than the arithmetic. Between the layers of
one function the gradients are its own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import forward_ad

from iqn_blocks.blocks.activation import activate_

# From so many multiply-adds on oneDNN's float32 product is faster than MKL's, which PyTorch takes.
FEWEST_PRODUCTS = 2**25
# From so many numbers on a first feature map is worth a function of its own.
FEWEST_FEATURES = 2**20


class Link(NamedTuple):
    """``activation(x Wᵀ + b)``, or of a convolution without padding if there is a ``stride``.

    ``negative_slope`` is the activation's; ``None`` stands for none.
    """

    weight: Tensor
    bias: Tensor | None
    negative_slope: float | None = None
    stride: Sequence[int] | None = None

    def is_large(self, x: Tensor) -> bool:
        """Whether ``x`` fits, and what is gained is more than what a call costs."""
        products = x.numel() * self.weight.shape[0]
        if self.stride is None:
            fits = x.ndim > 0 and x.shape[-1] == self.weight.shape[1]
            return fits and products >= FEWEST_PRODUCTS
        return products >= FEWEST_FEATURES * self.weight.shape[1] * self.stride[0] * self.stride[1]

    def product(self, x: Tensor) -> Tensor:
        """What the activation is of, for callers that differentiate by themselves."""
        if self.stride is not None:
            return F.conv2d(x, self.weight, self.bias, self.stride)
        if not _is_free(x, [self]):
            return F.linear(x, self.weight, self.bias)
        onednn: Callable[..., Tensor] = torch.ops.mkldnn._linear_pointwise
        # Of a bias it takes the address alone.
        bias = None if self.bias is None else self.bias.contiguous()
        return onednn(x, self.weight, bias, "none", [], "")

    def gradients(self, grad: Tensor, x: Tensor, wanted: Sequence[bool]) -> list[Tensor | None]:
        """Those of the input, the weight and the bias, from that of the product."""
        if self.stride is not None:
            backward: Callable[..., list[Tensor | None]] = torch.ops.aten.convolution_backward
            sizes, geometry = [self.weight.shape[0]], (self.stride, [0, 0], [1, 1])
            return backward(
                grad, x, self.weight, sizes, *geometry, False, [0, 0], 1, [bool(w) for w in wanted]
            )
        rows = grad.reshape(-1, grad.shape[-1])
        return [
            Link(self.weight.t(), None).product(grad) if wanted[0] else None,
            rows.t() @ x.reshape(-1, x.shape[-1]) if wanted[1] else None,
            rows.sum(0) if wanted[2] else None,
        ]


def chain(x: Tensor, links: Sequence[Link]) -> Tensor:
    """One link after the other: the values and gradients of PyTorch's layers."""
    if not _is_free(x, links):
        return _each(x, links)
    apply: Callable[..., Tensor] = _Chain.apply
    # Tensors go in by themselves, so that autograd sees them.
    return apply(x, [link[2:] for link in links], *(t for link in links for t in link[:2]))


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """``x Wᵀ + b``: ``(…, in) -> (…, out)``, in values and gradients ``F.linear``."""
    return chain(x, [Link(weight, bias)])


class Linear(nn.Linear):
    """An ``nn.Linear`` that computes by :func:`linear`."""

    def forward(self, x: Tensor) -> Tensor:
        return linear(x, self.weight, self.bias)


def is_untouched(layer: nn.Module, *kinds: type[nn.Module]) -> bool:
    """Whether a layer is of these very kinds and without hooks, so that parameters tell all."""
    return type(layer) in kinds and not (
        layer._forward_hooks
        or layer._forward_pre_hooks
        or layer._backward_hooks
        or layer._backward_pre_hooks
        or nn.modules.module._has_any_global_hook()  # type: ignore[no-untyped-call]
    )


def _each(x: Tensor, links: Sequence[Link]) -> Tensor:
    for weight, bias, slope, stride in links:
        x = F.linear(x, weight, bias) if stride is None else F.conv2d(x, weight, bias, stride)
        if slope is not None:
            x = activate_(x, slope)
    return x


def values(x: Tensor, links: Sequence[Link]) -> list[Tensor]:
    """What each link gives, for callers that differentiate by themselves."""
    found = []
    for link in links:
        x = link.product(x)
        if link.negative_slope is not None:
            x = activate_(x, link.negative_slope)
        found.append(x)
    return found


def gradients(
    grad: Tensor, kept: Sequence[Tensor], links: Sequence[Link], wanted: Sequence[bool]
) -> list[Tensor | None]:
    """Those of the input and of every weight and bias, where ``wanted``, from that of the output.

    ``kept`` are the input and what each link gave; ``grad`` is not written to.
    """
    found: list[Tensor | None] = []
    for i, link in reversed(list(enumerate(links))):
        if link.negative_slope is not None:
            is_own = i < len(links) - 1
            grad = _before_activation(grad, kept[i + 1], link.negative_slope, in_place=is_own)
        goes_on = any(wanted[: 1 + 2 * i])
        of_x, *of_tensors = link.gradients(grad, kept[i], [goes_on, *wanted[1 + 2 * i : 3 + 2 * i]])
        found = [*of_tensors, *found]
        if of_x is None:
            return [None] * (1 + 2 * i) + found
        grad = of_x
    return [grad, *found]


def links_of(kinds: Sequence[tuple[Any, ...]], tensors: Sequence[Any]) -> list[Link]:
    """Links from what ``link[2:]`` and, in one row, ``link[:2]`` are."""
    pairs = zip(tensors[::2], tensors[1::2], strict=True)
    return [Link(*pair, *kind) for pair, kind in zip(pairs, kinds, strict=True)]


def _is_free(x: Tensor, links: Sequence[Link]) -> bool:
    """Whether to compute in another way than by PyTorch's layers pays, and none can tell."""
    return (
        not torch.compiler.is_compiling()
        and torch._C._get_tracing_state() is None
        and links[0].is_large(x)
        and type(x) is Tensor
        and all(
            tensor.is_cpu
            and tensor.dtype == torch.float32
            and type(tensor) in (Tensor, nn.Parameter)
            for link in links
            for tensor in (x, *link[:2])
            if tensor is not None
        )
        and hasattr(torch.ops.mkldnn, "_linear_pointwise")
        and not torch.is_autocast_enabled("cpu")
        # Whoever looks on or transforms expects PyTorch's own operations.
        and forward_ad._current_level < 0
        and not torch._C._are_functorch_transforms_active()
        and not torch._C._functorch.is_legacy_batchedtensor(x)
        and not torch._C._len_torch_dispatch_stack()
    )


class _Chain(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, kinds: Sequence[tuple[Any, ...]], *tensors: Tensor | None
    ) -> Tensor:
        links = links_of(kinds, tensors)
        found = values(x, links)
        kept = found if links[-1].negative_slope is not None else found[:-1]
        ctx.kinds = kinds
        ctx.save_for_backward(*tensors, x, *kept)
        return found[-1]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
        saved, count = ctx.saved_tensors, 2 * len(ctx.kinds)
        links, kept = links_of(ctx.kinds, saved[:count]), saved[count:]
        wanted = [ctx.needs_input_grad[0], *ctx.needs_input_grad[2:]]
        if torch.is_grad_enabled() or torch._C._functorch.is_legacy_batchedtensor(grad):
            of_x, *of_tensors = _gradients_by_autograd(grad, kept[0], links, wanted)
        else:
            of_x, *of_tensors = gradients(grad, kept, links, wanted)
        return of_x, None, *of_tensors


def _gradients_by_autograd(
    grad: Tensor, x: Tensor, links: Sequence[Link], wanted: Sequence[bool]
) -> list[Tensor | None]:
    """The same by PyTorch's layers: for gradients of gradients, and for many at a time."""
    with torch.enable_grad():
        y = _each(x, links)
    inputs = [x, *(tensor for link in links for tensor in link[:2])]
    leaves = [
        tensor for tensor, want in zip(inputs, wanted, strict=True) if want and tensor is not None
    ]
    found = iter(torch.autograd.grad(y, leaves, grad, create_graph=torch.is_grad_enabled()))
    return [next(found) if want else None for want in wanted]


def _before_activation(grad: Tensor, out: Tensor, slope: float, *, in_place: bool) -> Tensor:
    """The gradient of a leaky ReLU's input, from that of what it gave."""
    if slope:
        into: Any = torch.ops.aten.leaky_relu_backward
        arguments: tuple[Any, ...] = (grad, out, slope, True)
    else:
        into, arguments = torch.ops.aten.threshold_backward, (grad, out, 0)
    in_place = in_place and may_overwrite(grad)
    found: Tensor = into.grad_input(*arguments, grad_input=grad) if in_place else into(*arguments)
    return found


def may_overwrite(*grads: Tensor) -> bool:
    """Whether one's own gradients may hold the next: not where operations are transformed."""
    return not (
        torch.compiler.is_compiling()
        or torch._C._are_functorch_transforms_active()
        or any(map(torch._C._functorch.is_legacy_batchedtensor, grads))
    )
