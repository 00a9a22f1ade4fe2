"""Distortions of τ: values by hand and against the standard library, limits, ranges, refusals."""

from __future__ import annotations

import math
import pickle
from collections.abc import Callable
from statistics import NormalDist
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from iqn_blocks.risk import cpw, cvar, neutral, norm, power, wang

Distortion = Callable[[Tensor], Tensor]

# One or more of each kind, the ends of their ranges and absurd values among them.
MONOTONE: list[Distortion] = [
    neutral,
    *(cvar(eta) for eta in (1e-6, 0.25, 1.0)),
    *(wang(eta) for eta in (-1e300, -3.0, -0.75, 0.0, 0.75, 3.0, 1e300)),
    *(cpw(eta) for eta in (0.28, 0.71, 1.0, 5.0)),
    *(power(eta) for eta in (-1e300, -2.0, 0.0, 2.0, 1e300)),
]
DISTORTIONS = [*MONOTONE, norm(1), norm(3)]
FLOATING = [torch.float16, torch.bfloat16, torch.float32, torch.float64]


def label(distortion: Distortion) -> str:
    """Its name in test ids: the same in every process, which a function's repr is not."""
    return "neutral" if distortion is neutral else repr(distortion)


def by_definition(distortion: Any, tau: float) -> float:
    eta, normal = distortion.eta, NormalDist()
    if isinstance(distortion, cvar):
        return float(eta * tau)
    if isinstance(distortion, wang):
        return normal.cdf(normal.inv_cdf(tau) + eta)
    if isinstance(distortion, cpw):
        return float(tau**eta / (tau**eta + (1 - tau) ** eta) ** (1 / eta))
    exponent = 1 / (1 + abs(eta))
    return float(tau**exponent if eta >= 0 else 1 - (1 - tau) ** exponent)


@pytest.mark.parametrize("eta", [-2.0, -0.75, -0.5, 0.28, 0.5, 0.71, 0.75, 2.0, 5.0])
@pytest.mark.parametrize("kind", [cvar, wang, cpw, power])
def test_values(kind: Any, eta: float) -> None:
    distortion = kind(min(abs(eta), 1) if kind is cvar else max(eta, 0.28) if kind is cpw else eta)
    tau = torch.linspace(0.01, 0.99, 50, dtype=torch.float64)
    expected = [by_definition(distortion, t) for t in tau.tolist()]
    assert distortion(tau).tolist() == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("distortion", [cpw(0.28), cpw(5.0), power(2.0), power(-2.0)], ids=label)
def test_values_next_to_the_ends(distortion: Any) -> None:
    tau = torch.tensor([1e-30, 1 - 2.0**-53], dtype=torch.float64)
    expected = [by_definition(distortion, t) for t in tau.tolist()]
    assert distortion(tau).tolist() == pytest.approx(expected, rel=1e-10)


def test_values_by_hand() -> None:
    half = torch.tensor([0.5], dtype=torch.float64)
    assert cvar(0.25)(half).item() == 0.125
    assert wang(0.0)(half).item() == pytest.approx(0.5)
    assert wang(1.0)(half).item() == pytest.approx(0.841345, abs=1e-6)  # Φ(1)
    assert cpw(2.0)(half).item() == pytest.approx(0.25 / math.sqrt(0.5))
    assert power(2.0)(half).item() == pytest.approx(0.5 ** (1 / 3))
    assert power(-2.0)(half).item() == pytest.approx(1 - 0.5 ** (1 / 3))
    assert neutral(half) is half


def test_averse_and_seeking() -> None:
    tau = torch.linspace(0.05, 0.95, 19)
    for averse in (cvar(0.5), wang(-0.75), power(-2.0)):
        assert (averse(tau) < tau).all()
    for seeking in (wang(0.75), power(2.0)):
        assert (seeking(tau) > tau).all()


