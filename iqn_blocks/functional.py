"""Pure tensor functions: the equations of an implicit quantile network, one function each.

Shapes use ``B`` batch, ``K`` quantiles, ``E`` cosine dimension, ``D`` state width, ``A`` actions,
``N`` actions per block. Rows are quantile-major: row ``k·B + b`` is quantile ``k`` of sample ``b``.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from einops import rearrange
from torch import Tensor

from iqn_blocks._arguments import check_choice

TauScheme = Literal["symmetric", "uniform", "midpoints"]
Uint8Scaling = Literal["signed", "unit"]


def wide_dtype(dtype: torch.dtype) -> torch.dtype:
    """The dtype of τ, cosines and float statistics: float64 for float64, else float32."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def sample_tau(
    batch_size: int,
    num_quantiles: int,
    *,
    scheme: TauScheme = "symmetric",
    generator: torch.Generator | None = None,
    device: torch.device | str | None = None,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Draw τ, ``K`` values for each of ``B`` samples: ``(K·B, 1)`` in [0, 1].

    * ``symmetric``: ``τ[k] = (k + u) / K`` for ``k < K/2`` with ``u ~ U[0, 1)``, and
      ``τ[k] = 1 − τ[k − K/2]`` above: stratified and antithetic. ``K`` must be even.
    * ``uniform``: i.i.d. ``U[0, 1)`` (arXiv:1806.06923).
    * ``midpoints``: ``τ[k] = (k + ½) / K``, no randomness.

    ``generator`` may live on another device than ``device``: numbers are drawn where it lives.

    >>> sample_tau(1, 4, scheme="midpoints").flatten().tolist()
    [0.125, 0.375, 0.625, 0.875]

    Raises:
        ValueError: an unknown scheme, ``num_quantiles < 1``, or an odd one with ``symmetric``.
    """
    _check_num_quantiles(num_quantiles)
    if scheme == "midpoints":
        tau = midpoints(num_quantiles, device=device, dtype=dtype)
        return tau.expand(num_quantiles, batch_size).reshape(-1, 1)
    if scheme == "uniform":
        return _rand((num_quantiles * batch_size, 1), generator, device, dtype)
    check_choice("scheme", scheme, TauScheme)
    if num_quantiles % 2:
        raise ValueError(
            f"num_quantiles: scheme 'symmetric' pairs τ with 1 − τ and needs an even number, "
            f"got {num_quantiles}; use {num_quantiles + 1}, or scheme='uniform'"
        )
    half = num_quantiles // 2
    u = _rand((half, batch_size), generator, device, dtype)
    k = torch.arange(half, device=device, dtype=dtype)[:, None]
    lower = (k + u) / num_quantiles
    return torch.cat([lower, 1 - lower]).reshape(-1, 1)


def midpoints(
    num_quantiles: int,
    *,
    device: torch.device | str | None = None,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Midpoints ``τ[k] = (k + ½) / K`` of ``K`` equal slices of [0, 1]: ``(K, 1)``.

    >>> midpoints(2).flatten().tolist()
    [0.25, 0.75]
    """
    _check_num_quantiles(num_quantiles)
    k = torch.arange(num_quantiles, device=device, dtype=dtype)
    return ((k + 0.5) / num_quantiles)[:, None]


def cosine_features(tau: Tensor, embedding_dimension: int, start: int = 1) -> Tensor:
    """``c[r, i] = cos(π · i · τ[r])``, ``i = start … start + E − 1``: ``(R, 1) -> (R, E)``.

    Evaluated in float32 or wider for every dtype of ``τ``: in bfloat16 no digit of ``64·π·τ`` is
    correct. The IQN paper (arXiv:1806.06923, eq. 4) counts ``i`` from 0; common code from 1.

    >>> cosine_features(torch.tensor([[0.5]]), 2).round(decimals=4).tolist()
    [[-0.0, -1.0]]
    """
    tau = tau.to(torch.promote_types(tau.dtype, torch.float32))
    i = torch.arange(start, start + embedding_dimension, device=tau.device, dtype=tau.dtype)
    return torch.cos((torch.pi * i) * tau)


def hadamard_mix(state: Tensor, phi: Tensor, num_quantiles: int) -> Tensor:
    """``x[k·B + b] = s[b] ⊙ φ[k·B + b]``: ``(B, D), (K·B, D) -> (K·B, D)``.

    ``φ`` may also be ``(K, D)``, one row for each τ shared by the whole batch. ``s`` is broadcast,
    never repeated.

    Raises:
        ValueError: ``φ`` has neither ``K`` nor ``K·B`` rows.
    """
    return (state * by_level(phi, state, num_quantiles)).flatten(0, 1)


