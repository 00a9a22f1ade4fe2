"""Munchausen targets: both clamps by hand, limits, defaults, digits."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from iqn_blocks.losses import double_dqn_target, munchausen_target
from tests.losses.cases import (
    EVERYTHING,
    A,
    B,
    close,
    draw_actions,
    draw_tau,
    in_float32,
    target_inputs,
)
from tests.reference import losses as reference

FLOAT32 = torch.finfo(torch.float32)


def test_the_two_clamps_by_hand() -> None:
    # Two actions 2 apart at T = 2: log π of the worse is −1 − log(1 + e⁻¹) = −1.3133.
    now = torch.tensor([[[2.0, 0.0]]], dtype=torch.float64)
    zero, worse = torch.zeros(1, dtype=torch.float64), torch.tensor([1])
    options: dict[str, Any] = {"temperature": 2.0, "alpha": 0.9, "floor": -2.0}
    # T·log π = −2.63 is cut at −2, while log π itself is above −2.
    scaled = munchausen_target(zero, zero, now, now, worse, **options)
    assert scaled.item() == pytest.approx(0.9 * -2.0)
    plain = munchausen_target(zero, zero, now, now, worse, clamp="log_pi", **options)
    assert plain.item() == pytest.approx(0.9 * 2 * (-1 - math.log(1 + math.exp(-1))))


@pytest.mark.parametrize("clamp", ["scaled", "log_pi"])
@pytest.mark.parametrize(("floor", "temperature"), [(-1.0, 0.5), (-0.05, 0.5), (-3.0, 4.0), (0, 1)])
def test_equation_with_options(clamp: str, floor: float, temperature: float) -> None:
    options: dict[str, Any] = {"clamp": clamp, "floor": floor, "temperature": temperature}
    options["alpha"] = 0.7
    expected = reference.target("munchausen", *target_inputs(), mask=EVERYTHING, **options)
    close(munchausen_target(*target_inputs(), **options), expected)


@pytest.mark.parametrize("scale", [0.02, 50.0])  # π far from 0 and 1; the floor reached
def test_defaults_are_those_of_the_paper(scale: float) -> None:
    # arXiv:2007.14430: τ = 0.03, α = 0.9, l₀ = −1, and it clips τ·log π.
    reward, discount, q, now, actions = target_inputs()
    inputs = (reward, discount, scale * q, scale * now, actions)
    paper: dict[str, Any] = {"temperature": 0.03, "alpha": 0.9, "floor": -1.0, "clamp": "scaled"}
    expected = reference.target("munchausen", *inputs, mask=EVERYTHING, **paper)
    close(munchausen_target(*inputs), expected)


def test_tends_to_the_greedy_target_when_cold() -> None:
    reward, discount, q, other, actions = target_inputs()
    cold = munchausen_target(reward, discount, q, other, actions, temperature=1e-6, alpha=0)
    close(cold, double_dqn_target(reward, discount, q, q), rtol=1e-5)


@pytest.mark.parametrize("temperature", [1e-3, 0.03, 1.0])
@pytest.mark.parametrize("spread", [0.01, 1.0, 1e4])
def test_large_values_and_low_temperatures_keep_their_digits(
    temperature: float, spread: float
) -> None:
    reward, actions = torch.zeros(B), draw_actions(2, B)
    q, now = (1e4 - spread * draw_tau(seed, B, 7, A).float() for seed in (0, 1))

    def error(discount: Tensor) -> float:
        single, double = (
            munchausen_target(
                reward, discount, *values, actions, temperature=temperature, floor=-1e9
            )
            for values in ((q, now), (q.double(), now.double()))
        )
        return (single.double() - double).abs().max().item()

    assert error(torch.ones(B)) <= 1e-6 * 1e4
    # The bonus alone has digits of its own: the size of the values takes none of them.
    assert error(torch.zeros(B)) <= 1e-6 * max(spread, temperature)


@pytest.mark.parametrize("temperature", [FLOAT32.tiny, 1e30])
@pytest.mark.parametrize("clamp", ["scaled", "log_pi"])
def test_finite_at_the_ends_of_its_options(temperature: float, clamp: str) -> None:
    reward, discount, q, now, actions = in_float32(target_inputs())
    options: dict[str, Any] = {"temperature": temperature, "clamp": clamp, "floor": -FLOAT32.max}
    inputs = [x.requires_grad_() for x in (reward, discount, q, now)]
    target = munchausen_target(*inputs, actions, **options)
    assert target.isfinite().all()
    for gradient in torch.autograd.grad(target.sum(), inputs):
        assert gradient.isfinite().all()