@pytest.mark.parametrize("distortion", MONOTONE, ids=label)
@pytest.mark.parametrize("dtype", FLOATING, ids=str)
def test_limits_at_the_ends(distortion: Distortion, dtype: torch.dtype) -> None:
    low, high = distortion(torch.tensor([0.0, 1.0], dtype=dtype)).tolist()
    assert low == 0
    top = distortion.eta if isinstance(distortion, cvar) else 1.0
    assert high == torch.tensor(top, dtype=torch.float64).to(dtype).item()


@pytest.mark.parametrize("distortion", MONOTONE, ids=label)
@pytest.mark.parametrize("dtype", FLOATING, ids=str)
def test_monotone_and_inside_the_unit_interval(distortion: Distortion, dtype: torch.dtype) -> None:
    beta = distortion(torch.linspace(0, 1, 2001, dtype=dtype)).double()
    assert ((beta >= 0) & (beta <= 1)).all()
    assert (beta.diff() >= 0).all()


unit = st.floats(0, 1, width=32)


@given(first=unit, second=unit, eta=st.floats(0.28, 5), sign=st.sampled_from([-1, 1]))
@settings(max_examples=200, deadline=None)
def test_monotone_for_any_pair(first: float, second: float, eta: float, sign: int) -> None:
    tau = torch.tensor(sorted((first, second)))
    for distortion in (cvar(min(eta, 1)), wang(sign * eta), cpw(eta), power(sign * eta)):
        low, high = distortion(tau).tolist()
        assert low <= high + 2e-7  # neighbouring numbers may swap in the last place
        assert 0 <= low <= 1
        assert 0 <= high <= 1


@given(eta=st.floats(allow_nan=False, allow_infinity=False))
@settings(max_examples=200, deadline=None)
def test_wang_and_power_take_any_finite_number(eta: float) -> None:
    tau = torch.tensor([0.0, 1e-30, 0.3, 1 - 6e-8, 1.0])
    for distortion in (wang(eta), power(eta)):
        beta = distortion(tau)
        assert beta[0] == 0
        assert beta[-1] == 1
        assert ((beta >= 0) & (beta <= 1)).all()


@pytest.mark.parametrize("distortion", DISTORTIONS, ids=label)
@pytest.mark.parametrize("dtype", FLOATING, ids=str)
def test_shape_and_dtype_are_kept(distortion: Distortion, dtype: torch.dtype) -> None:
    for shape in ((), (0,), (7, 1), (2, 3, 4)):
        beta = distortion(torch.rand(shape, dtype=torch.float64).to(dtype))
        assert beta.shape == shape
        assert beta.dtype == dtype


@pytest.mark.parametrize("distortion", MONOTONE, ids=label)
def test_half_precision_is_computed_in_float32(distortion: Distortion) -> None:
    tau = torch.linspace(0, 1, 101).bfloat16()
    assert torch.equal(distortion(tau), distortion(tau.float()).bfloat16())


def test_gradients() -> None:
    tau = torch.linspace(0.05, 0.95, 7, dtype=torch.float64, requires_grad=True)
    for distortion in (cvar(0.25), wang(0.5), cpw(0.71), power(1.5), power(-1.5)):
        assert torch.autograd.gradcheck(distortion, (tau,))


@pytest.mark.parametrize("distortion", MONOTONE, ids=label)
@pytest.mark.parametrize("dtype", FLOATING, ids=str)
def test_gradients_are_finite_up_to_the_ends(distortion: Distortion, dtype: torch.dtype) -> None:
    limits = torch.finfo(dtype)
    tau = [0, limits.smallest_normal / 8, limits.tiny, limits.eps, 0.5, 1 - limits.eps / 2, 1]
    ends = torch.tensor(tau, dtype=dtype, requires_grad=True)
    (slope,) = torch.autograd.grad(distortion(ends).sum(), ends)
    assert slope.isfinite().all()
    assert (slope >= 0).all()
    if not isinstance(distortion, cvar):
        assert slope[0] == slope[-1] == 1  # the slope of τ itself


