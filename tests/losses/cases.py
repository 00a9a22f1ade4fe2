"""Inputs of losses and targets."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from iqn_blocks.losses import double_dqn_target, max_target, munchausen_target

B, K, J, A, N = 3, 4, 5, 3, 2  # J target quantiles
EVERYTHING = torch.ones(B, N, A, dtype=torch.bool)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def draw(seed: int, *shape: int) -> Tensor:
    return 2 * torch.randn(shape, generator=seeded(seed), dtype=torch.float64)


def draw_tau(seed: int, *shape: int) -> Tensor:
    return torch.rand(shape, generator=seeded(seed), dtype=torch.float64)


def draw_actions(seed: int, *shape: int) -> Tensor:
    return torch.randint(A, shape, generator=seeded(seed))


def close(actual: Tensor, expected: Tensor, rtol: float = 1e-10) -> None:
    torch.testing.assert_close(actual, expected, rtol=rtol, atol=rtol)


def loss_inputs(seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Predicted values, target values, τ of the predicted ones."""
    return draw(seed, B, K), draw(seed + 1, B, J), draw_tau(seed + 2, B, K)


def target_inputs(seed: int = 0, offsets: int = N) -> tuple[Tensor, ...]:
    """Reward, discount, next values, the other values (of another K), actions."""
    return (
        draw(seed, B),
        torch.tensor([0.99, 0.0, 0.5], dtype=torch.float64),
        draw(seed + 1, B, J, offsets, A),
        draw(seed + 2, B, K, offsets, A),
        draw_actions(seed + 3, B, offsets),
    )


def in_float32(inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return tuple(x.float() if x.is_floating_point() else x for x in inputs)


def some_mask(seed: int = 0) -> Tensor:
    """A mask with at least one allowed action at every offset."""
    mask = torch.rand(B, N, A, generator=seeded(seed)) < 0.5
    return mask.index_fill(2, torch.tensor([seed % A]), True)


# By kind: reward, discount, next values, q_online or q_target_now, actions, and the mask.
TARGETS: dict[str, Callable[..., Tensor]] = {
    "max": lambda r, d, q, other, a, mask=None, **_: max_target(r, d, q, mask=mask),
    "double": lambda r, d, q, other, a, mask=None, **_: double_dqn_target(
        r, d, q, other, mask=mask
    ),
    "munchausen": lambda r, d, q, other, a, mask=None, temperature=0.5, **options: (
        munchausen_target(r, d, q, other, a, mask=mask, temperature=temperature, **options)
    ),
}
any_kind = pytest.mark.parametrize("kind", TARGETS)
