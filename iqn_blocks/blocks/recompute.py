"""The quantile path's widest tensors, computed again in backward instead of being kept."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from iqn_blocks.blocks.tau import TauEmbedding
from iqn_blocks.functional import cosine_features, hadamard_mix, wide_dtype


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
        (embedding.embedding_dimension, embedding.cosine_start, embedding.negative_slope),
        num_quantiles,
        *weights,
    )


def _compute_dtype(parameter: Tensor) -> torch.dtype:
    """The dtype of a matrix product: autocast's where it is on, else the parameters'."""
    device = parameter.device.type
    if device != "meta" and torch.is_autocast_enabled(device):
        return torch.get_autocast_dtype(device)
    return parameter.dtype


class _MixedLinears(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(
        state: Tensor,
        tau: Tensor,
        weight: Tensor,
        bias: Tensor,
        embedding: tuple[int, int, float],
        num_quantiles: int,
        *layers: Tensor,
    ) -> tuple[Tensor, ...]:
        _, phi = _phi(tau, weight, bias, embedding)
        x = hadamard_mix(state, phi, num_quantiles)
        return tuple(F.linear(x, w, b) for w, b in zip(layers[::2], layers[1::2], strict=True))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        state, tau, weight, bias, ctx.embedding, ctx.num_quantiles, *layers = inputs
        ctx.save_for_backward(state, tau, weight, bias, *layers[::2])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        state, tau, weight, bias, *weights = ctx.saved_tensors
        cosines, phi = _phi(tau, weight, bias, ctx.embedding)
        x = hadamard_mix(state, phi, ctx.num_quantiles)
        layer_grads: list[Tensor] = []
        for grad in grads:
            layer_grads += [grad.T @ x, grad.sum(0)]
        grad_x = grads[0] @ weights[0]
        for grad, w in zip(grads[1:], weights[1:], strict=True):
            grad_x = grad_x.addmm(grad, w)

        shared = phi.shape[0] == ctx.num_quantiles
        grad_x = grad_x.view(ctx.num_quantiles, *state.shape)
        grad_state = (grad_x * phi.view(ctx.num_quantiles, -1, state.shape[1])).sum(0)
        grad_phi = grad_x * state
        grad_phi = grad_phi.sum(1) if shared else grad_phi.flatten(0, 1)
        grad_pre = torch.where(phi > 0, grad_phi, grad_phi * ctx.embedding[2])
        grad_tau = None
        if ctx.needs_input_grad[1]:
            grad_tau = _grad_tau(grad_pre @ weight, tau, ctx.embedding)
        return (
            grad_state,
            grad_tau,
            grad_pre.T @ cosines,
            grad_pre.sum(0),
            None,
            None,
            *layer_grads,
        )


def _grad_tau(grad_cosines: Tensor, tau: Tensor, embedding: tuple[int, int, float]) -> Tensor:
    """``dc[r, i] / dτ[r] = −π · i · sin(π · i · τ[r])``, added up: ``(R, E) -> (R, 1)``."""
    dimension, start, _ = embedding
    angular = torch.pi * torch.arange(start, start + dimension, device=tau.device, dtype=tau.dtype)
    slope = -angular * torch.sin(angular * tau)
    return (grad_cosines.to(tau.dtype) * slope).sum(1, keepdim=True)


def _phi(
    tau: Tensor, weight: Tensor, bias: Tensor, embedding: tuple[int, int, float]
) -> tuple[Tensor, Tensor]:
    """The cosines, and ``φ`` after its activation."""
    dimension, start, slope = embedding
    cosines = cosine_features(tau, dimension, start).to(weight.dtype)
    return cosines, F.leaky_relu_(F.linear(cosines, weight, bias), slope)
