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

_HAS_ONEDNN = hasattr(torch.ops.mkldnn, "_linear_pointwise")


class Link(NamedTuple):
    """``activation(x Wᵀ + b)``, or of a convolution without padding if there is a ``stride``.

    ``negative_slope`` is the activation's; ``None`` stands for none.
    """

    weight: Tensor
    bias: Tensor | None
    negative_slope: float | None = None
    stride: Sequence[int] | None = None

    def pays(self, x: Tensor) -> bool:
        """Whether it is a float32 layer that fits ``x``, large enough for what a call costs."""
        weight, bias, _, stride = self
        if not all(map(_is_usual, (x, weight))) or not (bias is None or _is_usual(bias)):
            return False
        if bias is not None and bias.shape != weight.shape[:1]:
            return False
        if stride is None:
            fits = weight.ndim == 2 and x.ndim > 0 and x.shape[-1] == weight.shape[1]
            return fits and has_enough_products(x, weight.shape[0])
        features = x.numel() * weight.shape[0] // (weight.shape[1] * stride[0] * stride[1])
        return features >= FEWEST_FEATURES

    def product(self, x: Tensor) -> Tensor:
        """``x Wᵀ + b`` or the convolution, without a graph."""
        if self.stride is not None:
            return F.conv2d(x, self.weight, self.bias, self.stride)
        if not (nobody_watches(x) and self.pays(x)):
            return F.linear(x, self.weight, self.bias)
        onednn: Callable[..., Tensor] = torch.ops.mkldnn._linear_pointwise
        # Of a bias it takes the address alone.
        bias = None if self.bias is None else self.bias.contiguous()
        return onednn(x, self.weight, bias, "none", [], "")

    def gradients(self, grad: Tensor, x: Tensor, wants_x: bool) -> list[Tensor | None]:
        """Those of the input, the weight and the bias, from that of :meth:`product`."""
        if self.stride is not None:
            backward: Callable[..., list[Tensor | None]] = torch.ops.aten.convolution_backward
            sizes, geometry = [self.weight.shape[0]], (self.stride, [0, 0], [1, 1])
            wanted = [wants_x, True, self.bias is not None]
            return backward(grad, x, self.weight, sizes, *geometry, False, [0, 0], 1, wanted)
        rows = grad.reshape(-1, grad.shape[-1])
        return [
            Link(self.weight.t(), None).product(grad) if wants_x else None,
            rows.t() @ x.reshape(-1, x.shape[-1]),
            None if self.bias is None else rows.sum(0),
        ]


def has_enough_products(x: Tensor, out_features: int) -> bool:
    """Whether a matrix product is large enough for a chain to pay."""
    return x.numel() * out_features >= FEWEST_PRODUCTS


def can_chain(x: Tensor, links: Sequence[Link]) -> bool:
    """Whether :func:`chain` pays for these links, and none can tell it from PyTorch's layers."""
    if not nobody_watches(x) or not links[0].pays(x):
        return False
    tensors = [tensor for link in links for tensor in link[:2] if tensor is not None]
    # What is partly frozen keeps less for backward as single layers.
    trained = not torch.is_grad_enabled() or all(tensor.requires_grad for tensor in tensors)
    return trained and all(map(_is_usual, tensors))


def chain(x: Tensor, links: Sequence[Link]) -> Tensor:
    """One link after the other, where :func:`can_chain`: values and gradients of the layers."""
    apply: Callable[..., Tensor] = _Chain.apply
    # Tensors go in by themselves, so that autograd sees them.
    return apply(x, [link[2:] for link in links], *(t for link in links for t in link[:2]))


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """``x Wᵀ + b``: ``(…, in) -> (…, out)``, in values and gradients ``F.linear``."""
    links = [Link(weight, bias)]
    return chain(x, links) if can_chain(x, links) else F.linear(x, weight, bias)


def through(layer: nn.Module, x: Tensor) -> Tensor:
    """``layer(x)``, by :func:`linear` if the layer is nothing else."""
    if is_untouched(layer, nn.Linear) and not torch.compiler.is_compiling():
        assert isinstance(layer, nn.Linear)
        return linear(x, layer.weight, layer.bias)
    out: Tensor = layer(x)
    return out


