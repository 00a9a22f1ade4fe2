"""The quantile path's widest tensors, computed again in backward instead of being kept."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from iqn_blocks.blocks.activation import activate_
from iqn_blocks.blocks.chain import Link, gradients, links_of, may_overwrite, values
from iqn_blocks.blocks.tau import TauEmbedding
from iqn_blocks.functional import cosine_features, hadamard_mix, wide_dtype

CHUNK_ELEMENTS = 2**22  # of s ⊙ φ at a time on a CPU: 16 MiB in float32


def mixed_chains(
    state: Tensor,
    tau: Tensor,
    embedding: TauEmbedding,
    chains: Sequence[Sequence[Link]],
    num_quantiles: int,
) -> Sequence[Tensor]:
    """Each chain of linear layers over ``s ⊙ φ(τ)``, keeping neither that nor ``φ`` for backward.

    ``(B, D), (K·B, 1) or (K, 1) -> (K·B, out)`` for each chain, whose last link has no activation.
    The same values and gradients as :class:`TauEmbedding`,
    :func:`~iqn_blocks.functional.hadamard_mix` and the layers; kept are ``s``, ``τ``, the
    parameters and what is between a chain's layers. Not differentiable twice.
    """
    projection = embedding.projection
    dtype = _compute_dtype(projection.weight)
    tensors = [t for links in chains for link in links for t in link[:2]]
    apply: Callable[..., tuple[Tensor, ...]] = _MixedChains.apply
    found = apply(
        state.to(dtype),
        tau.to(wide_dtype(projection.weight.dtype)),
        projection.weight.to(dtype),
        projection.bias.to(dtype),
        _Embedding(embedding.embedding_dimension, embedding.cosine_start, embedding.negative_slope),
        num_quantiles,
        tuple(tuple(link[2:] for link in links) for links in chains),
        *(None if tensor is None else tensor.to(dtype) for tensor in tensors),
    )
    return found[: len(chains)]


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


Kinds = tuple[tuple[tuple[Any, ...], ...], ...]


class _MixedChains(torch.autograd.Function):
    """Works through a few quantiles at a time, so that what is wide stays in the cache.

    Gives the ends of the chains, then what else each link gave, which backward needs.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(
        state: Tensor,
        tau: Tensor,
        weight: Tensor,
        bias: Tensor,
        embedding: _Embedding,
        num_quantiles: int,
        kinds: Kinds,
        *tensors: Tensor | None,
    ) -> tuple[Tensor, ...]:
        chains = _chains(kinds, tensors)
        parts: list[list[Tensor]] = []
        for k, tau_k in _chunks(tau, state, num_quantiles):
            _, phi = _phi(tau_k, weight, bias, embedding)
            x = hadamard_mix(state, phi, k)
            found = [values(x, links) for links in chains]
            parts.append([*(row[-1] for row in found), *(y for row in found for y in row[:-1])])
        if len(parts) == 1:
            return tuple(parts[0])
        return tuple(torch.cat(part) for part in zip(*parts, strict=True))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        state, tau, weight, bias, ctx.embedding, ctx.num_quantiles, ctx.kinds, *tensors = inputs
        between = output[len(ctx.kinds) :]
        ctx.mark_non_differentiable(*between)
        ctx.set_materialize_grads(False)  # zeros for what is between would be as wide as that is
        ctx.save_for_backward(state, tau, weight, bias, *tensors, *between)
        ctx.n_tensors = len(tensors)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        state, tau, weight, bias, *saved = ctx.saved_tensors
        tensors, between = saved[: ctx.n_tensors], iter(saved[ctx.n_tensors :])
        chains = _chains(ctx.kinds, tensors)
        kept = [[next(between) for _ in links[:-1]] for links in chains]
        total: list[Tensor | None] = []
        grad_tau: list[Tensor] = []
        done = 0
        for k, tau_k in _chunks(tau, state, ctx.num_quantiles):
            cosines, phi = _phi(tau_k, weight, bias, ctx.embedding)
            x = hadamard_mix(state, phi, k)
            rows = slice(done, done + x.shape[0])
            done = rows.stop
            ends = [None if grad is None else grad[rows] for grad in grads[: len(chains)]]
            own = [[y[rows] for y in outputs] for outputs in kept]
            grad_x, of_tensors = _through_chains(ends, x, chains, own)
            grad_x = grad_x.view(k, *state.shape)
            grad_state = (grad_x * phi.view(k, -1, state.shape[1])).sum(0)
            grad_phi = grad_x * state
            grad_phi = grad_phi.sum(1) if phi.shape[0] == k else grad_phi.flatten(0, 1)
            grad_pre = torch.ops.aten.leaky_relu_backward(
                grad_phi, phi, ctx.embedding.negative_slope, True
            )
            if ctx.needs_input_grad[1]:
                grad_tau.append(_grad_tau(grad_pre @ weight, tau_k, ctx.embedding))
            of_embedding = [grad_state, grad_pre.T @ cosines, grad_pre.sum(0)]
            of_chunk = [*of_embedding, *of_tensors]
            total = list(map(_sum, total, of_chunk)) if total else of_chunk
        of_state, of_weight, of_bias, *of_tensors = total
        of_tau = torch.cat(grad_tau) if grad_tau else None
        return of_state, of_tau, of_weight, of_bias, None, None, None, *of_tensors


def _through_chains(
    grads: Sequence[Tensor | None],
    x: Tensor,
    chains: Sequence[Sequence[Link]],
    kept: Sequence[Sequence[Tensor]],
) -> tuple[Tensor, list[Tensor | None]]:
    """The gradient of what all chains read, added up, and those of their weights and biases."""
    grad_x: Tensor | None = None
    of_tensors: list[Tensor | None] = []
    for grad, links, own in zip(grads, chains, kept, strict=True):
        if grad is None:  # none was asked of this chain's end
            grad = x.new_zeros(x.shape[0], links[-1].weight.shape[0])
        of_x, *found = gradients(grad, [x, *own], links, True)
        of_tensors += found
        assert of_x is not None
        if grad_x is None:
            grad_x = of_x
        elif may_overwrite(grad_x, of_x):
            grad_x += of_x
        else:
            grad_x = grad_x + of_x
        del of_x  # it is wide
    assert grad_x is not None
    return grad_x, of_tensors


def _sum(a: Tensor | None, b: Tensor | None) -> Tensor | None:
    return None if a is None or b is None else a + b


def _chains(kinds: Kinds, tensors: Sequence[Tensor | None]) -> list[list[Link]]:
    """Each chain's links, from all their weights and biases in a row."""
    rest = iter(tensors)
    return [links_of(row, [next(rest) for _ in range(2 * len(row))]) for row in kinds]


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
