"""The quantile Huber loss: by hand, against its equation, and what holds for any input."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from iqn_blocks.functional import split_quantiles
from iqn_blocks.losses import quantile_huber_loss
from tests.losses.cases import B, J, K, close, draw_tau, loss_inputs
from tests.reference import losses as reference

seeds = st.integers(0, 2**31)


def test_by_hand() -> None:
    # δ = 3 − 1 = 2, beyond κ = 1:   |¼ − 0| · (2 − ½)    = 0.375
    # δ = ½ − 1 = −½, within it:     |¼ − 1| · (½)² / 2   = 0.09375
    # Summed over the two predictions, which are alike, and averaged over the two targets.
    pred, target, tau = torch.ones(1, 2), torch.tensor([[3.0, 0.5]]), torch.full((1, 2), 0.25)
    assert quantile_huber_loss(pred, target, tau).tolist() == [2 * (0.375 + 0.09375) / 2]


@pytest.mark.parametrize("kappa", [1e-3, 0.5, 1.0, 3.0])
def test_equation(kappa: float) -> None:
    close(
        quantile_huber_loss(*loss_inputs(), kappa=kappa),
        reference.quantile_huber(*loss_inputs(), kappa),
    )


def test_pinball() -> None:
    pred, target, tau = loss_inputs()
    delta = target[:, None, :] - pred[:, :, None]
    pinball = torch.maximum(tau[:, :, None] * delta, (tau[:, :, None] - 1) * delta)
    close(quantile_huber_loss(pred, target, tau, kappa=0), pinball.sum(1).mean(1))


def test_minimum_is_the_quantile() -> None:
    # Where n of the ten targets 0, 1, …, 9 lie below c, the summed pinball loss at τ = ¼ has the
    # slope ¾·n − ¼·(10 − n) = n − 2½ in c: it falls up to c = 2 and rises from there.
    target = torch.arange(10.0).expand(111, 10)
    candidates = torch.linspace(-1, 10, 111)[:, None]
    losses = quantile_huber_loss(candidates, target, torch.full((111, 1), 0.25), kappa=0)
    assert candidates[losses.argmin()].item() == pytest.approx(2.0, abs=1e-6)


@pytest.mark.parametrize("kappa", [0.0, 0.7])
def test_gradient(kappa: float) -> None:
    pred, target, tau = loss_inputs()
    pred.requires_grad_()
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
    # δ = ½ = κ: both give κ/2 = ¼ and slope 1, here times τ = ¼.
    pred = torch.tensor([[-0.5]], dtype=torch.float64, requires_grad=True)
    loss = quantile_huber_loss(pred, torch.zeros(1, 1), torch.full((1, 1), 0.25), kappa=0.5)
    loss.sum().backward()
    close(loss, torch.tensor([0.25 * 0.25], dtype=torch.float64))
    assert pred.grad is not None
    assert pred.grad.item() == -0.25


def test_target_is_detached() -> None:
    pred, target, tau = loss_inputs()
    quantile_huber_loss(pred.requires_grad_(), target.requires_grad_(), tau).sum().backward()
    assert pred.grad is not None
    assert target.grad is None


def test_tau_of_a_network_fits_once_split() -> None:
    # Row k·B + b belongs to quantile k of sample b; the trailing axis may stay.
    pred, target, _ = loss_inputs()
    rows = draw_tau(0, K * B, 1)
    by_row = torch.tensor([[rows[k * B + b, 0] for k in range(K)] for b in range(B)])
    loss = quantile_huber_loss(pred, target, split_quantiles(rows, K))
    close(loss, reference.quantile_huber(pred, target, by_row, 1.0))
    assert torch.equal(loss, quantile_huber_loss(pred, target, by_row))


@given(seed=seeds, order=st.permutations(range(K)), target_order=st.permutations(range(J)))
@settings(max_examples=25, deadline=None)
def test_order_of_quantiles_does_not_matter(
    seed: int, order: list[int], target_order: list[int]
) -> None:
    pred, target, tau = loss_inputs(seed)
    shuffled = quantile_huber_loss(pred[:, order], target[:, target_order], tau[:, order])
    close(shuffled, quantile_huber_loss(pred, target, tau))


@given(seed=seeds, order=st.permutations(range(B)), shift=st.floats(-100, 100))
@settings(max_examples=25, deadline=None)
def test_samples_do_not_mix_and_only_differences_count(
    seed: int, order: list[int], shift: float
) -> None:
    pred, target, tau = loss_inputs(seed)
    loss = quantile_huber_loss(pred, target, tau)
    close(quantile_huber_loss(pred[order], target[order], tau[order]), loss[order])
    close(quantile_huber_loss(pred + shift, target + shift, tau), loss, rtol=1e-9)


@given(seed=seeds, kappa=st.floats(0, 1e-3))
@settings(max_examples=25, deadline=None)
def test_tends_to_pinball(seed: int, kappa: float) -> None:
    # 0 ≤ |δ| − L_κ(δ) ≤ κ/2 for each of the K summed pairs.
    inputs = loss_inputs(seed)
    gap = quantile_huber_loss(*inputs, kappa=0) - quantile_huber_loss(*inputs, kappa=kappa)
    assert (gap >= -1e-12).all()
    assert (gap <= K * kappa / 2 + 1e-12).all()


@given(seed=seeds, kappa=st.floats(0, 10))
@settings(max_examples=25, deadline=None)
def test_is_never_negative_and_zero_only_on_target(seed: int, kappa: float) -> None:
    pred, target, tau = loss_inputs(seed)
    assert (quantile_huber_loss(pred, target, tau, kappa=kappa) > 0).all()
    same = pred[:, :1].expand(B, K)
    assert (quantile_huber_loss(same, pred[:, :1], tau, kappa=kappa) == 0).all()
