"""The key nn.iqn.fractions: fractions that a network proposes."""

from __future__ import annotations

import pytest
import torch

import iqn_blocks
from iqn_blocks.losses import fraction_loss
from tests import part_checks, reference
from tests.configs import merge, tiny_float
from tests.part_checks import DTYPES, randn
from tests.reference.parts.fractions import proposed, weighted_mean


def config(**change):
    return merge(tiny_float(nn={"iqn": {"fractions": "fqf", "n": 3}}), change)


@DTYPES
def test_proposals_are_their_equations(dtype):
    net = part_checks.build(config(), dtype)
    call = lambda state: torch.cat([x.flatten() for x in net.propose(state)])  # noqa: E731

    def equations(params, state):
        return torch.cat([x.flatten() for x in proposed(params, state, 3)])

    part_checks.agree(net.fractions, {"state": randn(2, 8, dtype=dtype)}, call, equations, dtype)


@DTYPES
@pytest.mark.parametrize("what", ["forward", "q_values"])
def test_values_at_the_proposals_are_their_equations(dtype, what):
    net = part_checks.build(config(), dtype)

    def call(floats):
        return net(None, floats)[0] if what == "forward" else net.q_values(None, floats)

    def equations(params, floats):
        s = reference.state(net.config, params, None, floats)
        tau, middle, _ = proposed(params.under("fractions"), s, 3)
        rows = torch.stack([middle[b, i] for i in range(3) for b in range(2)])[:, None]
        q = reference.quantile_path(net.config, params, s, rows, 3)
        return q if what == "forward" else weighted_mean(q, tau)

    part_checks.agree(net, {"floats": randn(2, 5, dtype=dtype)}, call, equations, dtype)


def test_only_the_fraction_loss_trains_the_proposals():
    net = part_checks.build(config())
    floats = randn(2, 5).float()
    net(None, floats)[0].sum().backward()
    assert all(p.grad is None for p in net.fractions.parameters())
    net.zero_grad()
    fraction_loss(net.propose(net.encode(None, floats)).tau, torch.ones(2, 2)).sum().backward()
    others = [p for name, p in net.named_parameters() if "fractions" not in name]
    assert net.fractions.linear.weight.grad.any() and all(p.grad is None for p in others)


def test_given_levels_are_used():
    net = part_checks.build(config())
    tau = torch.rand(8, 1)
    assert torch.equal(net(None, torch.ones(2, 5), tau=tau)[1], tau)


def test_compiled_exported_and_saved(tmp_path):
    net, floats = part_checks.build(config()), randn(2, 5).float()
    part_checks.one_graph(net, None, floats)
    part_checks.exported(net, floats=floats)
    part_checks.saved_and_loaded(net, tmp_path, lambda net: [net.q_values(None, floats)])


def test_errors():
    net, floats = part_checks.build(config()), torch.ones(2, 5)
    with pytest.raises(ValueError, match=r"num_quantiles: found 4, but 3 fractions .* leave it"):
        net(None, floats, 4)
    with pytest.raises(ValueError, match=r"generator: nothing is drawn, .* leave it out"):
        net(None, floats, generator=torch.Generator())
    with pytest.raises(
        ValueError, match=r"risk: proposed fractions .* pass tau, such as net.acting"
    ):
        net.q_values(None, floats, risk=lambda tau: tau)
    with pytest.raises(ValueError, match=r"propose: this network draws .* nn\.iqn\.fractions: fqf"):
        iqn_blocks.build(tiny_float()).propose(torch.ones(1, 8))
