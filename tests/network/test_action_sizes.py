"""Blocks whose offsets have unequally many actions: ``n_actions`` as a list."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import iqn_blocks
from iqn_blocks import Config, ConfigError
from iqn_blocks.blocks import Hadamard, Head, TauEmbedding
from iqn_blocks.diagnostics import crossing_rate
from iqn_blocks.functional import existing_actions, midpoints
from iqn_blocks.losses import double_dqn_target, max_target, munchausen_target, take
from iqn_blocks.network import config_of
from tests.blocks import checks
from tests.blocks.checks import rand, randn
from tests.configs import merge, tiny, tiny_btr, tiny_float
from tests.reference.parts.unequal import unequal_dueling

SIZES = (3, 1, 4)
EXISTS = torch.tensor([[1, 1, 1, 0], [1, 0, 0, 0], [1, 1, 1, 1]], dtype=torch.bool)
PART = {"hidden_dim": 8}


def unequal(base=tiny_float, **change):
    return base(n_actions=list(SIZES), **change)


def decoder(dueling, slots=("advantage", "value"), part="mlp"):
    return {"nn": {"decoder": {"dueling": dueling, **{slot: {part: PART} for slot in slots}}}}


NETWORKS = {
    "classic": unequal(tiny),
    "btr": unequal(tiny_btr),
    "no dueling": unequal(nn={"decoder": {"dueling": "none"}}),
    "at midpoints": unequal(nn={"decoder": {"dueling": "at_midpoints"}}),
    "fqf": unequal(nn={"iqn": {"fractions": "fqf"}}),
    "block": unequal(nn={"decoder": {"advantage": {"block": {"n_layers": 1}}}}),
    "monotone": unequal(nn={"decoder": {"dueling": "none", "advantage": "monotone"}}),
}
networks = pytest.mark.parametrize("name", NETWORKS)


def build(name):
    torch.manual_seed(0)
    net = iqn_blocks.build(NETWORKS[name]).eval()
    net.reset_noise()
    return net


def assert_filled(q):
    """The dtype's finite minimum where there is no action, and only there."""
    assert torch.equal(q == torch.finfo(q.dtype).min, ~EXISTS.expand_as(q))
    assert q.isfinite().all()


def test_which_actions_exist():
    assert torch.equal(existing_actions(SIZES), EXISTS)


@networks
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_values_of_other_actions_are_the_finite_minimum(name, dtype):
    net = build(name).to(dtype)
    assert (net.n_actions, net.n_offsets, net.action_sizes) == (4, 3, SIZES)
    assert torch.equal(net.action_mask, EXISTS)
    for batch in (0, 1, 5):
        inputs = net.example_inputs(batch)
        q, tau = net.quantiles(*inputs, 4)
        assert q.shape == (batch, 4, 3, 4) and tau.shape == (batch, 4)
        assert_filled(q)
        values = net.q_values(*inputs)
        assert_filled(values)
        assert (values.argmax(-1) < torch.tensor(SIZES)).all()


@pytest.mark.parametrize("dueling", ["per_level", "at_midpoints"])
def test_dueling_is_its_equation(dueling):
    net = checks.build(unequal(nn={"decoder": {"dueling": dueling}}), torch.float64)
    floats, tau = randn(2, 5), rand(6, 1)
    state = net.encode(None, floats)
    x = net.mixer(state, net.tau_embedding(tau), 3)
    value, advantage = net.value_head(x), net.advantage_head(x)
    if dueling == "per_level":
        expected = unequal_dueling(value, advantage, SIZES)
    else:
        acting = midpoints(net.k, dtype=torch.float64)
        at = net.advantage_head(net.mixer(state, net.tau_embedding(acting), net.k))
        at = at.view(net.k, 2, 3, 4).mean(0)
        expected = [
            value + advantage[:, n, :size] - at[:, n, :size].mean(-1).repeat(3)[:, None]
            for n, size in enumerate(SIZES)
        ]
    q, _ = net(None, floats, 3, tau)
    for n, size in enumerate(SIZES):
        torch.testing.assert_close(q[:, n, :size], expected[n])
    means = net.q_values(None, floats)
    value = net.value_head(net.mixer(state, net.tau_embedding(net.acting_tau()), net.k))
    for n, size in enumerate(SIZES):
        torch.testing.assert_close(means[:, n, :size].mean(-1), value.view(net.k, 2).mean(0))