# torch leaves both untyped
_has_any_global_hook: Callable[[], bool] = nn.modules.module._has_any_global_hook
_count_modes_before_dispatch: Callable[[], int] = torch._ops._len_torch_dispatch_stack_pre_dispatch


def is_untouched(layer: nn.Module, *kinds: type[nn.Module]) -> bool:
    """Whether a layer is of these very kinds, without hooks or patches: its parameters tell all."""
    return type(layer) in kinds and not (
        layer._forward_hooks
        or layer._forward_pre_hooks
        or layer._backward_hooks
        or layer._backward_pre_hooks
        or layer._compiled_call_impl is not None
        or "forward" in layer.__dict__
        or _has_any_global_hook()
    )


def nobody_watches(x: Tensor) -> bool:
    """Whether ``x`` is a plain tensor on a CPU, and nothing records or transforms operations.

    Who does expects PyTorch's own.
    """
    return (
        not torch.compiler.is_compiling()
        and type(x) is Tensor
        and x.is_cpu
        and not torch.is_autocast_enabled("cpu")
        and forward_ad._current_level < 0
        and not torch._C._are_functorch_transforms_active()
        and not torch._C._functorch.is_legacy_batchedtensor(x)
        and not torch._C._len_torch_dispatch_stack()
        and not _count_modes_before_dispatch()
        and torch._C._get_tracing_state() is None
    )


def _is_usual(tensor: Tensor) -> bool:
    return (
        _HAS_ONEDNN
        and tensor.is_cpu
        and tensor.dtype == torch.float32
        and tensor.layout == torch.strided
        and type(tensor) in (Tensor, nn.Parameter)
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
    grad: Tensor, kept: Sequence[Tensor], links: Sequence[Link], wants_x: bool
) -> list[Tensor | None]:
    """Those of the input, if wanted, and of every weight and bias, from that of the output.

    ``kept`` are the input and what each link gave; ``grad`` is not written to.
    """
    found: list[Tensor | None] = []
    of_x: Tensor | None = grad
    for i, link in reversed(list(enumerate(links))):
        assert of_x is not None
        if link.negative_slope is not None:
            is_own = i < len(links) - 1
            of_x = _before_activation(of_x, kept[i + 1], link.negative_slope, in_place=is_own)
        of_x, *of_tensors = link.gradients(of_x, kept[i], wants_x or i > 0)
        found = [*of_tensors, *found]
    return [of_x, *found]


def links_of(kinds: Sequence[tuple[Any, ...]], tensors: Sequence[Any]) -> list[Link]:
    """Links from what ``link[2:]`` and, in one row, ``link[:2]`` are."""
    pairs = zip(tensors[::2], tensors[1::2], strict=True)
    return [Link(*pair, *kind) for pair, kind in zip(pairs, kinds, strict=True)]


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
        wants_x = ctx.needs_input_grad[0]
        if torch.is_grad_enabled() or not may_overwrite(grad):
            of_x, *of_tensors = _gradients_by_autograd(grad, kept[0], links, wants_x)
        else:
            of_x, *of_tensors = gradients(grad, kept, links, wants_x)
        return of_x, None, *of_tensors


def _gradients_by_autograd(
    grad: Tensor, x: Tensor, links: Sequence[Link], wants_x: bool
) -> list[Tensor | None]:
    """The same by PyTorch's layers: for gradients of gradients, and where those are transformed."""
    create_graph = torch.is_grad_enabled()
    with torch.enable_grad():
        # Of aliases: one tensor may come in twice, or depend on another.
        x = x.view_as(x)
        links = [
            link._replace(
                weight=link.weight.view_as(link.weight),
                bias=None if link.bias is None else link.bias.view_as(link.bias),
            )
            for link in links
        ]
        y = _each(x, links)
    inputs = [x if wants_x else None, *(tensor for link in links for tensor in link[:2])]
    leaves = [tensor for tensor in inputs if tensor is not None]
    found = iter(torch.autograd.grad(y, leaves, grad, create_graph=create_graph))
    return [None if tensor is None else next(found) for tensor in inputs]


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
        or forward_ad._current_level >= 0
        or torch._C._are_functorch_transforms_active()
        or any(map(torch._C._functorch.is_legacy_batchedtensor, grads))
    )
