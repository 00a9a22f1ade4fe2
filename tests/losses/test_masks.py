"""Forbidden actions and terminal states: what the network says of them never matters."""

from __future__ import annotations

import math

import pytest
import torch

from iqn_blocks.losses import munchausen_target
from tests.losses.cases import (
    EVERYTHING,
    TARGETS,
    A,
    B,
    J,
    N,
    any_kind,
    close,
    in_float32,
    some_mask,
    target_inputs,
)


@any_kind
@pytest.mark.parametrize("hidden", [math.nan, math.inf, -math.inf, 1e38])
def test_what_a_forbidden_action_holds_never_matters(kind: str, hidden: float) -> None:
    reward, discount, q, other, actions = in_float32(target_inputs())
    mask = some_mask(1)
    clean = TARGETS[kind](reward, discount, q, other, actions, mask)
    q = q.masked_fill(~mask[:, None], hidden)
    if kind == "double":
        other = other.masked_fill(~mask[:, None], hidden)
    close(TARGETS[kind](reward, discount, q, other, actions, mask), clean, rtol=1e-6)


@any_kind
def test_a_mask_for_all_offsets(kind: str) -> None:
    mask = torch.tensor([[True, False, True], [False, True, False], [True, True, True]])
    shared = TARGETS[kind](*target_inputs(), mask)
    assert torch.equal(shared, TARGETS[kind](*target_inputs(), mask[:, None].expand(B, N, A)))


@any_kind
@pytest.mark.parametrize("hidden", [0.0, math.nan])
def test_a_state_without_any_allowed_action_is_worth_zero(kind: str, hidden: float) -> None:
    reward, _, q, other, actions = target_inputs()
    mask = EVERYTHING.clone()
    mask[1] = False
    q[1] += hidden
    for discount in (torch.zeros(B), torch.ones(B)):
        result = TARGETS[kind](reward, discount, q, other, actions, mask, alpha=0)
        close(result[1], reward[1].expand(J))


@any_kind
@pytest.mark.parametrize("wild", [math.nan, math.inf, -math.inf, 3e38])
@pytest.mark.parametrize("mask", [None, some_mask()], ids=["all", "masked"])
def test_a_terminal_state_is_worth_zero(kind: str, wild: float, mask: torch.Tensor | None) -> None:
    # Sample 1 is terminal (γ = 0). The sum of two offsets of 3e38 overflows float32.
    reward, discount, q, other, actions = in_float32(target_inputs())
    calm = TARGETS[kind](reward, discount, q, other, actions, mask, alpha=0)
    q[1] = wild
    q.requires_grad_()
    if kind == "double":
        other[1] = wild
    result = TARGETS[kind](reward, discount, q, other, actions, mask, alpha=0)
    (gradient,) = torch.autograd.grad(result.sum(), q)
    assert (result[1] == reward[1]).all()
    assert torch.equal(result.detach(), calm)
    assert (gradient[1] == 0).all()
    assert gradient.isfinite().all()
    assert gradient[0].any()


def test_masked_action_values_at_the_state_itself() -> None:
    reward, discount, q, now, actions = target_inputs()
    mask = some_mask(1).scatter(2, actions[:, :, None], True)
    hidden, low = (now.masked_fill(~mask[:, None], value) for value in (math.nan, -1e6))
    masked = munchausen_target(reward, discount, q, hidden, actions, mask_now=mask)
    # The same bonus as with the forbidden actions far below the others.
    close(masked, munchausen_target(reward, discount, q, low, actions))


def test_a_forbidden_action_taken_gets_the_lowest_bonus() -> None:
    reward, discount, q, now, actions = target_inputs()
    mask = EVERYTHING.scatter(2, actions[:, :, None], False)
    bonus = munchausen_target(0 * reward, 0 * discount, q, now, actions, mask_now=mask)
    close(bonus, torch.full_like(bonus, -0.9 * N))  # α·lo at each offset


@any_kind
def test_masked_gradients_are_finite(kind: str) -> None:
    reward, discount, q, other, actions = target_inputs()
    q.requires_grad_()
    mask = some_mask(1)
    mask[2] = False
    target = TARGETS[kind](reward, discount, q, other, actions, mask)
    (gradient,) = torch.autograd.grad(target.sum(), q)
    assert gradient.isfinite().all()
    assert (gradient.masked_select(~mask[:, None].expand_as(gradient)) == 0).all()