@networks
def test_no_gradient_comes_from_actions_that_do_not_exist(name):
    net = build(name).double().train()
    inputs = net.example_inputs(3)
    q, _ = net(*inputs, tau=rand(6, 1))
    weights = list(net.advantage_head.parameters())
    q.masked_fill(~EXISTS, 0).square().sum().backward()
    assert all(w.grad.isfinite().all() for w in weights) and any(w.grad.any() for w in weights)
    if name in ("classic", "no dueling", "at midpoints"):
        rows = net.advantage_head.readout.weight.grad.view(3, 4, -1)
        assert rows.any(-1)[EXISTS].any()
        assert not rows[~EXISTS].any()


def test_a_list_of_equal_sizes_is_a_number_of_offsets():
    one, two = (iqn_blocks.build(tiny_float(**keys), seed=0) for keys in (
        {"n_actions": [3, 3]}, {"n_actions": 3, "n_actions_per_block": 2},
    ))  # fmt: skip
    assert one.config == two.config and one.action_mask is None
    assert one.state_dict().keys() == two.state_dict().keys()
    assert all(torch.equal(x, two.state_dict()[key]) for key, x in one.state_dict().items())
    floats = randn(4, 5, dtype=torch.float32)
    assert torch.equal(one.q_values(None, floats), two.q_values(None, floats))
    assert Config(n_actions=[5], float_input_dim=1) == Config(n_actions=5, float_input_dim=1)


def test_the_state_dict_is_that_of_equal_sizes():
    padded = iqn_blocks.build(unequal())
    equal = iqn_blocks.build(tiny_float(n_actions=4, n_actions_per_block=3))
    equal.load_state_dict(padded.state_dict())
    floats, tau = randn(2, 5, dtype=torch.float32), rand(4, 1, dtype=torch.float32)
    q, other = padded(None, floats, tau=tau)[0], equal(None, floats, tau=tau)[0]
    # The last offset has all four actions: its row is the same, its mean as well.
    torch.testing.assert_close(q[:, 2], other[:, 2])
    assert (q[:, 1, 0] - other[:, 1, 0]).abs().max() > 0  # centred by fewer actions


def test_a_mask_is_laid_over_them():
    net = build("classic")
    inputs = net.example_inputs(2)
    mask = torch.ones(2, 3, 4, dtype=torch.bool)
    mask[:, 0, 1] = False
    masked, plain = net.q_values(*inputs, mask=mask), net.q_values(*inputs)
    lowest = torch.finfo(torch.float32).min
    assert (masked[:, 0, 1] == lowest).all()
    assert torch.equal(masked[mask], plain[mask])


@networks
def test_acting_copy(name):
    net = build(name)
    fast, inputs, tau = iqn_blocks.optimize_for_inference(net), net.example_inputs(3), rand(6, 1)
    tau = tau.float()
    assert (fast.n_actions, fast.n_offsets, fast.action_sizes) == (4, 3, SIZES)
    for one, two in (
        (fast.q_values(*inputs), net.q_values(*inputs)),
        (fast.quantiles(*inputs, 2, tau)[0], net.quantiles(*inputs, 2, tau)[0]),
    ):
        assert_filled(one)
        torch.testing.assert_close(one, two, atol=1e-5, rtol=1e-5)
    with torch.no_grad():
        for parameter in net.advantage_head.parameters():
            parameter.mul_(1.5)
    fast.refresh_heads(net)
    torch.testing.assert_close(fast.q_values(*inputs), net.q_values(*inputs), atol=1e-5, rtol=1e-5)


def test_a_copy_with_other_values_is_noticed():
    """Whatever is compared, it is not the finite minimum."""

    class Random(Head):
        def forward(self, x):
            return super().forward(x) + torch.randn(())

    encoder = nn.Identity()
    encoder.forward = lambda img, floats: floats
    encoder.state_dim = 4
    net = iqn_blocks.IQN(
        encoder,
        TauEmbedding(3, 4),
        Hadamard(4),
        advantage_head=Random(4, [4], (2, 3)),
        action_sizes=(3, 2),
        inputs=iqn_blocks.InputSpec(n_floats=4),
    )
    with pytest.raises(ValueError, match="net: found other values in the folded copy"):
        iqn_blocks.optimize_for_inference(net)


@pytest.mark.parametrize("name", ["no dueling", "block"])
def test_compiled_exported_and_saved(name, tmp_path):
    net, floats = build(name), randn(2, 5, dtype=torch.float32)
    checks.one_graph(net, None, floats, tau=rand(6, 1, dtype=torch.float32))
    checks.exported(net, floats=floats)
    checks.saved_and_loaded(net, tmp_path, lambda net: [net.q_values(None, floats)])


def test_onnxruntime_acts_with_them():
    pytest.importorskip("onnxruntime")
    net = build("classic")
    fast, inputs = iqn_blocks.optimize_for_inference(net, engine="onnxruntime"), (
        torch.randint(0, 255, (3, 1, 34, 36), dtype=torch.uint8), randn(3, 5).float(),
    )  # fmt: skip
    assert fast.action_sizes == SIZES
    torch.testing.assert_close(fast.q_values(*inputs), net.q_values(*inputs), atol=1e-5, rtol=1e-5)


