"""The quantile path's widest tensors, computed again in backward instead of being kept."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from iqn_blocks.blocks.activation import activate_
from iqn_blocks.blocks.chain import linear
from iqn_blocks.blocks.tau import TauEmbedding
from iqn_blocks.functional import cosine_features, hadamard_mix, wide_dtype

CHUNK_ELEMENTS = 2**22  # of s ⊙ φ at a time on a CPU: 16 MiB in float32


def mixed_linears(
    state: Tensor,
    tau: Tensor,
    embedding: TauEmbedding,
    layers: Sequence[tuple[Tensor, Tensor]],
    num_quantiles: int,
) -> tuple[Tensor, ...]:
    """``(s ⊙ φ(τ)) Wᵀ + b`` for each ``(W, b)``, keeping neither ``φ`` nor ``s ⊙ φ`` for backward.

    ``(B, D), (K·B, 1) or (K, 1) -> (K·B, out)`` for each layer. The same values and gradients as
    :class:`TauEmbedding`, :func:`~iqn_blocks.functional.hadamard_mix` and linear layers; kept are
    ``s``, ``τ`` and the parameters. Not differentiable twice.
    """
    projection = embedding.projection
    dtype = _compute_dtype(projection.weight)
    weights = [tensor.to(dtype) for layer in layers for tensor in layer]
    apply: Callable[..., tuple[Tensor, ...]] = _MixedLinears.apply
    return apply(
        state.to(dtype),
        tau.to(wide_dtype(projection.weight.dtype)),
        projection.weight.to(dtype),
        projection.bias.to(dtype),
        _Embedding(embedding.embedding_dimension, embedding.cosine_start, embedding.negative_slope),
        num_quantiles,
        *weights,
    )


def _compute_dtype(parameter: Tensor) -> torch.dtype:
    """The dtype of a matrix product: autocast's where it is on, else the parameters'."""
    device = parameter.device.type
    if device != "meta" and torch.is_autocast_enabled(device):
        return torch.get_autocast_dtype(device)
    return parameter.dtype


class _Embedding(NamedTuple):
    """Plain numbers of a :class:`TauEmbedding`."""

    dimension: int
    cosine_start: int
    negative_slope: float


class _MixedLinears(torch.autograd.Function):
    """Works through a few quantiles at a time, so that what is wide stays in the cache."""

    generate_vmap_rule = True

    @staticmethod
    def forward(
        state: Tensor,
        tau: Tensor,
        weight: Tensor,
        bias: Tensor,
        embedding: _Embedding,
        num_quantiles: int,
        *layers: Tensor,
    ) -> tuple[Tensor, ...]:
        parts: list[list[Tensor]] = [[] for _ in layers[::2]]
        for k, tau_k in _chunks(tau, state, num_quantiles):
            _, phi = _phi(tau_k, weight, bias, embedding)
            x = hadamard_mix(state, phi, k)
            for part, w, b in zip(parts, layers[::2], layers[1::2], strict=True):
                part.append(linear(x, w, b))
        return tuple(part[0] if len(part) == 1 else torch.cat(part) for part in parts)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        state, tau, weight, bias, ctx.embedding, ctx.num_quantiles, *layers = inputs
        ctx.save_for_backward(state, tau, weight, bias, *layers[::2])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        state, tau, weight, bias, *weights = ctx.saved_tensors
        total: list[Tensor] = []
        grad_tau: list[Tensor] = []
        done = 0
        for k, tau_k in _chunks(tau, state, ctx.num_quantiles):
            cosines, phi = _phi(tau_k, weight, bias, ctx.embedding)
            x = hadamard_mix(state, phi, k)
            rows = slice(done, done + x.shape[0])
            done = rows.stop
            of_layers: list[Tensor] = []
            grad_x = linear(grads[0][rows], weights[0].t())
            for grad, w in zip(grads[1:], weights[1:], strict=True):
                grad_x = grad_x + linear(grad[rows], w.t())
            for grad in grads:
                of_layers += [grad[rows].T @ x, grad[rows].sum(0)]

            grad_x = grad_x.view(k, *state.shape)
            grad_state = (grad_x * phi.view(k, -1, state.shape[1])).sum(0)
            grad_phi = grad_x * state
            grad_phi = grad_phi.sum(1) if phi.shape[0] == k else grad_phi.flatten(0, 1)
            grad_pre = torch.ops.aten.leaky_relu_backward(
                grad_phi, phi, ctx.embedding.negative_slope, True
            )
            if ctx.needs_input_grad[1]:
                grad_tau.append(_grad_tau(grad_pre @ weight, tau_k, ctx.embedding))
            found = [grad_state, grad_pre.T @ cosines, grad_pre.sum(0), *of_layers]
            total = [a + b for a, b in zip(total, found, strict=True)] if total else found
        grad_state, grad_weight, grad_bias, *of_layers = total
        return (
            grad_state,
            torch.cat(grad_tau) if grad_tau else None,
            grad_weight,
            grad_bias,
            None,
            None,
            *of_layers,
        )


def _chunks(tau: Tensor, state: Tensor, num_quantiles: int) -> Iterator[tuple[int, Tensor]]:
    """Numbers of quantiles and their τ: as many at a time as fit the cache, on a GPU all."""
    size = num_quantiles
    if state.device.type == "cpu" and not torch.compiler.is_compiling():
        size = max(1, min(size, CHUNK_ELEMENTS // max(1, state.numel())))
    rows = tau.shape[0] // num_quantiles
    for start in range(0, num_quantiles, size):
        stop = min(start + size, num_quantiles)
        yield stop - start, tau[start * rows : stop * rows]


def _grad_tau(grad_cosines: Tensor, tau: Tensor, embedding: _Embedding) -> Tensor:
    """``dc[r, i] / dτ[r] = −π · i · sin(π · i · τ[r])``, added up: ``(R, E) -> (R, 1)``."""
    start, stop = embedding.cosine_start, embedding.cosine_start + embedding.dimension
    angular = torch.pi * torch.arange(start, stop, device=tau.device, dtype=tau.dtype)
    slope = -angular * torch.sin(angular * tau)
    return (grad_cosines.to(tau.dtype) * slope).sum(1, keepdim=True)


def _phi(tau: Tensor, weight: Tensor, bias: Tensor, embedding: _Embedding) -> tuple[Tensor, Tensor]:
    """The cosines, and ``φ`` after its activation."""
    cosines = cosine_features(tau, embedding.dimension, embedding.cosine_start).to(weight.dtype)
    return cosines, activate_(F.linear(cosines, weight, bias), embedding.negative_slope)
