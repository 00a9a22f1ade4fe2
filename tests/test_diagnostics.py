"""Diagnostics against their definitions, one number at a time."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import iqn_blocks
from iqn_blocks.diagnostics import (
    crossing_rate,
    dormant_scores,
    dormant_share,
    effective_rank,
    norms_by_stage,
)
from iqn_blocks.functional import split_quantiles
from tests.configs import tiny

# ----------------------------------------------------------------------------------- crossing rate


def loop_crossing_rate(q: Tensor, tau: Tensor) -> float:
    """Falls among neighbours of different τ, (B, K, A) and (B, K)."""
    falls, pairs = 0, 0
    for b in range(q.shape[0]):
        order = sorted(range(q.shape[1]), key=tau[b].tolist().__getitem__)
        for low, high in pairwise(order):
            if tau[b, low] < tau[b, high]:
                falls += int((q[b, high] < q[b, low]).sum())
                pairs += q.shape[2]
    return falls / pairs if pairs else math.nan


def test_crossing_rate_by_hand() -> None:
    # Sorted by τ the values are 1, 3, 3, 2: a rise, a standstill and a fall.
    q, tau = torch.tensor([[3.0, 2.0, 1.0, 3.0]]), torch.tensor([[0.6, 0.9, 0.1, 0.3]])
    assert crossing_rate(q, tau).item() == pytest.approx(1 / 3)
    assert crossing_rate(-q, tau).item() == pytest.approx(1 / 3)
    assert crossing_rate(q[:, :2], tau[:, :2]).item() == 1
    assert crossing_rate(q.sort(1).values, tau.sort(1).values).item() == 0
    assert crossing_rate(-q.sort(1).values, tau.sort(1).values).item() == pytest.approx(2 / 3)


@given(seed=st.integers(0, 2**31), levels=st.integers(1, 6))
@settings(max_examples=50, deadline=None)
def test_crossing_rate_is_its_definition(seed: int, levels: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    q = torch.randint(4, (3, 5, 2), generator=generator).double()
    tau = torch.randint(levels, (3, 5), generator=generator) / 8  # some τ are equal
    rate, expected = crossing_rate(q, tau).item(), loop_crossing_rate(q, tau)
    assert rate == pytest.approx(expected, nan_ok=True)
    assert math.isnan(expected) == bool((tau == tau[:, :1]).all())


def test_crossing_rate_of_a_network_and_of_blocks() -> None:
    net = iqn_blocks.build(tiny(n_actions_per_block=2))
    q, tau = net(*net.example_inputs(3), num_quantiles=8)
    q, tau = split_quantiles(q, 8), split_quantiles(tau, 8)
    rate = crossing_rate(q, tau)
    assert rate.item() == pytest.approx(loop_crossing_rate(q.flatten(2), tau[:, :, 0]))
    assert torch.equal(rate, crossing_rate(q, tau.squeeze(2)))


def test_crossing_rate_shapes() -> None:
    for q, tau in [((3,), (3,)), ((2, 1, 3), (2, 1)), ((2, 3, 4), (2, 4)), ((6, 4), (6, 1))]:
        with pytest.raises(ValueError, match=r"expected q \(B, K, …\) and .* K >= 2, got .*; func"):
            crossing_rate(torch.zeros(q), torch.zeros(tau))


# ----------------------------------------------------------------------------------- dormant units


def test_dormant_scores_by_hand() -> None:
    # Means of |h| are 0, 1, 2 and 5, and 2 over the layer.
    h = torch.tensor([[0.0, -1.0, 4.0, 5.0], [0.0, 1.0, 0.0, -5.0]])
    assert dormant_scores(h).tolist() == [0, 0.5, 1, 2.5]
    assert [dormant_share(h, threshold=t).item() for t in (0, 0.49, 0.5, 1, 3)] == [
        0.25, 0.25, 0.5, 0.75, 1,
    ]  # fmt: skip
    assert dormant_share(torch.tensor([[0.025, 0.026, 2.949]])).item() == pytest.approx(1 / 3)
    assert dormant_scores(torch.zeros(2, 3)).tolist() == [0, 0, 0]
    assert dormant_share(torch.zeros(2, 3)).item() == 1


def test_units_of_a_convolution_are_its_maps() -> None:
    maps = torch.randn(4, 3, 5, 6)
    by_hand = torch.stack([maps[:, c].abs().mean() for c in range(3)])
    torch.testing.assert_close(dormant_scores(maps, dim=1), by_hand / by_hand.mean())
    assert dormant_scores(maps).shape == (6,)
    maps[..., 2] = 0  # one of six columns
    assert dormant_share(maps).item() == pytest.approx(1 / 6)
    assert dormant_share(maps, dim=1).item() == 0
    assert dormant_scores(maps[0, 0, 0]).shape == (6,)


def test_scores_of_half_precision_do_not_overflow() -> None:
    scores = dormant_scores(torch.full((64, 8), 6e4).half())
    assert scores.dtype == torch.float32
    assert scores.tolist() == [1] * 8


@pytest.mark.parametrize("threshold", [-0.1, math.nan, math.inf, True, None])
def test_dormant_errors(threshold: Any) -> None:
    with pytest.raises(ValueError, match=r"threshold: got .*, accepted is any finite number >= 0"):
        dormant_share(torch.ones(1, 2), threshold=threshold)
    for empty in (torch.zeros(0, 3), torch.tensor(1.0)):
        with pytest.raises(ValueError, match=r"activations: expected at least one row, got"):
            dormant_scores(empty)


# ---------------------------------------------------------------------------------- effective rank


@pytest.mark.parametrize("delta", [0.0, 0.01, 0.1, 0.5])
def test_effective_rank_is_its_definition(delta: float) -> None:
    for rank in (1, 3, 6):
        features = torch.randn(20, rank) @ torch.randn(rank, 6)
        sigma = torch.linalg.svdvals(features).double().tolist()
        expected = next(
            k for k in range(1, 7) if sum(sigma[:k]) >= (1 - delta) * sum(sigma) * (1 - 1e-12)
        )
        found = effective_rank(features, delta=delta).item()
        assert found == expected
        assert delta == 0 or found <= rank


def test_effective_rank_at_its_bound() -> None:
    # Singular values 99 and 1: the first holds exactly 1 − δ of the sum.
    features = torch.diag(torch.tensor([99.0, 1.0]).double())
    assert effective_rank(features).item() == 1
    assert effective_rank(features, delta=0.0099).item() == 2
    assert effective_rank(torch.zeros(3, 4)).item() == 0
    assert effective_rank(torch.eye(5).bfloat16()).item() == 5


def test_effective_rank_errors() -> None:
    for shape in ((3,), (0, 3), (3, 0), (1, 2, 3)):
        with pytest.raises(ValueError, match=r"features: expected \(R, D\) with R, D >= 1, got"):
            effective_rank(torch.zeros(shape))
    for delta in (-0.1, 1, math.nan):
        with pytest.raises(ValueError, match=r"delta: got .*, accepted is 0 <= delta < 1"):
            effective_rank(torch.ones(1, 1), delta=delta)


# ---------------------------------------------------------------------------------- norms by stage


def test_norms_by_stage() -> None:
    net = iqn_blocks.build(tiny())
    q, _ = net(*net.example_inputs(2), num_quantiles=2)
    for parameter in net.value_head.parameters():
        parameter.requires_grad_(False)
    torch.autograd.backward(q.sum(), inputs=[p for p in net.parameters() if p.requires_grad])
    found = norms_by_stage(net)
    assert list(found) == list(dict.fromkeys(n.split(".")[0] for n, _ in net.named_parameters()))
    for stage, norms in found.items():
        part = net.get_submodule(stage)
        weight = math.sqrt(sum(p.square().sum().item() for p in part.parameters()))
        assert norms.weight.item() == pytest.approx(weight, rel=1e-5)
        if stage == "value_head":
            assert norms.gradient is None
        else:
            gradient = math.sqrt(sum(p.grad.square().sum().item() for p in part.parameters()))
            assert norms.gradient.item() == pytest.approx(gradient, rel=1e-5)
    assert list(norms_by_stage(torch.compile(net))) == list(found)
    assert "advantage_head.readout" in norms_by_stage(net, depth=2)


def test_shared_and_half_precision_parameters() -> None:
    layer = nn.Linear(64, 64, bias=False).half()
    nn.init.constant_(layer.weight, 6e3)  # the sum of squares overflows float16
    norms = norms_by_stage(nn.ModuleDict({"a": layer, "b": layer}))
    assert list(norms) == ["a"]
    assert norms["a"].weight.item() == pytest.approx(64 * 6e3, rel=1e-3)
    for depth in (0, True, 1.0):
        with pytest.raises(ValueError, match=r"depth: got .*, accepted is a whole number >= 1"):
            norms_by_stage(layer, depth=depth)  # type: ignore[arg-type]
