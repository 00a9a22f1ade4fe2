"""The targets and the values of the actions taken: by hand, against their equations, in general."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from iqn_blocks.functional import dueling, split_quantiles
from iqn_blocks.losses import double_dqn_target, max_target, take
from tests.losses.cases import (
    EVERYTHING,
    TARGETS,
    A,
    B,
    J,
    K,
    N,
    any_kind,
    close,
    draw,
    draw_actions,
    some_mask,
    target_inputs,
)
from tests.reference import losses as reference

seeds = st.integers(0, 2**31)


def test_take_by_hand() -> None:
    q = torch.arange(2 * 2 * 3.0).view(2, 2, 3)
    assert take(q, torch.tensor([2, 0])).tolist() == [[2.0, 5.0], [6.0, 9.0]]
    # Blocks: sample 0 gives q[0, k, 0, 2] + q[0, k, 1, 0], sample 1 q[1, k, 0, 1] + q[1, k, 1, 1].
    q, actions = torch.arange(2 * 2 * 2 * 3.0).view(2, 2, 2, 3), torch.tensor([[2, 0], [1, 1]])
    assert take(q, actions).tolist() == [[2.0 + 3.0, 8.0 + 9.0], [13.0 + 16.0, 19.0 + 22.0]]


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int32, torch.int64])
def test_actions_may_have_any_integral_dtype(dtype: torch.dtype) -> None:
    q, actions = draw(0, B, K, A), draw_actions(1, B)
    assert torch.equal(take(q, actions.to(dtype)), take(q, actions))


def test_take_gradient() -> None:
    q, actions = draw(0, B, K, N, A).requires_grad_(), draw_actions(1, B, N)
    assert torch.autograd.gradcheck(lambda x: take(x, actions), (q,))


def test_max_is_taken_for_each_quantile_and_double_dqn_on_the_mean() -> None:
    # r = 1, γ = ½. Two quantiles (0, 3) and (8, 1): their own maxima 3 and 8 give 1 + ½·3, 1 + ½·8.
    q, reward, discount = torch.tensor([[[0.0, 3.0], [8.0, 1.0]]]), torch.ones(1), torch.ones(1) / 2
    assert max_target(reward, discount, q).tolist() == [[2.5, 5.0]]
    # The means are 4 and 2: action 0 in both. An online network that prefers action 1: 3 and 1.
    assert double_dqn_target(reward, discount, q, q).tolist() == [[1.0, 5.0]]
    online = torch.tensor([[[0.0, 1.0]]])
    assert double_dqn_target(reward, discount, q, online).tolist() == [[2.5, 1.5]]


@any_kind
@pytest.mark.parametrize("mask", [None, some_mask(1)], ids=["all", "masked"])
def test_equation(kind: str, mask: torch.Tensor | None) -> None:
    expected = reference.target(kind, *target_inputs(), mask=EVERYTHING if mask is None else mask)
    close(TARGETS[kind](*target_inputs(), mask), expected)


@any_kind
def test_a_block_is_the_sum_of_its_offsets(kind: str) -> None:
    reward, discount, q, other, actions = target_inputs()
    zero = torch.zeros_like(reward)
    parts = sum(
        TARGETS[kind](zero, discount, q[:, :, n], other[:, :, n], actions[:, n]) for n in range(N)
    )
    close(TARGETS[kind](reward, discount, q, other, actions), reward[:, None] + parts)


@any_kind
def test_one_offset_equals_a_single_action(kind: str) -> None:
    reward, discount, q, other, actions = target_inputs(offsets=1)
    block = TARGETS[kind](reward, discount, q, other, actions)
    single = TARGETS[kind](reward, discount, q[:, :, 0], other[:, :, 0], actions[:, 0])
    assert torch.equal(block, single)
    assert torch.equal(take(q, actions), take(q[:, :, 0], actions[:, 0]))


@given(seed=seeds, shift=st.floats(-100, 100), order=st.permutations(range(B)))
@settings(max_examples=25, deadline=None)
def test_shifts_and_orders(seed: int, shift: float, order: list[int]) -> None:
    reward, discount, q, other, actions = inputs = target_inputs(seed)
    value, advantage = draw(seed, J * B, 1), draw(seed + 1, J * B, N, A)
    for kind in TARGETS:
        plain = TARGETS[kind](*inputs)
        close(TARGETS[kind](*(x[order] for x in inputs)), plain[order])
        # A constant added to rewards comes out as it is, one added to all values N·γ times.
        moved = TARGETS[kind](reward + shift, discount, q, other, actions)
        close(moved, plain + shift, rtol=1e-9)
        moved = TARGETS[kind](reward, discount, q + shift, other + shift, actions)
        close(moved, plain + (discount * N * shift)[:, None], rtol=1e-8)
        # One added to advantages disappears in the dueling mean.
        first, second = (
            TARGETS[kind](reward, discount, split_quantiles(q, J), other, actions)
            for q in (dueling(value, advantage), dueling(value, advantage + shift))
        )
        close(first, second, rtol=1e-9)


@given(seed=seeds)
@settings(max_examples=25, deadline=None)
def test_no_action_beats_each_quantile_s_own_best(seed: int) -> None:
    reward, discount, q, other, _ = target_inputs(seed)
    best = max_target(reward, discount, q)
    assert (best >= double_dqn_target(reward, discount, q, other) - 1e-12).all()
