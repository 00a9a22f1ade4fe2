"""Losses and targets against loops over their equations, and what must hold for any input."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from itertools import product
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from iqn_blocks.functional import dueling, split_quantiles
from iqn_blocks.losses import (
    double_dqn_target,
    max_target,
    munchausen_target,
    quantile_huber_loss,
    take,
)

B, K, J, A, N = 3, 4, 5, 3, 2  # J target quantiles


def draw(seed: int, *shape: int, dtype: torch.dtype = torch.float64, scale: float = 2.0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return scale * torch.randn(shape, generator=generator, dtype=dtype)


def draw_tau(seed: int, *shape: int) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def draw_actions(seed: int, *shape: int) -> Tensor:
    return torch.randint(A, shape, generator=torch.Generator().manual_seed(seed))


def close(actual: Tensor, expected: Tensor, rtol: float = 1e-10) -> None:
    torch.testing.assert_close(actual, expected, rtol=rtol, atol=rtol)


# ---------------------------------------------------------------------- loops, one number at a time


def loop_loss(pred: Tensor, target: Tensor, tau: Tensor, kappa: float) -> Tensor:
    losses = []
    for b in range(pred.shape[0]):
        total = 0.0
        for j in range(target.shape[1]):
            for i in range(pred.shape[1]):
                delta = target[b, j].item() - pred[b, i].item()
                size = abs(delta)
                huber = delta**2 / (2 * kappa) if size < kappa else size - kappa / 2
                total += abs(tau[b, i].item() - (delta < 0)) * huber
        losses.append(total / target.shape[1])
    return torch.tensor(losses, dtype=torch.float64)


def policy(values: list[float], temperature: float, allowed: list[bool]) -> list[float]:
    """Log-probabilities of the allowed actions, −inf for the others."""
    top = max(value for value, ok in zip(values, allowed, strict=True) if ok)
    total = sum(
        math.exp((value - top) / temperature)
        for value, ok in zip(values, allowed, strict=True)
        if ok
    )
    return [
        (value - top) / temperature - math.log(total) if ok else -math.inf
        for value, ok in zip(values, allowed, strict=True)
    ]


def loop_target(
    kind: str,
    reward: Tensor,
    discount: Tensor,
    q: Tensor,
    other: Tensor,
    actions: Tensor,
    mask: Tensor,
    *,
    temperature: float = 0.5,
    alpha: float = 0.9,
    floor: float = -1.0,
    clamp: str = "scaled",
) -> Tensor:
    """Any of the three targets; ``other`` is ``q_online`` or ``q_target_now``. All are 4-D here."""
    batch, quantiles, offsets, n_actions = q.shape
    result = torch.zeros(batch, quantiles, dtype=torch.float64)
    for b, j in product(range(batch), range(quantiles)):
        value, bonus = 0.0, 0.0
        for n in range(offsets):
            allowed = [a for a in range(n_actions) if mask[b, n, a]]
            means = other[b, :, n].mean(0).tolist()
            if kind == "max":
                value += max(q[b, j, n, a].item() for a in allowed)
            elif kind == "double":
                value += q[b, j, n, max(allowed, key=means.__getitem__)].item()
            else:
                log_pi = policy(q[b, :, n].mean(0).tolist(), temperature, mask[b, n].tolist())
                for a in allowed:
                    value += math.exp(log_pi[a]) * (q[b, j, n, a].item() - temperature * log_pi[a])
                now = policy(means, temperature, [True] * n_actions)[actions[b, n]]
                if clamp == "scaled":
                    bonus += alpha * min(max(temperature * now, floor), 0.0)
                else:
                    bonus += alpha * temperature * min(max(now, floor), 0.0)
        result[b, j] = reward[b].item() + bonus + discount[b].item() * value
    return result


def call_target(
    kind: str,
    reward: Tensor,
    discount: Tensor,
    q: Tensor,
    other: Tensor,
    actions: Tensor,
    mask: Tensor | None = None,
    **options: Any,
) -> Tensor:
    if kind == "max":
        return max_target(reward, discount, q, mask=mask)
    if kind == "double":
        return double_dqn_target(reward, discount, q, other, mask=mask)
    options = {"temperature": 0.5, **options}
    return munchausen_target(reward, discount, q, other, actions, mask=mask, **options)


TARGETS = ("max", "double", "munchausen")


def target_inputs(seed: int = 0, offsets: int = N) -> tuple[Tensor, ...]:
    """Reward, discount, next values, the other values (of another K), actions."""
    discount = torch.tensor([0.99, 0.0, 0.5], dtype=torch.float64)
    return (
        draw(seed, B),
        discount,
        draw(seed + 1, B, J, offsets, A),
        draw(seed + 2, B, K, offsets, A),
        draw_actions(seed + 3, B, offsets),
    )


def some_mask(seed: int = 0) -> Tensor:
    """A mask with at least one allowed action at every offset."""
    mask = torch.rand(B, N, A, generator=torch.Generator().manual_seed(seed)) < 0.5
    return mask.index_fill(2, torch.tensor([seed % A]), True)


# --------------------------------------------------------------------------------- quantile Huber


@pytest.mark.parametrize("kappa", [1e-3, 0.5, 1.0, 3.0])
def test_loss_is_its_equation(kappa: float) -> None:
    pred, target, tau = draw(0, B, K), draw(1, B, J), draw_tau(2, B, K)
    close(quantile_huber_loss(pred, target, tau, kappa=kappa), loop_loss(pred, target, tau, kappa))


def test_loss_by_hand() -> None:
    # δ = 2, above κ = 1: ¼ · 1.5. δ = −½, below: ¾ · ⅛. Summed over i alone, averaged over j.
    pred = torch.tensor([[1.0, 1.0]], dtype=torch.float64)
    target = torch.tensor([[3.0, 0.5]], dtype=torch.float64)
    tau = torch.tensor([[0.25, 0.25]], dtype=torch.float64)
    by_hand = 2 * (0.25 * 1.5 + 0.75 * 0.125) / 2
    close(quantile_huber_loss(pred, target, tau), torch.tensor([by_hand], dtype=torch.float64))


def test_pinball_loss() -> None:
    pred, target, tau = draw(0, B, K), draw(1, B, J), draw_tau(2, B, K)
    delta = target[:, None, :] - pred[:, :, None]
    pinball = torch.maximum(tau[:, :, None] * delta, (tau[:, :, None] - 1) * delta)
    close(quantile_huber_loss(pred, target, tau, kappa=0), pinball.sum(1).mean(1))


def test_minimum_is_the_quantile() -> None:
    # The constant with the least pinball loss onto 0, 1, …, 9 at τ = 0.25 is the quantile, 2.
    target = torch.arange(10.0)[None]
    candidates = torch.linspace(-1, 10, 111)
    losses = [
        quantile_huber_loss(c.view(1, 1), target, torch.tensor([[0.25]]), kappa=0).item()
        for c in candidates
    ]
    best = candidates[losses.index(min(losses))]
    assert best.item() == pytest.approx(2.0, abs=1e-6)


@pytest.mark.parametrize("kappa", [0.0, 0.7])
def test_loss_gradient(kappa: float) -> None:
    pred, target, tau = draw(0, B, K).requires_grad_(), draw(1, B, J), draw_tau(2, B, K)
    assert torch.autograd.gradcheck(
        lambda p: quantile_huber_loss(p, target, tau, kappa=kappa), (pred,)
    )


@pytest.mark.parametrize("kappa", [0.0, 1e-45, 1e-12, 1.0])
def test_gradients_are_finite_at_the_kinks_and_far_away(kappa: float) -> None:
    pred = torch.tensor([[0.0, 1.0, -1.0, 1e30]], requires_grad=True)
    target = torch.tensor([[0.0, 1.0, -1e30]])
    quantile_huber_loss(pred, target, torch.full((1, 4), 0.5), kappa=kappa).sum().backward()
    assert pred.grad is not None
    assert pred.grad.isfinite().all()
    assert pred.grad[0, 3] == 0.5  # far above every target: slope 1 − τ


def test_the_two_branches_join_at_kappa() -> None:
    pred = torch.tensor([[-0.5]], dtype=torch.float64, requires_grad=True)
    loss = quantile_huber_loss(pred, torch.zeros(1, 1), torch.full((1, 1), 0.25), kappa=0.5)
    loss.sum().backward()
    close(loss, torch.tensor([0.25 * 0.25], dtype=torch.float64))
    assert pred.grad is not None
    assert pred.grad.item() == -0.25


def test_target_is_detached() -> None:
    pred, target = draw(0, B, K).requires_grad_(), draw(1, B, J).requires_grad_()
    quantile_huber_loss(pred, target, draw_tau(2, B, K)).sum().backward()
    assert pred.grad is not None
    assert target.grad is None


def test_tau_with_a_trailing_axis() -> None:
    pred, target, tau = draw(0, B, K), draw(1, B, J), draw_tau(2, B, K)
    plain = quantile_huber_loss(pred, target, tau)
    assert torch.equal(quantile_huber_loss(pred, target, tau[:, :, None]), plain)


def test_tau_of_a_network_fits_once_split() -> None:
    # Row k·B + b belongs to quantile k of sample b.
    rows = torch.arange(K * B, dtype=torch.float64)[:, None] / (K * B)
    tau = split_quantiles(rows, K)
    pred, target = draw(0, B, K), draw(1, B, J)
    by_row = torch.tensor([[rows[k * B + b, 0] for k in range(K)] for b in range(B)])
    close(quantile_huber_loss(pred, target, tau), loop_loss(pred, target, by_row, 1.0))


def test_empty_batch() -> None:
    empty = torch.empty(0, K)
    assert quantile_huber_loss(empty, torch.empty(0, J), empty).shape == (0,)
    values, none = torch.empty(0, J, A), torch.empty(0)
    assert max_target(none, none, values).shape == (0, J)
    assert double_dqn_target(none, none, values, values).shape == (0, J)
    actions = torch.empty(0, dtype=torch.long)
    assert munchausen_target(none, none, values, values, actions).shape == (0, J)


# ------------------------------------------------------------------------------------------- take


def test_take_by_hand() -> None:
    q = torch.arange(2 * 2 * 3.0).view(2, 2, 3)
    assert take(q, torch.tensor([2, 0])).tolist() == [[2.0, 5.0], [6.0, 9.0]]


def test_take_sums_the_offsets_of_a_block() -> None:
    q = torch.arange(2 * 2 * 2 * 3.0).view(2, 2, 2, 3)
    actions = torch.tensor([[2, 0], [1, 1]])
    # sample 0: q[0, k, 0, 2] + q[0, k, 1, 0]; sample 1: q[1, k, 0, 1] + q[1, k, 1, 1]
    assert take(q, actions).tolist() == [[2.0 + 3.0, 8.0 + 9.0], [13.0 + 16.0, 19.0 + 22.0]]


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int32, torch.int64])
def test_actions_may_have_any_integral_dtype(dtype: torch.dtype) -> None:
    q, actions = draw(0, B, K, A), draw_actions(1, B)
    assert torch.equal(take(q, actions.to(dtype)), take(q, actions))


def test_take_gradient() -> None:
    q = draw(0, B, K, N, A).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: take(x, draw_actions(1, B, N)), (q,))


# ---------------------------------------------------------------------------------------- targets


@pytest.mark.parametrize("kind", TARGETS)
@pytest.mark.parametrize("masked", [False, True])
def test_target_is_its_equation(kind: str, masked: bool) -> None:
    inputs = target_inputs()
    mask = some_mask(1) if masked else torch.ones(B, N, A, dtype=torch.bool)
    close(
        call_target(kind, *inputs, mask if masked else None), loop_target(kind, *inputs, mask=mask)
    )


@pytest.mark.parametrize("kind", TARGETS)
def test_one_offset_equals_a_single_action(kind: str) -> None:
    reward, discount, q, other, actions = target_inputs(offsets=1)
    block = call_target(kind, reward, discount, q, other, actions)
    single = call_target(kind, reward, discount, q.squeeze(2), other.squeeze(2), actions.squeeze(1))
    assert torch.equal(block, single)
    assert torch.equal(take(q, actions), take(q.squeeze(2), actions.squeeze(1)))


@pytest.mark.parametrize("kind", TARGETS)
def test_a_block_is_the_sum_of_its_offsets(kind: str) -> None:
    reward, discount, q, other, actions = target_inputs()
    block = call_target(kind, reward, discount, q, other, actions)
    zero = torch.zeros_like(reward)
    parts = sum(
        call_target(kind, zero, discount, q[:, :, n], other[:, :, n], actions[:, n])
        for n in range(N)
    )
    close(block, reward[:, None] + parts)


def test_max_is_taken_for_each_quantile_and_double_dqn_on_the_mean() -> None:
    q = torch.tensor([[[0.0, 3.0], [8.0, 1.0]]])  # means 4 and 2
    reward, discount = torch.tensor([1.0]), torch.tensor([0.5])
    assert max_target(reward, discount, q).tolist() == [[2.5, 5.0]]
    assert double_dqn_target(reward, discount, q, q).tolist() == [[1.0, 5.0]]
    online = torch.tensor([[[0.0, 1.0]]])
    assert double_dqn_target(reward, discount, q, online).tolist() == [[2.5, 1.5]]


@pytest.mark.parametrize("clamp", ["scaled", "log_pi"])
@pytest.mark.parametrize(("floor", "temperature"), [(-1.0, 0.5), (-0.05, 0.5), (-3.0, 4.0), (0, 1)])
def test_munchausen_clamps(clamp: str, floor: float, temperature: float) -> None:
    inputs = target_inputs()
    options: dict[str, Any] = {"clamp": clamp, "floor": floor, "temperature": temperature}
    options["alpha"] = 0.7
    everything = torch.ones(B, N, A, dtype=torch.bool)
    close(
        munchausen_target(*inputs, **options),
        loop_target("munchausen", *inputs, mask=everything, **options),
    )


def test_the_two_clamps_by_hand() -> None:
    # Two actions 2 apart at T = 2: log π of the worse is −1 − log(1 + e⁻¹) = −1.3133.
    now = torch.tensor([[[2.0, 0.0]]], dtype=torch.float64)
    zero = torch.zeros(1, dtype=torch.float64)
    worse = torch.tensor([1])
    log_pi = -1 - math.log(1 + math.exp(-1))
    common: dict[str, Any] = {"temperature": 2.0, "alpha": 0.9}
    scaled = munchausen_target(zero, zero, now, now, worse, floor=-2.0, **common)
    assert scaled.item() == pytest.approx(0.9 * -2.0)  # 2 log π = −2.63, cut at −2
    plain = munchausen_target(zero, zero, now, now, worse, floor=-2.0, clamp="log_pi", **common)
    assert plain.item() == pytest.approx(0.9 * 2 * log_pi)  # log π = −1.31 is above −2


@pytest.mark.parametrize("temperature", [torch.finfo(torch.float32).tiny, 1e30])
@pytest.mark.parametrize("clamp", ["scaled", "log_pi"])
def test_munchausen_is_finite_at_the_ends_of_its_options(temperature: float, clamp: str) -> None:
    reward, discount, q, now, actions = (
        x.float().requires_grad_() if x.is_floating_point() else x for x in target_inputs()
    )
    floor = -torch.finfo(torch.float32).max
    options: dict[str, Any] = {"temperature": temperature, "clamp": clamp, "floor": floor}
    target = munchausen_target(reward, discount, q, now, actions, **options)
    assert target.isfinite().all()
    for gradient in torch.autograd.grad(target.sum(), (reward, discount, q, now)):
        assert gradient.isfinite().all()


def test_munchausen_tends_to_the_greedy_target_when_cold() -> None:
    reward, discount, q, other, actions = target_inputs()
    cold = munchausen_target(reward, discount, q, other, actions, temperature=1e-6, alpha=0)
    close(cold, double_dqn_target(reward, discount, q, q), rtol=1e-5)


@pytest.mark.parametrize("temperature", [1e-3, 0.03, 1.0])
@pytest.mark.parametrize("spread", [0.01, 1.0, 1e4])
def test_munchausen_is_stable_for_large_values_and_low_temperatures(
    temperature: float, spread: float
) -> None:
    reward, discount, actions = torch.zeros(B), torch.ones(B), draw_actions(2, B)
    q, now = (1e4 - spread * draw_tau(seed, B, 7, A).float() for seed in (0, 1))

    def target(q: Tensor, now: Tensor, discount: Tensor) -> Tensor:
        return munchausen_target(
            reward, discount, q, now, actions, temperature=temperature, floor=-1e9
        )

    exact = target(q.double(), now.double(), discount)
    assert (target(q, now, discount).double() - exact).abs().max().item() <= 1e-6 * 1e4
    # The bonus alone has digits of its own: the size of the values takes none of them.
    bonus, exact = target(q, now, 0 * discount), target(q.double(), now.double(), 0 * discount)
    error = (bonus.double() - exact).abs().max().item()
    assert error <= 1e-6 * max(spread, temperature)


@pytest.mark.parametrize("kind", TARGETS)
def test_half_precision_values_are_computed_in_float32(kind: str) -> None:
    reward, discount, q, other, actions = target_inputs()
    inputs = [x.half() for x in (reward, discount, 1e3 * q, 1e3 * other)]
    assert inputs[2].isfinite().all()
    exact = call_target(kind, *(x.float() for x in inputs), actions)
    with torch.autocast("cpu", dtype=torch.float16):
        under_autocast = call_target(kind, *inputs, actions)
    assert under_autocast.dtype == torch.float32
    assert torch.equal(under_autocast, exact)


def test_half_precision_loss_is_computed_in_float32() -> None:
    # Values near 6e4, whose differences overflow float16 as soon as they are squared or summed.
    pred = torch.tensor([[6e4, -6e4]], dtype=torch.float16, requires_grad=True)
    target = torch.tensor([[-6e4, 6e4]], dtype=torch.float16)
    tau = torch.tensor([[0.25, 0.75]])
    with torch.autocast("cpu", dtype=torch.float16):
        loss = quantile_huber_loss(pred, target, tau)
    exact = quantile_huber_loss(pred.detach().float(), target.float(), tau)
    assert loss.dtype == torch.float32
    assert torch.equal(loss.detach(), exact)
    loss.sum().backward()
    assert pred.grad is not None
    assert pred.grad.isfinite().all()
    q = torch.full((1, 1, 4, 2), 6e4, dtype=torch.float16)
    assert take(q, torch.zeros(1, 4, dtype=torch.long)).item() == 4 * q[0, 0, 0, 0].item()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_reward_dtype_does_not_widen_the_result(dtype: torch.dtype) -> None:
    _, _, q, other, actions = target_inputs()
    reward, discount = draw(0, B), draw(1, B)  # float64, as numpy gives them
    for kind in TARGETS:
        result = call_target(kind, reward, discount, q.to(dtype), other.to(dtype), actions)
        assert result.dtype == torch.float32


# ------------------------------------------------------------------------------------------ masks


@pytest.mark.parametrize("kind", TARGETS)
@pytest.mark.parametrize("hidden", [math.nan, math.inf, -math.inf, 1e38])
def test_what_a_forbidden_action_holds_never_matters(kind: str, hidden: float) -> None:
    reward, discount, q, other, actions = (
        x.float() if x.is_floating_point() else x for x in target_inputs()
    )
    mask = some_mask(1)
    clean = call_target(kind, reward, discount, q, other, actions, mask)
    q = q.masked_fill(~mask[:, None], hidden)
    if kind == "double":
        other = other.masked_fill(~mask[:, None], hidden)
    dirty = call_target(kind, reward, discount, q, other, actions, mask)
    close(dirty, clean, rtol=1e-6)


@pytest.mark.parametrize("kind", TARGETS)
def test_a_mask_for_all_offsets(kind: str) -> None:
    inputs = target_inputs()
    mask = torch.tensor([[True, False, True], [False, True, False], [True, True, True]])
    shared = call_target(kind, *inputs, mask)
    assert torch.equal(shared, call_target(kind, *inputs, mask[:, None].expand(B, N, A)))


@pytest.mark.parametrize("kind", TARGETS)
@pytest.mark.parametrize("hidden", [0.0, math.nan])
def test_a_state_without_any_allowed_action_is_worth_zero(kind: str, hidden: float) -> None:
    reward, _, q, other, actions = target_inputs()
    mask = torch.ones(B, N, A, dtype=torch.bool)
    mask[1] = False
    q[1] += hidden
    for discount in (torch.zeros(B), torch.ones(B)):
        result = call_target(kind, reward, discount, q, other, actions, mask, alpha=0)
        close(result[1], reward[1].expand(J))


@pytest.mark.parametrize("kind", TARGETS)
@pytest.mark.parametrize("wild", [math.nan, math.inf, -math.inf, 3e38])
@pytest.mark.parametrize("masked", [False, True])
def test_a_terminal_state_is_worth_zero_whatever_its_values(
    kind: str, wild: float, masked: bool
) -> None:
    # Sample 1 is terminal (γ = 0). The sum of two offsets of 3e38 overflows float32.
    reward, discount, q, other, actions = (
        x.float() if x.is_floating_point() else x for x in target_inputs()
    )
    mask = some_mask() if masked else None
    calm = call_target(kind, reward, discount, q, other, actions, mask, alpha=0)
    q[1] = wild
    q.requires_grad_()
    if kind == "double":
        other[1] = wild
    result = call_target(kind, reward, discount, q, other, actions, mask, alpha=0)
    (gradient,) = torch.autograd.grad(result.sum(), q)
    assert (result[1] == reward[1]).all()
    assert torch.equal(result.detach(), calm)
    assert (gradient[1] == 0).all()
    assert gradient.isfinite().all()
    assert gradient[0].any()


def test_masked_action_values_at_the_state_itself() -> None:
    reward, discount, q, now, actions = target_inputs()
    mask = some_mask(1).scatter(2, actions[:, :, None], True)
    masked = munchausen_target(
        reward, discount, q, now.masked_fill(~mask[:, None], math.nan), actions, mask_now=mask
    )
    # The same bonus as with the forbidden actions far below the others.
    low = now.masked_fill(~mask[:, None], -1e6)
    close(masked, munchausen_target(reward, discount, q, low, actions))


def test_a_forbidden_action_taken_gets_the_lowest_bonus() -> None:
    reward, discount, q, now, actions = target_inputs()
    mask = torch.ones(B, N, A, dtype=torch.bool).scatter(2, actions[:, :, None], False)
    bonus = (
        munchausen_target(reward, 0 * discount, q, now, actions, mask_now=mask) - reward[:, None]
    )
    close(bonus, torch.full_like(bonus, -0.9 * N))


def test_masked_gradients_are_finite() -> None:
    reward, discount, q, other, actions = target_inputs()
    q.requires_grad_()
    mask = some_mask(1)
    mask[2] = False
    for kind in TARGETS:
        (gradient,) = torch.autograd.grad(
            call_target(kind, reward, discount, q, other, actions, mask).sum(), q
        )
        assert gradient.isfinite().all()
        assert (gradient.masked_select(~mask[:, None].expand_as(gradient)) == 0).all()


# -------------------------------------------------------------------------------------- properties

seeds = st.integers(0, 2**31)


@given(seed=seeds, order=st.permutations(range(K)), target_order=st.permutations(range(J)))
@settings(max_examples=25, deadline=None)
def test_order_of_quantiles_does_not_matter(
    seed: int, order: list[int], target_order: list[int]
) -> None:
    pred, target, tau = draw(seed, B, K), draw(seed + 1, B, J), draw_tau(seed + 2, B, K)
    loss = quantile_huber_loss(pred, target, tau)
    close(quantile_huber_loss(pred[:, order], target[:, target_order], tau[:, order]), loss)


@given(seed=seeds, order=st.permutations(range(B)))
@settings(max_examples=25, deadline=None)
def test_samples_do_not_mix(seed: int, order: list[int]) -> None:
    pred, target, tau = draw(seed, B, K), draw(seed + 1, B, J), draw_tau(seed + 2, B, K)
    close(
        quantile_huber_loss(pred[order], target[order], tau[order]),
        quantile_huber_loss(pred, target, tau)[order],
    )
    inputs = target_inputs(seed)
    for kind in TARGETS:
        permuted = call_target(kind, *(x[order] for x in inputs))
        close(permuted, call_target(kind, *inputs)[order])


@given(seed=seeds, shift=st.floats(-100, 100))
@settings(max_examples=25, deadline=None)
def test_shifting_rewards_shifts_targets(seed: int, shift: float) -> None:
    reward, *rest = target_inputs(seed)
    for kind in TARGETS:
        moved = call_target(kind, reward + shift, *rest)
        close(moved, call_target(kind, reward, *rest) + shift, rtol=1e-9)
    pred, target, tau = draw(seed, B, K), draw(seed + 1, B, J), draw_tau(seed + 2, B, K)
    close(
        quantile_huber_loss(pred + shift, target + shift, tau),
        quantile_huber_loss(pred, target, tau),
        rtol=1e-9,
    )


@given(seed=seeds, shift=st.floats(-100, 100))
@settings(max_examples=25, deadline=None)
def test_adding_a_constant_to_advantages_changes_nothing(seed: int, shift: float) -> None:
    reward, discount, _, other, actions = target_inputs(seed)
    value, advantage = draw(seed, J * B, 1), draw(seed + 1, J * B, N, A)
    plain, moved = (
        split_quantiles(dueling(value, adv), J) for adv in (advantage, advantage + shift)
    )
    for kind in TARGETS:
        close(
            call_target(kind, reward, discount, moved, other, actions),
            call_target(kind, reward, discount, plain, other, actions),
            rtol=1e-9,
        )
    close(take(moved, actions), take(plain, actions), rtol=1e-9)


@given(seed=seeds, shift=st.floats(-100, 100))
@settings(max_examples=25, deadline=None)
def test_adding_a_constant_to_values_adds_its_discount(seed: int, shift: float) -> None:
    reward, discount, q, other, actions = target_inputs(seed)
    for kind in TARGETS:
        moved = call_target(kind, reward, discount, q + shift, other + shift, actions)
        plain = call_target(kind, reward, discount, q, other, actions)
        close(moved, plain + (discount * N * shift)[:, None], rtol=1e-8)


@given(seed=seeds, kappa=st.floats(0, 1e-3))
@settings(max_examples=25, deadline=None)
def test_loss_tends_to_pinball(seed: int, kappa: float) -> None:
    pred, target, tau = draw(seed, B, K), draw(seed + 1, B, J), draw_tau(seed + 2, B, K)
    difference = quantile_huber_loss(pred, target, tau, kappa=0) - quantile_huber_loss(
        pred, target, tau, kappa=kappa
    )
    # 0 ≤ |δ| − L_κ(δ) ≤ κ/2 for each of the K summed pairs.
    assert (difference >= -1e-12).all()
    assert (difference <= K * kappa / 2 + 1e-12).all()


@given(seed=seeds)
@settings(max_examples=25, deadline=None)
def test_targets_are_ordered(seed: int) -> None:
    # No action beats each quantile's own best one.
    reward, discount, q, other, _ = target_inputs(seed)
    best = max_target(reward, discount, q)
    assert (best >= double_dqn_target(reward, discount, q, other) - 1e-12).all()


@given(seed=seeds, kappa=st.floats(0, 10))
@settings(max_examples=25, deadline=None)
def test_loss_is_never_negative_and_zero_only_on_target(seed: int, kappa: float) -> None:
    pred, target, tau = draw(seed, B, K), draw(seed + 1, B, J), draw_tau(seed + 2, B, K)
    assert (quantile_huber_loss(pred, target, tau, kappa=kappa) > 0).all()
    same = pred[:, :1].expand(B, K)
    assert (quantile_huber_loss(same, pred[:, :1], tau, kappa=kappa) == 0).all()


# ---------------------------------------------------------------------------------- compile, vmap

COMPILED: dict[str, Callable[..., Tensor]] = {
    "loss": lambda r, d, q, o, a, m: quantile_huber_loss(
        q[:, :, 0, 0], o[:, :, 0, 0], q[:, :, 0, :1].sigmoid()
    ),
    "pinball": lambda r, d, q, o, a, m: quantile_huber_loss(
        q[:, :, 0, 0], o[:, :, 0, 0], q[:, :, 0, 0].sigmoid(), kappa=0
    ),
    "take": lambda r, d, q, o, a, m: take(q, a),
    "max": lambda r, d, q, o, a, m: max_target(r, d, q, mask=m),
    "double": lambda r, d, q, o, a, m: double_dqn_target(r, d, q, o, mask=m),
    "munchausen": lambda r, d, q, o, a, m: munchausen_target(r, d, q, o, a, mask=m, mask_now=m),
}


@pytest.mark.parametrize("name", COMPILED)
@pytest.mark.parametrize("dynamic", [False, True])
def test_compiles_to_one_graph(name: str, dynamic: bool) -> None:
    function = COMPILED[name]
    compiled = torch.compile(function, fullgraph=True, backend="eager", dynamic=dynamic)
    inputs = target_inputs()
    assert torch.equal(compiled(*inputs, some_mask()), function(*inputs, some_mask()))


def test_compiles_with_inductor() -> None:
    def step(reward: Tensor, discount: Tensor, q: Tensor, now: Tensor, actions: Tensor) -> Tensor:
        target = munchausen_target(reward, discount, q, now, actions)
        return quantile_huber_loss(take(now, actions), target, now[:, :, 0, 0].sigmoid())

    inputs = [x.float() if x.is_floating_point() else x for x in target_inputs()]
    results = []
    for function in (step, torch.compile(step, fullgraph=True)):
        now = inputs[3].clone().requires_grad_()
        loss = function(*inputs[:3], now, inputs[4])
        loss.sum().backward()
        assert now.grad is not None
        results.append((loss.detach(), now.grad))
    close(results[1][0], results[0][0], rtol=1e-5)
    close(results[1][1], results[0][1], rtol=1e-5)


def test_vmap_over_an_ensemble() -> None:
    pred, target, tau = draw(0, 5, B, K), draw(1, 5, B, J), draw_tau(2, 5, B, K)
    stacked = torch.vmap(quantile_huber_loss)(pred, target, tau)
    close(
        stacked, torch.stack([quantile_huber_loss(*x) for x in zip(pred, target, tau, strict=True)])
    )


# ------------------------------------------------------------------------------------------ errors


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        (((B, K, 1), (B, J), (B, K)), r"pred: expected \(B, K\).*got \(3, 4, 1\)"),
        (((B, 0), (B, J), (B, 0)), r"pred: .*K >= 1"),
        (((B, K), (1, J), (B, K)), r"target: expected \(3, K'\).*pred \(3, 4\), got \(1, 5\)"),
        (((B, K), (J,), (B, K)), r"target: .*got \(5,\)"),
        (((B, K), (B, 0), (B, K)), r"target: .*K' >= 1"),
        (((B, K), (B, J), (B, 1)), r"tau: expected \(3, 4\) or \(3, 4, 1\).*got \(3, 1\)"),
        (((B, K), (B, J), (1, K)), r"tau: .*got \(1, 4\)"),
        (((B, K), (B, J), (K * B, 1)), r"tau: .*got \(12, 1\); .*split_quantiles"),
    ],
)
def test_loss_shapes(shapes: tuple[tuple[int, ...], ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        quantile_huber_loss(*(torch.zeros(shape) for shape in shapes))


@pytest.mark.parametrize("argument", range(3))
def test_loss_dtypes(argument: int) -> None:
    arguments = [torch.zeros(B, K) for _ in range(3)]
    arguments[argument] = arguments[argument].long()
    name = ("pred", "target", "tau")[argument]
    with pytest.raises(TypeError, match=f"{name}: expected a floating dtype, got torch.int64"):
        quantile_huber_loss(*arguments)


@pytest.mark.parametrize("kappa", [-1.0, math.nan, math.inf, 1e300, True, "1", None])
def test_kappa(kappa: Any) -> None:
    with pytest.raises(
        ValueError, match=r"kappa: got .*, accepted is any number >= 0 that fits float32"
    ):
        quantile_huber_loss(torch.zeros(B, K), torch.zeros(B, J), torch.zeros(B, K), kappa=kappa)


@pytest.mark.parametrize(
    ("q_shape", "action_shape", "message"),
    [
        ((B, K, A), (B, 1), r"actions: expected \(3,\) for q \(3, 4, 3\), got \(3, 1\)"),
        ((B, K, A), (1,), r"actions: expected \(3,\).*got \(1,\)"),
        ((B, K, N, A), (B,), r"actions: expected \(3, 2\) for q \(3, 4, 2, 3\), got \(3,\)"),
        ((B, K, N, A), (B, 1), r"actions: expected \(3, 2\)"),
        ((B, A), (B,), r"q: expected \(B, K, A\).*got \(3, 3\); functional.split_quantiles"),
        ((B, K, 0), (B,), r"q: .*K, N, A >= 1.*got \(3, 4, 0\)"),
    ],
)
def test_take_shapes(q_shape: tuple[int, ...], action_shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        take(torch.zeros(q_shape), torch.zeros(action_shape, dtype=torch.long))


@pytest.mark.parametrize("dtype", [torch.bool, torch.float32])
def test_action_dtype(dtype: torch.dtype) -> None:
    with pytest.raises(TypeError, match=f"actions: expected an integral dtype, got {dtype}"):
        take(torch.zeros(B, K, A), torch.zeros(B, dtype=dtype))


@pytest.mark.parametrize("kind", TARGETS)
@pytest.mark.parametrize(
    ("position", "shape", "message"),
    [
        (0, (B, 1), r"reward: expected \(3,\) for q_target\w* \(3, 5, 2, 3\), got \(3, 1\)"),
        (0, (), r"reward: expected \(3,\).*got \(\)"),
        (1, (1,), r"discount: expected \(3,\).*got \(1,\)"),
        (2, (B, A), r"q_target\w*: expected \(B, K, A\).*got \(3, 3\)"),
        (2, (1, J, N, A), r"\(1, 5, 2, 3\)"),
    ],
)
def test_target_shapes(kind: str, position: int, shape: tuple[int, ...], message: str) -> None:
    inputs = list(target_inputs())
    inputs[position] = torch.zeros(shape)
    with pytest.raises(ValueError, match=message):
        call_target(kind, *inputs)


@pytest.mark.parametrize("kind", ["double", "munchausen"])
@pytest.mark.parametrize("shape", [(B, K, N, 1), (B, K, 1, A), (1, K, N, A), (B, K, A)])
def test_values_of_two_networks_agree_in_shape(kind: str, shape: tuple[int, ...]) -> None:
    inputs = list(target_inputs())
    inputs[3] = torch.zeros(shape)
    message = r"q_(online|target_now): .* may differ from q_target\w* \(3, 5, 2, 3\) only in"
    with pytest.raises(ValueError, match=message):
        call_target(kind, *inputs)


@pytest.mark.parametrize("kind", TARGETS)
@pytest.mark.parametrize("shape", [(B, 1), (1, A), (B, 1, A), (B, J, N, A), (A,)])
def test_mask_shapes(kind: str, shape: tuple[int, ...]) -> None:
    message = r"mask: expected \(3, 3\) or \(3, 2, 3\) for q_target\w* \(3, 5, 2, 3\), got"
    with pytest.raises(ValueError, match=message):
        call_target(kind, *target_inputs(), torch.ones(shape, dtype=torch.bool))


def test_a_mask_is_boolean() -> None:
    with pytest.raises(TypeError, match=r"mask: expected torch.bool \(True = allowed\)"):
        call_target("max", *target_inputs(), torch.ones(B, N, A))
    inputs = target_inputs()
    with pytest.raises(TypeError, match=r"mask_now: expected torch.bool"):
        munchausen_target(*inputs, mask_now=torch.ones(B, N, A))


@pytest.mark.parametrize(
    ("option", "value", "accepted"),
    [
        ("temperature", 0.0, "a number from 1.18e-38 to 1e\\+30"),
        ("temperature", -0.1, "from 1.18e-38"),
        ("temperature", 1e-300, "from 1.18e-38"),
        ("temperature", 1e300, "to 1e\\+30"),
        ("temperature", math.inf, "to 1e\\+30"),
        ("alpha", 1e300, ">= 0 that fits float32"),
        ("alpha", math.nan, ">= 0"),
        ("floor", 0.5, "<= 0"),
        ("floor", -math.inf, "<= 0"),
        ("floor", True, "<= 0"),
        ("clamp", "both", "'scaled' or 'log_pi'"),
    ],
)
def test_munchausen_options(option: str, value: Any, accepted: str) -> None:
    with pytest.raises(
        ValueError, match=rf"{option}: got {re.escape(repr(value))}, accepted is .*{accepted}"
    ):
        call_target("munchausen", *target_inputs(), **{option: value})


FLOATING_ARGUMENTS = {
    "max": ("reward", "discount", "q_target"),
    "double": ("reward", "discount", "q_target", "q_online"),
    "munchausen": ("reward", "discount", "q_target_next", "q_target_now"),
}


@pytest.mark.parametrize(
    ("kind", "position"),
    [(kind, i) for kind, names in FLOATING_ARGUMENTS.items() for i in range(len(names))],
)
def test_target_dtypes(kind: str, position: int) -> None:
    inputs = list(target_inputs())
    inputs[position] = inputs[position].long()
    name = FLOATING_ARGUMENTS[kind][position]
    with pytest.raises(TypeError, match=rf"{name}: expected a floating dtype, got torch\.int64"):
        call_target(kind, *inputs)


@pytest.mark.parametrize("kind", TARGETS)
def test_targets_without_a_quantile_action_or_offset(kind: str) -> None:
    for position, first in ((2, J), (3, K)):
        if kind == "max" and position == 3:
            continue
        for shape in ((B, 0, N, A), (B, first, 0, A), (B, first, N, 0), (B, first, 1, N, A)):
            inputs = list(target_inputs())
            inputs[position] = torch.zeros(shape)
            name = FLOATING_ARGUMENTS[kind][position]
            message = rf"{name}: expected .*K, N, A >= 1, got {re.escape(str(shape))}; .*split_q"
            with pytest.raises(ValueError, match=message):
                call_target(kind, *inputs)


def test_actions_of_munchausen_targets() -> None:
    reward, discount, q, now, actions = target_inputs()
    message = r"actions: expected \(3, 2\) for q_target_now \(3, 4, 2, 3\), got \(3, 1\)"
    with pytest.raises(ValueError, match=message):
        munchausen_target(reward, discount, q, now, actions[:, :1])
    with pytest.raises(TypeError, match=r"actions: expected an integral dtype, got torch.float64"):
        munchausen_target(reward, discount, q, now, actions.double())


def test_munchausen_defaults_are_those_of_the_paper() -> None:
    # M-IQN, arXiv:2007.14430, appendix B: τ = 0.03, α = 0.9, l₀ = −1, and it clips τ·log π.
    inputs = target_inputs()
    inputs = (*inputs[:2], 0.02 * inputs[2], 0.02 * inputs[3], inputs[4])  # π far from 0 and 1
    everything = torch.ones(B, N, A, dtype=torch.bool)
    paper: dict[str, Any] = {"temperature": 0.03, "alpha": 0.9, "floor": -1.0, "clamp": "scaled"}
    close(munchausen_target(*inputs), loop_target("munchausen", *inputs, mask=everything, **paper))
    far = (*inputs[:2], 50 * inputs[2], 50 * inputs[3], inputs[4])  # where the floor is reached
    close(munchausen_target(*far), loop_target("munchausen", *far, mask=everything, **paper))
