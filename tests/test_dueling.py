"""The key nn.decoder.dueling: what the heads make of each other."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import iqn_blocks
from iqn_blocks.blocks import Hadamard, Head, TauEmbedding
from iqn_blocks.functional import midpoints
from tests import part_checks, reference
from tests.configs import merge, tiny_float
from tests.part_checks import DTYPES, rand, randn
from tests.reference.parts.dueling import dueling_at_midpoints


def config(dueling, **change):
    return merge(tiny_float(nn={"decoder": {"dueling": dueling}}), change)


def mixed(net, params, floats, tau, count):
    """x from the reference's equations."""
    s = reference.state(net.config, params, None, floats)
    phi = reference.tau_embedding(net.config, params.under("tau_embedding"), tau, s.shape[1])
    return reference.hadamard_mix(s, phi, count)


def read(net, params, x, slot):
    return reference.head(net.config, params.under(f"{slot}_head"), x, slot)


@DTYPES
@pytest.mark.parametrize("offsets", [1, 2])
def test_at_midpoints_is_its_equation(dtype, offsets):
    net = part_checks.build(config("at_midpoints", n_actions_per_block=offsets), dtype)

    def equations(params, floats, tau):
        x = mixed(net, params, floats, tau, 3)
        at = mixed(net, params, floats, midpoints(4, dtype=dtype), 4)
        value, advantage = read(net, params, x, "value"), read(net, params, x, "advantage")
        return dueling_at_midpoints(value, advantage, read(net, params, at, "advantage"), 3, 4)

    inputs = {"floats": randn(2, 5, dtype=dtype), "tau": rand(6, 1, dtype=dtype)}
    call = lambda floats, tau: net(None, floats, 3, tau)[0]  # noqa: E731
    part_checks.agree(net, inputs, call, equations, dtype)


@DTYPES
def test_none_is_the_advantage_head_alone(dtype):
    net = part_checks.build(config("none"), dtype)
    assert net.value_head is None
    assert not [name for name in net.state_dict() if "value" in name]

    def equations(params, floats, tau):
        return read(net, params, mixed(net, params, floats, tau, 3), "advantage")

    inputs = {"floats": randn(2, 5, dtype=dtype), "tau": rand(6, 1, dtype=dtype)}
    call = lambda floats, tau: net(None, floats, 3, tau)[0]  # noqa: E731
    part_checks.agree(net, inputs, call, equations, dtype)


def test_shared_levels_and_levels_of_each_sample_agree():
    net = part_checks.build(config("at_midpoints"), torch.float64)
    floats, tau = randn(3, 5), rand(4, 1)
    shared, _ = net(None, floats, 4, tau)
    torch.testing.assert_close(shared, net(None, floats, 4, tau.repeat_interleave(3, 0))[0])


def test_values_at_the_midpoints_have_the_mean_of_the_value_head():
    net = part_checks.build(config("at_midpoints"), torch.float64)
    floats = randn(3, 5)
    q = net.q_values(None, floats).mean(-1)
    tau = net.acting_tau()
    value = net.value_head(net.mixer(net.encode(None, floats), net.tau_embedding(tau), 4))
    torch.testing.assert_close(q, value.view(4, 3).mean(0))


def test_default_is_per_level():
    named, plain = (part_checks.build(c) for c in (config("per_level"), tiny_float()))
    floats = randn(2, 5, dtype=torch.float32)
    assert torch.equal(named.q_values(None, floats), plain.q_values(None, floats))


@pytest.mark.parametrize("dueling", ["at_midpoints", "none"])
def test_recompute_changes_no_gradient(dueling):
    net = part_checks.build(config(dueling), torch.float64)
    results = []
    for net.recompute in (False, True):
        q, _ = net(None, randn(2, 5), tau=rand(6, 1))
        results.append([q, *torch.autograd.grad(q.square().sum(), list(net.parameters()))])
    part_checks.alike(*results)


@pytest.mark.parametrize("dueling", ["at_midpoints", "none"])
def test_compiled_exported_and_saved(dueling, tmp_path):
    net, floats = part_checks.build(config(dueling)), randn(2, 5, dtype=torch.float32)
    part_checks.one_graph(net, None, floats, tau=rand(6, 1, dtype=torch.float32))
    part_checks.exported(net, floats=floats)
    part_checks.saved_and_loaded(net, tmp_path, lambda net: [net.q_values(None, floats)])
    assert "value_head" not in iqn_blocks.describe(net) or dueling != "none"


def test_keys_of_a_value_head_that_is_not_built_are_reported():
    lines = config("none", nn={"decoder": {"value": {"mlp": {"hidden_dim": 4}}}})
    with pytest.raises(iqn_blocks.ConfigError, match=r"nn\.decoder\.value\.mlp\.hidden_dim: set,"):
        iqn_blocks.build(lines, strict=True)


def test_unknown_names():
    with pytest.raises(
        iqn_blocks.ConfigError,
        match=r"nn\.decoder\.dueling: found 'at_midpoint' \(str\); accepted: per_level, "
        r"at_midpoints or none; did you mean at_midpoints\?",
    ):
        iqn_blocks.build(config("at_midpoint"))
    encoder = nn.Identity()
    encoder.state_dim = 4
    with pytest.raises(ValueError, match=r"dueling: got 'none', .*'at_midpoints'; .* value_head"):
        iqn_blocks.IQN(
            encoder,
            TauEmbedding(3, 4),
            Hadamard(4),
            advantage_head=Head(4, [4], (2,)),
            dueling="none",
        )
