"""Pure tensor functions: the equations of an implicit quantile network, one function each.

Shapes use ``B`` batch, ``K`` quantiles, ``E`` cosine dimension, ``D`` state width, ``A`` actions,
``N`` actions per block. Rows are quantile-major: row ``k·B + b`` is quantile ``k`` of sample ``b``.
"""

from __future__ import annotations

from typing import Literal, get_args

import torch
from einops import rearrange
from torch import Tensor

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
    """Draw quantile fractions, ``K`` for each of ``B`` samples: ``(K·B, 1)`` in [0, 1].

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
    if scheme != "symmetric":
        accepted = ", ".join(map(repr, get_args(TauScheme)))
        raise ValueError(f"scheme: got {scheme!r}, accepted are {accepted}")
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

    Evaluated in float32 or wider whatever the dtype of ``τ``: in bfloat16 ``64·π·τ`` has no correct
    digit left. The IQN paper (arXiv:1806.06923, eq. 4) counts ``i`` from 0; common code from 1.

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

    It broadcasts against ``state (B, D)`` then, or against what has its number of rows.

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


def dueling(value: Tensor, advantage: Tensor) -> Tensor:
    """``Q = V + Adv − mean_A(Adv)`` (arXiv:1511.06581, eq. 9).

    ``(R, 1), (R, A) -> (R, A)``; with ``N`` offsets ``(R, 1), (R, N, A) -> (R, N, A)``: ``V`` is
    shared by the offsets and the mean is taken for each.
    """
    if advantage.ndim == 3:
        value = value.unsqueeze(1)
    return advantage + (value - advantage.mean(-1, keepdim=True))


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


def mask_actions(q: Tensor, mask: Tensor) -> Tensor:
    """Fill ``q`` with its dtype's finite minimum wherever ``mask`` is False (True = allowed).

    ``(B, A)`` or ``(B, N, A)``, both arguments alike. A finite filling keeps later means free of
    NaN. A sample without any allowed action gets the minimum everywhere.

    Raises:
        TypeError: the mask is not boolean.
        ValueError: the shapes differ.
    """
    if not isinstance(mask, Tensor) or mask.dtype != torch.bool:
        found = mask.dtype if isinstance(mask, Tensor) else type(mask).__name__
        raise TypeError(f"mask: expected a tensor of torch.bool (True = allowed), got {found}")
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
    if scaling not in get_args(Uint8Scaling):
        accepted = ", ".join(map(repr, get_args(Uint8Scaling)))
        raise ValueError(f"scaling: got {scaling!r}, accepted are {accepted}")
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
