"""The limit: the matrix products and convolutions of a network and nothing else.

Shapes are those of a forward of the literal network. Products are timed in several layouts, on a
CPU by either of PyTorch's libraries, and the fastest counts: one product for all layers that read
the same tensor or one for each, weights as ``(out, in)`` or ``(in, out)``, convolutions in NCHW or
channels-last. In acting the weights are fixed: on a CPU they may also be in oneDNN's own layout;
``φ`` of a fixed τ is left out, and the readouts are of the mean row alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.literal import LiteralIQN, NoisyLinear
from benchmarks.timing import Call, Clock, fastest


class Product(Protocol):
    """One product of a network: equivalent calls on tensors of the device and dtype of ``like``."""

    def forward(self, like: Tensor) -> list[Call]:
        """Ways to do the forward."""
        ...

    def packed(self, like: Tensor) -> list[Call]:
        """More ways, with a fixed weight on a CPU."""
        ...

    def backward(self, like: Tensor) -> list[list[Call]]:
        """Ways to do each step of the backward."""
        ...


class Linears(NamedTuple):
    """``x Wᵀ`` of the layers that read one ``x (rows, in_dim)``."""

    rows: int
    in_dim: int
    out_dims: tuple[int, ...]
    input_grad: bool

    def forward(self, like: Tensor) -> list[Call]:
        x = like.new_ones(self.rows, self.in_dim)
        parts = [like.new_ones(out, self.in_dim) for out in self.out_dims]
        joint = torch.cat(parts)
        turned = joint.T.contiguous()
        calls: list[Call] = [
            lambda: [x @ w.T for w in parts],
            lambda: x @ joint.T,
            lambda: x @ turned,
        ]
        return [*calls, lambda: _onednn(x, joint)] if _can_pack(x) else calls

    def packed(self, like: Tensor) -> list[Call]:
        x = like.new_ones(self.rows, self.in_dim)
        weight = torch.cat([like.new_ones(out, self.in_dim) for out in self.out_dims])
        if not _can_pack(x):
            return []
        packed = torch.ops.mkldnn._reorder_linear_weight(weight)
        return [lambda: _onednn(x, packed)]

    def backward(self, like: Tensor) -> list[list[Call]]:
        x = like.new_ones(self.rows, self.in_dim)
        parts = [like.new_ones(out, self.in_dim) for out in self.out_dims]
        grads = [like.new_ones(self.rows, out) for out in self.out_dims]
        joint, grad = torch.cat(parts), torch.cat(grads, dim=1)
        turned = joint.T.contiguous()

        def grad_x_by_parts() -> Tensor:
            out = grads[0] @ parts[0]
            for g, w in zip(grads[1:], parts[1:], strict=True):
                out = out.addmm_(g, w)
            return out

        of_weights: list[Call] = [
            lambda: [g.T @ x for g in grads],
            lambda: grad.T @ x,
            lambda: x.T @ grad,
        ]
        of_x: list[Call] = [grad_x_by_parts, lambda: grad @ joint, lambda: grad @ turned.T]
        if _can_pack(x):
            of_x.append(lambda: _onednn(grad, joint.T))
        return [of_weights, of_x] if self.input_grad else [of_weights]


class Convolution(NamedTuple):
    """A convolution of ``x`` of shape ``size`` with a weight of shape ``kernel``."""

    size: tuple[int, ...]
    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    input_grad: bool

    def forward(self, like: Tensor) -> list[Call]:
        calls: list[Call] = []
        for layout in (torch.contiguous_format, torch.channels_last):
            x, w = self._operands(like, layout)
            calls.append(lambda x=x, w=w: self._convolve(x, w))  # type: ignore[misc]
        return calls

    def packed(self, like: Tensor) -> list[Call]:
        x, w = self._operands(like, torch.channels_last)
        if not _can_pack(x):
            return []
        geometry = self.padding, self.stride, (1, 1)
        packed = torch.ops.mkldnn._reorder_convolution_weight(w, *geometry, 1, self.size)
        return [
            lambda: torch.ops.mkldnn._convolution_pointwise(
                x, packed, None, *geometry, 1, "none", [], ""
            )
        ]

    def backward(self, like: Tensor) -> list[list[Call]]:
        calls: list[Call] = []
        for layout in (torch.contiguous_format, torch.channels_last):
            x, w = self._operands(like, layout)
            grad = torch.ones_like(self._convolve(x, w))
            calls.append(lambda g=grad, x=x, w=w: self._gradients(g, x, w))  # type: ignore[misc]
        return [calls]

    def _operands(self, like: Tensor, layout: torch.memory_format) -> tuple[Tensor, Tensor]:
        x, w = like.new_ones(self.size), like.new_ones(self.kernel)
        return x.contiguous(memory_format=layout), w.contiguous(memory_format=layout)

    def _convolve(self, x: Tensor, w: Tensor) -> Tensor:
        return F.conv2d(x, w, None, self.stride, self.padding)

    def _gradients(self, grad: Tensor, x: Tensor, w: Tensor) -> Any:
        mask = [self.input_grad, True, False]
        return torch.ops.aten.convolution_backward(
            grad, x, w, None, self.stride, self.padding, [1, 1], False, [0, 0], 1, mask
        )


class Attention(NamedTuple):
    """Scaled dot-product attention of queries, keys and values of shape ``size``."""

    size: tuple[int, int, int, int]

    def forward(self, like: Tensor) -> list[Call]:
        q, k, v = (like.new_ones(self.size) for _ in range(3))
        return [lambda: F.scaled_dot_product_attention(q, k, v)]

    def packed(self, like: Tensor) -> list[Call]:
        return []

    def backward(self, like: Tensor) -> list[list[Call]]:
        q, k, v = (like.new_ones(self.size).requires_grad_() for _ in range(3))
        with torch.enable_grad():
            out = F.scaled_dot_product_attention(q, k, v)
        grad = torch.ones_like(out)
        return [[lambda: torch.autograd.grad(out, (q, k, v), grad, retain_graph=True)]]


def products(
    literal: LiteralIQN, img: Tensor | None, floats: Tensor, tau: Tensor, *, acting: bool
) -> list[Product]:
    """The products of one call, found by watching a forward of the literal network."""
    seen: list[tuple[nn.Module, Tensor]] = []

    def watch(module: nn.Module, args: tuple[Tensor, ...]) -> None:
        seen.append((module, args[0]))

    handles = [
        module.register_forward_pre_hook(watch)
        for name, module in literal.named_modules()
        if isinstance(module, nn.Linear | NoisyLinear | nn.Conv2d | nn.TransformerEncoderLayer)
        and not _inside_a_layer(name)
    ]
    try:
        literal(img, floats, tau)
    finally:
        for handle in handles:
            handle.remove()

    found: list[Product] = []
    by_input: dict[int, list[tuple[nn.Module, Tensor]]] = {}
    for module, x in seen:
        by_input.setdefault(id(x), []).append((module, x))
    readouts: list[Linears] = []
    for members in by_input.values():
        module, x = members[0]
        if isinstance(module, nn.Conv2d):
            found.append(_convolution(module, x))
        elif isinstance(module, nn.TransformerEncoderLayer):
            found += _encoder_layer(module, x)
        else:
            product = _linears([member for member, _ in members], x)
            if not acting:
                found.append(product)
            elif module in (literal.advantage_head.readout, literal.value_head.readout):
                readouts.append(product)
            elif module is not literal.tau_embedding.projection:
                found.append(product)
    if acting:
        width = sum(readout.in_dim for readout in readouts)
        actions = max(readout.out_dims[0] for readout in readouts)
        found.append(Linears(len(floats), width, (actions,), False))
    return found


def limit_call(found: Sequence[Product], like: Tensor, clock: Clock, *, acting: bool) -> Call:
    """One call that does every product once, each the fastest way that was found."""
    calls = []
    with torch.no_grad():
        for product in found:
            forward = product.forward(like)
            if acting:
                steps = [forward + product.packed(like)]
            else:
                steps = [forward, *product.backward(like)]
            calls += [fastest(step, clock) for step in steps]

    @torch.no_grad()
    def run() -> None:
        for call in calls:
            call()

    return run


def _onednn(x: Tensor, weight: Tensor) -> Tensor:
    """``x Wᵀ`` by the other library that PyTorch has for CPUs."""
    out: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, None, "none", [], "")
    return out


def _can_pack(x: Tensor) -> bool:
    """Whether oneDNN has a layout of its own here, and PyTorch the operations for it."""
    return (
        x.device.type == "cpu"
        and x.dtype in (torch.float32, torch.bfloat16)
        and torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
        and hasattr(torch.ops.mkldnn, "_reorder_linear_weight")
    )


def _inside_a_layer(name: str) -> bool:
    """Whether a module is a part of an encoder layer, which is seen as a whole."""
    _, found, inside = name.partition("encoder.layers.")
    return bool(found) and "." in inside


def _convolution(module: nn.Conv2d, x: Tensor) -> Convolution:
    padding = module.padding
    assert isinstance(padding, tuple)
    return Convolution(
        tuple(x.shape), tuple(module.weight.shape), module.stride, padding, x.requires_grad
    )


def _linears(modules: Sequence[nn.Module], x: Tensor) -> Linears:
    weights = [m.weight_mu if isinstance(m, NoisyLinear) else m.weight for m in modules]
    out_dims = []
    for weight in weights:
        assert isinstance(weight, Tensor)
        out_dims.append(weight.shape[0])
    in_dim = x.shape[-1]
    return Linears(x.numel() // in_dim, in_dim, tuple(out_dims), x.requires_grad)


def _encoder_layer(layer: nn.TransformerEncoderLayer, x: Tensor) -> list[Product]:
    batch, tokens, d = x.shape
    heads, wide = layer.self_attn.num_heads, layer.linear1.out_features
    rows = batch * tokens
    return [
        Linears(rows, d, (3 * d,), x.requires_grad),
        Attention((batch, heads, tokens, d // heads)),
        Linears(rows, d, (d,), True),
        Linears(rows, d, (wide,), True),
        Linears(rows, wide, (d,), True),
    ]
