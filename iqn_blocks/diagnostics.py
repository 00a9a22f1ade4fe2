"""What tells whether a network still learns well: dormant units, rank, crossings, norms.

Pure functions of activations, features, values and networks; none has a gradient. ``R`` is the
number of rows, ``H`` of units.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from iqn_blocks._arguments import checked_number
from iqn_blocks.functional import crossing_rate, wide_dtype

__all__ = [
    "StageNorms",
    "crossing_rate",
    "dormant_scores",
    "dormant_share",
    "effective_rank",
    "norms_by_stage",
]


@torch.no_grad()
def dormant_scores(activations: Tensor, *, dim: int = -1) -> Tensor:
    """``s[i] = mean |h[i]| / mean_k mean |h[k]|``: ``(…, H, …) -> (H,)`` (arXiv:2302.12902, eq. 1).

    ``dim`` is the axis of the units: the last of a linear layer's output, 1 of a convolution's,
    whose units are its maps. Means are taken over all other axes. The scores have mean 1; a layer
    whose units are all 0 scores 0 throughout.

    >>> dormant_scores(torch.tensor([[0.0, -1.0, 5.0], [0.0, 1.0, 5.0]])).tolist()  # mean |h| = 2
    [0.0, 0.5, 2.5]

    Raises:
        ValueError: no activations.
    """
    if activations.ndim == 0 or activations.numel() == 0:
        raise ValueError(f"activations: expected at least one row, got {tuple(activations.shape)}")
    sizes = activations.to(wide_dtype(activations.dtype)).abs().movedim(dim, -1)
    mean = sizes.reshape(-1, sizes.shape[-1]).mean(0)
    return mean / mean.mean().clamp(min=torch.finfo(mean.dtype).tiny)


def dormant_share(activations: Tensor, *, threshold: float = 0.025, dim: int = -1) -> Tensor:
    """The share of units whose score is at most ``threshold``: ``(…, H, …) -> ()``.

    Scores are :func:`dormant_scores`; such units are the τ-dormant ones of arXiv:2302.12902 with
    ``τ = threshold``. At 0 they are those that are 0 for every row.

    >>> dormant_share(torch.tensor([[0.0, 1.0, 5.0, 0.1]])).item()
    0.25

    Raises:
        ValueError: no activations, or a ``threshold`` that is not a number ≥ 0.
    """
    threshold = checked_threshold(threshold)
    return (dormant_scores(activations, dim=dim) <= threshold).float().mean()


def checked_threshold(threshold: float) -> float:
    """A threshold of dormant scores, which is a number ≥ 0."""
    high = torch.finfo(torch.float32).max
    return checked_number("threshold", threshold, "any finite number >= 0", low=0, high=high)


@torch.no_grad()
def effective_rank(features: Tensor, *, delta: float = 0.01) -> Tensor:
    """``srank_δ = min{k : Σ_{i≤k} σ[i] ≥ (1 − δ)·Σ_i σ[i]}``: ``(R, D) -> ()`` (arXiv:2010.14498).

    ``σ`` are the singular values of the features of ``R`` states, largest first. A matrix of zeros
    has rank 0. The result is a whole number, as int64.

    >>> effective_rank(torch.diag(torch.tensor([8.0, 1.5, 0.5]))).item()
    3
    >>> effective_rank(torch.diag(torch.tensor([8.0, 1.5, 0.5])), delta=0.1).item()  # 9.5 / 10
    2

    Raises:
        ValueError: ``features`` that are not ``(R, D)``, or ``delta`` outside ``[0, 1)``.
    """
    if features.ndim != 2 or features.numel() == 0:
        raise ValueError(f"features: expected (R, D) with R, D >= 1, got {tuple(features.shape)}")
    below_one = 1 - 2.0**-53
    delta = checked_number("delta", delta, "0 <= delta < 1", low=0, high=below_one)
    sigma: Tensor = torch.linalg.svdvals(features.to(wide_dtype(features.dtype))).double()
    sums = sigma.cumsum(0)
    # Of sums 0, σ₁, σ₁ + σ₂, … those short of the bound number k. The last is the total to the bit.
    short = torch.cat([sums.new_zeros(1), sums[:-1]]) < (1 - delta) * sums[-1]
    return short.sum()


class StageNorms(NamedTuple):
    """Euclidean norms ``()`` of a stage's parameters and gradients; None without a gradient."""

    weight: Tensor
    gradient: Tensor | None


@torch.no_grad()
def norms_by_stage(network: nn.Module, *, depth: int = 1) -> dict[str, StageNorms]:
    """Norms of weights and of their gradients, by the first ``depth`` parts of parameters' names.

    ``depth=1`` gives one entry for each child of the network, such as ``encoder`` and
    ``advantage_head``, in the order of the parameters. A parameter that is used twice counts once.
    Norms are computed in float32 or wider.

    >>> net = nn.ModuleDict({"a": nn.Linear(1, 1), "b": nn.Linear(1, 1)})
    >>> list(norms_by_stage(net)), list(norms_by_stage(net["a"]))
    (['a', 'b'], ['weight', 'bias'])

    Raises:
        ValueError: ``depth`` is not a whole number ≥ 1.
    """
    if isinstance(depth, bool) or not isinstance(depth, int) or depth < 1:
        raise ValueError(f"depth: got {depth!r}, accepted is a whole number >= 1")
    stages: dict[str, list[nn.Parameter]] = {}
    for name, parameter in network.named_parameters():
        stage = ".".join(name.replace("_orig_mod.", "").split(".")[:depth])
        stages.setdefault(stage, []).append(parameter)
    return {
        stage: StageNorms(
            _norm(parameters),
            _norm(gradients)
            if (gradients := [p.grad for p in parameters if p.grad is not None])
            else None,
        )
        for stage, parameters in stages.items()
    }


def _norm(tensors: Iterable[Tensor]) -> Tensor:
    norms = [torch.linalg.vector_norm(x, dtype=wide_dtype(x.dtype)) for x in tensors]
    total: Tensor = torch.linalg.vector_norm(torch.stack([norm.to(norms[0]) for norm in norms]))
    return total
