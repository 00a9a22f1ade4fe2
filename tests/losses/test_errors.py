"""What losses and targets refuse, and what they say."""

from __future__ import annotations

import math
import re
from typing import Any

import pytest
import torch

from iqn_blocks.losses import munchausen_target, quantile_huber_loss, take
from tests.losses.cases import TARGETS, A, B, J, K, N, any_kind, target_inputs

# Arguments of each target in order, as target_inputs() gives them.
NAMES = {
    "max": ("reward", "discount", "q_target"),
    "double": ("reward", "discount", "q_target", "q_online"),
    "munchausen": ("reward", "discount", "q_target_next", "q_target_now", "actions"),
}
every_argument = pytest.mark.parametrize(
    ("kind", "position"),
    [(kind, i) for kind, names in NAMES.items() for i in range(len(names))],
)


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


@pytest.mark.parametrize("name", ["pred", "target", "tau"])
def test_loss_dtypes(name: str) -> None:
    arguments = {"pred": torch.zeros(B, K), "target": torch.zeros(B, J), "tau": torch.zeros(B, K)}
    arguments[name] = arguments[name].long()
    with pytest.raises(TypeError, match=rf"{name}: expected a floating dtype, got torch\.int64"):
        quantile_huber_loss(**arguments)


@pytest.mark.parametrize("kappa", [-1.0, math.nan, math.inf, 1e300, True, "1", None])
def test_kappa(kappa: Any) -> None:
    with pytest.raises(ValueError, match=r"kappa: got .*, accepted is any number >= 0 that fits f"):
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


@pytest.mark.parametrize("dtype", [torch.bool, torch.float32, torch.complex64])
def test_action_dtype(dtype: torch.dtype) -> None:
    with pytest.raises(TypeError, match=f"actions: expected an integral dtype, got {dtype}"):
        take(torch.zeros(B, K, A), torch.zeros(B, dtype=dtype))


@pytest.mark.parametrize(("actions", "found"), [([0, 2, 3], 3), ([0, 1, -1], -1), ([0, 9, -7], 9)])
def test_actions_that_are_not_there(actions: list[int], found: int) -> None:
    message = f"actions: found {found}; accepted: 0 … 2, the 3 actions of the values; count actions"
    with pytest.raises(ValueError, match=message):
        take(torch.zeros(B, K, A), torch.tensor(actions))


@every_argument
def test_target_dtypes(kind: str, position: int) -> None:
    inputs, name = list(target_inputs()), NAMES[kind][position]
    if name == "actions":
        inputs[position], wants = inputs[position].double(), "an integral dtype, got torch.float64"
    else:
        inputs[position], wants = inputs[position].long(), "a floating dtype, got torch.int64"
    with pytest.raises(TypeError, match=f"{name}: expected {wants}"):
        TARGETS[kind](*inputs)


@every_argument
def test_target_shapes(kind: str, position: int) -> None:
    inputs, name = list(target_inputs()), NAMES[kind][position]
    shapes: list[tuple[int, ...]]
    if name.startswith("q"):
        shapes = [(B, A), (B, 0, N, A), (B, J, 0, A), (B, J, N, 0), (B, J, 1, N, A)]
        message = r"expected \(B, K, A\).*K, N, A >= 1, got {}; functional.split_quantiles"
    elif name == "actions":
        shapes, message = [(B,), (B, 1), (1, N)], r"expected \(3, 2\) for q_target_now .*, got {}"
    else:
        shapes, message = (
            [(), (1,), (B, 1)],
            r"expected \(3,\) for q_target\w* \(3, 5, 2, 3\), got {}",
        )
    for shape in shapes:
        inputs[position] = torch.zeros(shape, dtype=inputs[position].dtype)
        with pytest.raises(ValueError, match=f"{name}: {message.format(re.escape(str(shape)))}"):
            TARGETS[kind](*inputs)


def test_the_batch_of_the_values_decides() -> None:
    inputs = list(target_inputs())
    inputs[2] = inputs[2][:1]
    with pytest.raises(ValueError, match=r"reward: expected \(1,\) for q_target \(1, 5, 2, 3\)"):
        TARGETS["max"](*inputs)


@pytest.mark.parametrize("kind", ["double", "munchausen"])
@pytest.mark.parametrize("shape", [(B, K, N, 1), (B, K, 1, A), (1, K, N, A), (B, K, A)])
def test_values_of_two_networks_agree_in_shape(kind: str, shape: tuple[int, ...]) -> None:
    inputs = list(target_inputs())
    inputs[3] = torch.zeros(shape)
    message = rf"{NAMES[kind][3]}: .* may differ from q_target\w* \(3, 5, 2, 3\) only in the number"
    with pytest.raises(ValueError, match=message):
        TARGETS[kind](*inputs)


@any_kind
@pytest.mark.parametrize("shape", [(B, 1), (1, A), (B, 1, A), (B, J, N, A), (A,)])
def test_mask_shapes(kind: str, shape: tuple[int, ...]) -> None:
    message = r"mask: expected \(3, 3\) or \(3, 2, 3\) for q_target\w* \(3, 5, 2, 3\), got"
    with pytest.raises(ValueError, match=message):
        TARGETS[kind](*target_inputs(), torch.ones(shape, dtype=torch.bool))


def test_a_mask_is_boolean() -> None:
    mask = torch.ones(B, N, A)
    for kind in TARGETS:
        with pytest.raises(TypeError, match=r"mask: expected torch.bool \(True = allowed\), got t"):
            TARGETS[kind](*target_inputs(), mask)
    with pytest.raises(TypeError, match=r"mask_now: expected torch.bool"):
        munchausen_target(*target_inputs(), mask_now=mask)


@pytest.mark.parametrize(
    ("option", "values", "accepted"),
    [
        ("temperature", (0.0, -0.1, 1e-300, 1e300, math.inf, math.nan), "from 1.18e-38 to 1e+30"),
        ("alpha", (-0.1, 1e300, math.nan, True), "any number >= 0 that fits float32"),
        ("floor", (0.5, -1e300, -math.inf, True), "any number <= 0 that fits float32"),
        ("clamp", ("both",), "'scaled' or 'log_pi'"),
    ],
)
def test_munchausen_options(option: str, values: tuple[Any, ...], accepted: str) -> None:
    for value in values:
        message = f"{option}: got {re.escape(repr(value))}, accepted is .*{re.escape(accepted)}"
        with pytest.raises(ValueError, match=message):
            TARGETS["munchausen"](*target_inputs(), **{option: value})