def by_level(phi: Tensor, state: Tensor, num_quantiles: int) -> Tensor:
    """``φ (K·B, P)`` as ``(K, B, P)``, or ``φ (K, P)`` as ``(K, 1, P)``.

    The result broadcasts against ``state (B, D)``, or against another tensor of ``B`` rows.

    Raises:
        ValueError: ``φ`` has neither ``K`` nor ``K·B`` rows.
    """
    batch, rows = state.shape[0], phi.shape[0]
    if rows not in (num_quantiles, num_quantiles * batch):
        raise ValueError(
            f"phi: {rows} rows, but {num_quantiles} quantiles and a state of shape "
            f"{tuple(state.shape)} need {num_quantiles * batch} (per sample) or {num_quantiles} "
            f"(shared)"
        )
    return phi.reshape(num_quantiles, rows // num_quantiles, phi.shape[1])


def dueling(value: Tensor, advantage: Tensor, centre: Tensor | None = None) -> Tensor:
    """``Q = V + Adv − mean_A(Adv)`` (arXiv:1511.06581, eq. 9).

    ``(R, 1), (R, A) -> (R, A)``; with ``N`` offsets ``(R, 1), (R, N, A) -> (R, N, A)``: ``V`` is
    shared by the offsets and the mean is taken for each. A ``centre (R, 1)``, or ``(R, N, 1)``, is
    subtracted in place of that mean.
    """
    if advantage.ndim == 3:
        value = value.unsqueeze(1)
    if centre is None:
        centre = advantage.mean(-1, keepdim=True)
    return advantage + (value - centre)


def split_quantiles(q: Tensor, num_quantiles: int) -> Tensor:
    """The batch-major view of quantile-major rows: ``(K·B, …) -> (B, K, …)``, without a copy.

    Raises:
        ValueError: ``q`` has a number of rows that ``K`` does not divide.
    """
    _check_rows(q, num_quantiles)
    return rearrange(q, "(k b) ... -> b k ...", k=num_quantiles)


def mean_over_quantiles(q: Tensor, num_quantiles: int) -> Tensor:
    """The mean action value of each sample: ``(K·B, …) -> (B, …)``."""
    _check_rows(q, num_quantiles)
    return q.view(num_quantiles, q.shape[0] // num_quantiles, *q.shape[1:]).mean(0)


def weighted_mean_over_quantiles(q: Tensor, tau: Tensor) -> Tensor:
    """``Σ_k (τ[b, k+1] − τ[b, k]) · q[k·B + b]``: ``(K·B, …), (B, K+1) -> (B, …)``.

    The mean action value of a quantile function that is constant between neighbouring fractions
    (FQF, arXiv:1911.02140, eq. 1), such as those of :func:`fraction_proposals`; ``q`` holds the
    values at their midpoints.

    >>> q, tau = torch.tensor([[2.0], [4.0]]), torch.tensor([[0.0, 0.25, 1.0]])
    >>> weighted_mean_over_quantiles(q, tau).tolist()  # ¼·2 + ¾·4
    [[3.5]]

    Raises:
        ValueError: the rows of ``q`` are not ``K·B``.
    """
    if tau.ndim != 2 or tau.shape[1] < 2 or q.shape[0] != tau.shape[0] * (tau.shape[1] - 1):
        raise ValueError(
            f"tau: expected (B, K+1) with K >= 1 for q with K·B = {q.shape[0]} rows, got "
            f"{tuple(tau.shape)}"
        )
    width = tau.diff(dim=1).to(q.dtype).T  # (K, B)
    q = q.reshape(*width.shape, *q.shape[1:])
    return (q * width.reshape(*width.shape, *[1] * (q.ndim - 2))).sum(0)


class FractionProposals(NamedTuple):
    """Fractions ``tau (B, K+1)`` from 0 to 1, midpoints ``tau_hat (B, K)``, ``entropy (B,)``."""

    tau: Tensor
    tau_hat: Tensor
    entropy: Tensor


def fraction_proposals(logits: Tensor) -> FractionProposals:
    """Fractions that a network proposes: ``(B, K) -> (B, K+1), (B, K), (B,)``.

    ``p = softmax(logits)``, ``τ[i] = Σ_{j<i} p[j]`` from ``τ[0] = 0`` to ``τ[K] = 1``, midpoints
    ``τ̂[i] = (τ[i] + τ[i+1]) / 2`` and the entropy ``−Σ p log p`` (FQF, arXiv:1911.02140, section
    3.3). Computed in float32 or wider. No gradient flows through ``tau_hat``: the quantile loss
    does not train the proposals, :func:`iqn_blocks.losses.fraction_loss` does.

    >>> fraction_proposals(torch.tensor([[1.0, 3.0]]).log()).tau.tolist()
    [[0.0, 0.25, 1.0]]

    Raises:
        ValueError: ``logits`` is not ``(B, K)`` with ``K ≥ 1``.
    """
    if logits.ndim != 2 or logits.shape[1] == 0:
        raise ValueError(f"logits: expected (B, K) with K >= 1, got {tuple(logits.shape)}")
    log_p = torch.log_softmax(logits.to(wide_dtype(logits.dtype)), 1)
    p = log_p.exp()
    inner = p[:, :-1].cumsum(1).clamp(max=1)  # rounding may carry a sum past 1
    tau = torch.cat([torch.zeros_like(p[:, :1]), inner, torch.ones_like(p[:, :1])], 1)
    tau_hat = (tau[:, :-1] + tau[:, 1:]).detach() / 2
    return FractionProposals(tau, tau_hat, -(p * log_p).sum(1))


def crossing_rate(q: Tensor, tau: Tensor) -> Tensor:
    """The share of neighbouring τ between which a quantile function falls: ``() in [0, 1]``.

    ``q (B, K, …), tau (B, K)`` or ``(B, K, 1)``, batch-major as :func:`split_quantiles` gives them.
    With each sample sorted by τ, a pair ``(k, k+1)`` with ``τ[k] < τ[k+1]`` crosses if ``q[k+1] <
    q[k]``; the rate is the number of crossing pairs over that of all such pairs, over samples,
    actions and offsets alike. It is NaN if no sample has two different τ. A count has no gradient.

    >>> q, tau = torch.tensor([[1.0, 3.0, 2.0]]), torch.tensor([[0.1, 0.5, 0.9]])
    >>> crossing_rate(q, tau).item()  # 1 ≤ 3, 3 > 2
    0.5

    Raises:
        ValueError: shapes that do not fit, or fewer than two τ.
    """
    if q.ndim < 2 or q.shape[1] < 2 or tau.shape not in (q.shape[:2], (*q.shape[:2], 1)):
        raise ValueError(
            f"crossing_rate: expected q (B, K, …) and tau (B, K) or (B, K, 1) with K >= 2, got "
            f"{tuple(q.shape)} and {tuple(tau.shape)}; functional.split_quantiles makes that of a "
            f"network's output"
        )
    tau, order = tau.reshape(q.shape[:2]).sort(dim=1, stable=True)
    rises = tau[:, 1:] > tau[:, :-1]
    sorted_q = q.take_along_dim(order.reshape(*order.shape, *[1] * (q.ndim - 2)), 1)
    rises = rises.reshape(*rises.shape, *[1] * (q.ndim - 2)).expand_as(sorted_q[:, 1:])
    falls = sorted_q[:, 1:] < sorted_q[:, :-1]
    return (falls & rises).sum() / rises.sum()


def mask_actions(q: Tensor, mask: Tensor) -> Tensor:
    """Fill ``q`` with its dtype's finite minimum wherever ``mask`` is False (True = allowed).

    Both are ``(B, A)`` or ``(B, N, A)``. The minimum is finite, so that later means are not NaN. A
    sample without an allowed action gets it everywhere.

    Raises:
        TypeError: the mask is not boolean.
        ValueError: the shapes differ.
    """
    if not isinstance(mask, Tensor) or mask.dtype != torch.bool:
        kind = mask.dtype if isinstance(mask, Tensor) else type(mask).__name__
        raise TypeError(f"mask: expected a tensor of torch.bool (True = allowed), got {kind}")
    if mask.shape != q.shape:
        raise ValueError(
            f"mask: shape {tuple(mask.shape)} differs from the values' {tuple(q.shape)}"
        )
    return q.masked_fill(~mask, torch.finfo(q.dtype).min)


def normalize_image(img: Tensor, dtype: torch.dtype, scaling: Uint8Scaling = "signed") -> Tensor:
    """Images as the network computes with them, any shape: uint8 is scaled, floating is only cast.

    ``signed``: ``(x − 128) / 128``; ``unit``: ``x / 255``; both in float32 or wider, then cast.
    """
    if img.dtype != torch.uint8:
        return img.to(dtype)
    check_choice("scaling", scaling, Uint8Scaling)
    pixels = img.to(wide_dtype(dtype))
    scaled = pixels / 255 if scaling == "unit" else (pixels - 128) / 128
    return scaled.to(dtype)


def _check_rows(q: Tensor, num_quantiles: int) -> None:
    _check_num_quantiles(num_quantiles)
    if q.shape[0] % num_quantiles:
        raise ValueError(
            f"q: {q.shape[0]} rows are not a multiple of num_quantiles = {num_quantiles}"
        )


def _check_num_quantiles(num_quantiles: int) -> None:
    if not isinstance(num_quantiles, int | torch.SymInt):
        raise TypeError(
            f"num_quantiles: expected a whole number, got {type(num_quantiles).__name__}"
        )
    if num_quantiles < 1:
        raise ValueError(f"num_quantiles: must be at least 1, got {num_quantiles}")


def _rand(
    shape: tuple[int, ...],
    generator: torch.Generator | None,
    device: torch.device | str | None,
    dtype: torch.dtype,
) -> Tensor:
    if generator is None:
        return torch.rand(shape, device=device, dtype=dtype)
    return torch.rand(shape, generator=generator, device=generator.device, dtype=dtype).to(device)
