"""Half precision, empty batches, compilation and vmap of the loss and the targets."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from iqn_blocks.losses import munchausen_target, quantile_huber_loss, take
from tests.losses.cases import (
    TARGETS,
    A,
    B,
    J,
    K,
    any_kind,
    close,
    draw,
    draw_tau,
    in_float32,
    some_mask,
    target_inputs,
)

CALLS: dict[str, Callable[..., Tensor]] = TARGETS | {
    "loss": lambda r, d, q, other, a, mask: quantile_huber_loss(
        q[:, :, 0, 0], other[:, :, 0, 0], q[:, :, 0, :1].sigmoid()
    ),
    "pinball": lambda r, d, q, other, a, mask: quantile_huber_loss(
        q[:, :, 0, 0], other[:, :, 0, 0], q[:, :, 0, 0].sigmoid(), kappa=0
    ),
    "take": lambda r, d, q, other, a, mask: take(q, a),
    "munchausen with both masks": lambda r, d, q, other, a, mask: munchausen_target(
        r, d, q, other, a, mask=mask, mask_now=mask
    ),
}


@any_kind
def test_half_precision_targets_are_computed_in_float32(kind: str) -> None:
    reward, discount, q, other, actions = target_inputs()
    inputs = [x.half() for x in (reward, discount, 1e3 * q, 1e3 * other)]
    assert inputs[2].isfinite().all()
    with torch.autocast("cpu", dtype=torch.float16):
        under_autocast = TARGETS[kind](*inputs, actions)
    assert under_autocast.dtype == torch.float32
    assert torch.equal(under_autocast, TARGETS[kind](*(x.float() for x in inputs), actions))


def test_half_precision_loss_is_computed_in_float32() -> None:
    # Values near 6e4, whose differences overflow float16 as soon as they are squared or summed.
    pred = torch.tensor([[6e4, -6e4]], dtype=torch.float16, requires_grad=True)
    target, tau = torch.tensor([[-6e4, 6e4]], dtype=torch.float16), torch.tensor([[0.25, 0.75]])
    with torch.autocast("cpu", dtype=torch.float16):
        loss = quantile_huber_loss(pred, target, tau)
    assert loss.dtype == torch.float32
    assert torch.equal(loss, quantile_huber_loss(pred.float(), target.float(), tau))
    loss.sum().backward()
    assert pred.grad is not None
    assert pred.grad.isfinite().all()
    q = torch.full((1, 1, 4, 2), 6e4, dtype=torch.float16)
    assert take(q, torch.zeros(1, 4, dtype=torch.long)).item() == 4 * q[0, 0, 0, 0].item()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@any_kind
def test_reward_dtype_does_not_widen_the_result(kind: str, dtype: torch.dtype) -> None:
    reward, discount, q, other, actions = target_inputs()  # float64, as numpy gives rewards
    result = TARGETS[kind](reward, discount, q.to(dtype), other.to(dtype), actions)
    assert result.dtype == torch.float32


def test_empty_batch() -> None:
    empty, none, values = torch.empty(0, K), torch.empty(0), torch.empty(0, J, A)
    assert quantile_huber_loss(empty, torch.empty(0, J), empty).shape == (0,)
    for kind in TARGETS:
        assert TARGETS[kind](none, none, values, values, none.long()).shape == (0, J)


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("dynamic", [False, True])
def test_compiles_to_one_graph(name: str, dynamic: bool) -> None:
    function, inputs = CALLS[name], (*target_inputs(), some_mask())
    compiled = torch.compile(function, fullgraph=True, backend="eager", dynamic=dynamic)
    assert torch.equal(compiled(*inputs), function(*inputs))


def test_compiles_with_inductor() -> None:
    def step(reward: Tensor, discount: Tensor, q: Tensor, now: Tensor, actions: Tensor) -> Tensor:
        target = munchausen_target(reward, discount, q, now, actions)
        return quantile_huber_loss(take(now, actions), target, now[:, :, 0, 0].sigmoid())

    reward, discount, q, now, actions = in_float32(target_inputs())
    now.requires_grad_()
    results = []
    for function in (step, torch.compile(step, fullgraph=True)):
        loss = function(reward, discount, q, now, actions)
        results.append((loss.detach(), *torch.autograd.grad(loss.sum(), now)))
    for compiled, eager in zip(results[1], results[0], strict=True):
        close(compiled, eager, rtol=1e-5)


def test_vmap_over_an_ensemble() -> None:
    stacked = draw(0, 5, B, K), draw(1, 5, B, J), draw_tau(2, 5, B, K)
    one_by_one = [quantile_huber_loss(*x) for x in zip(*stacked, strict=True)]
    close(torch.vmap(quantile_huber_loss)(*stacked), torch.stack(one_by_one))