def test_norm_is_the_mean_of_uniforms() -> None:
    tau = torch.zeros(20_000, 1, dtype=torch.float64)
    for eta in (1, 3, 12):
        beta = norm(eta, torch.Generator().manual_seed(0))(tau)
        assert beta.mean().item() == pytest.approx(0.5, abs=0.01)
        assert beta.std().item() == pytest.approx(math.sqrt(1 / (12 * eta)), rel=0.03)
        assert ((beta >= 0) & (beta <= 1)).all()


def test_norm_draws_from_its_generator_or_the_global_one() -> None:
    tau = torch.full((5, 1), 0.5)
    seeded = [norm(3, torch.Generator().manual_seed(7))(tau) for _ in range(2)]
    assert torch.equal(*seeded)
    drawing = norm(3, torch.Generator().manual_seed(7))
    assert not torch.equal(drawing(tau), drawing(tau))
    torch.manual_seed(1)
    first = norm(3)(tau)
    torch.manual_seed(1)
    assert torch.equal(norm(3)(tau), first)
    assert torch.equal(norm(3, torch.Generator().manual_seed(7))(1 - tau), seeded[0])


@pytest.mark.parametrize(
    ("factory", "eta", "accepted"),
    [
        *((cvar, eta, "0 < eta <= 1") for eta in (0, -0.1, 1.01, math.nan, math.inf, True, "1")),
        *((cpw, eta, "0.28 <= eta <= 5") for eta in (0.27, 5.1, math.nan, True, None)),
        *((wang, eta, "any finite number") for eta in (math.nan, math.inf, -math.inf, False)),
        *((power, eta, "any finite number") for eta in (math.nan, math.inf, True, [1.0])),
        *((norm, eta, "a whole number >= 1") for eta in (0, -1, 2.5, math.nan, math.inf, True)),
    ],
)
def test_parameters_outside_their_range(
    factory: Callable[[Any], Distortion], eta: Any, accepted: str
) -> None:
    with pytest.raises(ValueError, match=r"eta: got .*, accepted is") as error:
        factory(eta)
    assert str(error.value) == f"eta: got {eta!r}, accepted is {accepted}"


def test_numbers_of_numpy_are_numbers() -> None:
    assert repr(cvar(np.float32(0.25))) == "cvar(eta=0.25)"
    assert repr(cpw(np.float64(0.71))) == "cpw(eta=0.71)"
    assert repr(norm(np.int64(3))) == "norm(eta=3)"  # type: ignore[arg-type]


@pytest.mark.parametrize("distortion", [d for d in DISTORTIONS if d is not neutral], ids=label)
def test_repr_can_be_pasted_back(distortion: Distortion) -> None:
    assert eval(repr(distortion)) == distortion


@pytest.mark.parametrize("distortion", DISTORTIONS, ids=label)
def test_pickles(distortion: Distortion) -> None:
    copy = pickle.loads(pickle.dumps(distortion))
    assert copy == distortion


def test_integer_tau_is_refused() -> None:
    for distortion in (cvar(0.5), norm(2)):
        with pytest.raises(TypeError, match=r"tau: expected a floating dtype, got torch\.int64"):
            distortion(torch.tensor([0, 1]))


ONE_OF_EACH = [neutral, cvar(0.25), wang(-0.75), cpw(0.71), power(2.0), power(-2.0), norm(3)]


@pytest.mark.parametrize("distortion", ONE_OF_EACH, ids=label)
def test_compiles_to_one_graph(distortion: Distortion) -> None:
    tau = torch.linspace(0, 1, 8)[:, None]
    torch._dynamo.reset()
    compiled = torch.compile(lambda t: distortion(t), fullgraph=True, backend="eager")
    torch.manual_seed(0)
    expected = distortion(tau)
    torch.manual_seed(0)
    torch.testing.assert_close(compiled(tau), expected)


def test_limits_survive_the_compiler() -> None:
    # Compiled code holds η and the exponent in the tensor's dtype, where 1e300 is infinite.
    ends = torch.tensor([0.0, 1.0])
    for distortion in (power(1e300), power(-1e300), wang(1e300)):
        compiled = torch.compile(lambda t, beta=distortion: beta(t), fullgraph=True)
        assert compiled(ends).tolist() == [0, 1]