def test_after_a_core():
    net = iqn_blocks.build(unequal(nn={"core": "gru"}))
    floats = randn(4, 2, 5, dtype=torch.float32)
    assert_filled(net.q_values(None, floats).q)
    assert_filled(net(None, floats, 2).q)


def one_by_one(target, q, other):
    """The sum over offsets of a target of each alone, with its own actions and no reward."""
    alone = [target(q[:, :, n, :size], other[:, :, n, :size], n) for n, size in enumerate(SIZES)]
    return sum(alone)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("kind", ["max", "double", "munchausen"])
def test_targets_are_those_of_each_offset_alone(dtype, masked, kind):
    lowest = torch.finfo(dtype).min
    q, other = (randn(3, 5, 3, 4, dtype=dtype, seed=seed) for seed in (0, 1))
    q, other = (x.masked_fill(~EXISTS, lowest) for x in (q, other))
    reward = torch.zeros(3, dtype=torch.float64)
    discount = torch.tensor([0.9, 0.0, 0.5], dtype=torch.float64)
    actions = torch.tensor([[2, 0, 3], [0, 0, 0], [1, 0, 2]])
    mask = torch.ones(3, 3, 4, dtype=torch.bool)
    mask[0, 2, 3] = mask[0, 0, 0] = mask[2, 1] = False  # at one offset nothing is left
    mask_now = mask.clone()
    mask_now[2, 1] = True  # where an action was taken
    if not masked:
        mask = mask_now = None

    def of(mask, n):
        return None if mask is None else mask[:, n, : SIZES[n]]

    def target(q, other, actions, mask, mask_now):
        if kind == "max":
            return max_target(reward, discount, q, mask=mask)
        if kind == "double":
            return double_dqn_target(reward, discount, q, other, mask=mask)
        return munchausen_target(
            reward, discount, q, other, actions, temperature=0.5, mask=mask, mask_now=mask_now
        )

    expected = one_by_one(
        lambda q, other, n: target(q, other, actions[:, n], of(mask, n), of(mask_now, n)), q, other
    )
    found = target(q, other, actions, mask, mask_now)
    assert found.isfinite().all()
    torch.testing.assert_close(found, expected)


def test_taking_actions_and_crossing():
    q = randn(2, 4, 3, 4).masked_fill(~EXISTS, torch.finfo(torch.float64).min)
    actions = torch.tensor([[2, 0, 3], [0, 0, 1]])
    by_hand = [[sum(q[b, k, n, actions[b, n]] for n in range(3)) for k in range(4)] for b in (0, 1)]
    torch.testing.assert_close(take(q, actions), torch.tensor(by_hand))
    tau = rand(2, 4)
    rates = [crossing_rate(q[:, :, n, :size], tau) * size for n, size in enumerate(SIZES)]
    torch.testing.assert_close(crossing_rate(q, tau), sum(rates) / sum(SIZES))


def test_faults():
    for keys, message in [
        ({"n_actions": [3, 2], "n_actions_per_block": 3},
         r"n_actions_per_block: found 3, but n_actions lists 2 sizes; accepted: 2; leave the key"),
        ({"n_actions": []}, r"n_actions: found \[\] \(list\); accepted: .*, or a list of these"),
        ({"n_actions": [3, 0]}, r"n_actions\[1\]: found 0 \(int\); accepted: a whole number from"),
        ({"n_actions": "3"}, r"n_actions: found '3' \(str\); accepted: .*, or a list of these"),
    ]:  # fmt: skip
        with pytest.raises(ConfigError, match=message):
            iqn_blocks.build(tiny_float(**keys))
    head = Head(4, [4], (2, 3))
    encoder = nn.Identity()
    encoder.state_dim = 4
    for sizes in [(3,), (2, 2), (3, 0), (3, 4)]:
        with pytest.raises(ValueError, match=r"action_sizes: got .*\(2, 3\); accepted: 2 sizes"):
            iqn_blocks.IQN(
                encoder, TauEmbedding(3, 4), Hadamard(4), advantage_head=head, action_sizes=sizes
            )


def test_in_words():
    net = iqn_blocks.build(unequal())
    assert "n_actions=(3, 1, 4)" in repr(net) and "n_actions=(3, 1, 4)" in iqn_blocks.describe(net)
    plain = config_of(net).to_dict()
    assert plain["n_actions"] == [3, 1, 4] and Config(**plain) == net.config
    assert merge(plain, {}) == plain and net.config.replace(n_actions=5).n_actions == 5
