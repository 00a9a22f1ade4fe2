"""Networks with memory: the key nn.core."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import iqn_blocks
from iqn_blocks.blocks import GRU, LSTM, Hadamard, Head, TauEmbedding
from tests import reference
from tests.blocks import checks as part_checks
from tests.blocks.checks import DTYPES, rand, randn
from tests.configs import merge, tiny, tiny_float
from tests.reference.parts.gru import gru_step
from tests.reference.parts.lstm import lstm_step

CORES = {
    "gru": ("gru", gru_step),
    "lstm": ({"lstm": {"hidden_dim": 4}}, lstm_step),
}
EACH = pytest.mark.parametrize("name", CORES)
T, B, K = 4, 3, 2


def config(name, **change):
    return merge(tiny_float(nn={"core": CORES[name][0]}), change)


def resets(*shape):
    return rand(*shape, seed=3) < 0.4


@DTYPES
@EACH
def test_step_is_its_equations(name, dtype):
    core = {"gru": GRU(3), "lstm": LSTM(3, hidden_dim=2)}[name].to(dtype)
    inputs = {
        "state": randn(B, 3, dtype=dtype),
        "memory": randn(B, core.memory_dim, dtype=dtype, seed=5),
    }
    reset = torch.tensor([False, True, False])

    def call(state, memory):
        return torch.cat(core(state, memory, reset), dim=1)

    def equations(params, state, memory):
        return torch.cat(CORES[name][1](params, state, memory, reset), dim=1)

    part_checks.agree(core, inputs, call, equations, dtype)


@DTYPES
@EACH
def test_network_over_a_sequence_is_its_equations(name, dtype):
    net = part_checks.build(config(name), dtype)
    reset = resets(T, B)
    reset[0] = False

    def equations(params, floats, memory, tau):
        rows = []
        for t in range(T):
            s = reference.state(net.config, params, None, floats[t])
            s, memory = CORES[name][1](params.under("core"), s, memory, reset[t])
            rows.append(reference.quantile_path(net.config, params, s, tau[t], K))
        return torch.cat([torch.stack(rows).flatten(), memory.flatten()])

    def call(floats, memory, tau):
        result = net(None, floats, K, tau, memory=memory, reset=reset)
        return torch.cat([result.q.flatten(), result.memory.flatten()])

    inputs = {
        "floats": randn(T, B, 5, dtype=dtype),
        "memory": randn(*net.initial_memory(B).shape, dtype=dtype, seed=4),
        "tau": rand(T, K * B, 1, dtype=dtype),
    }
    part_checks.agree(net, inputs, call, equations, dtype)


@pytest.mark.parametrize("offsets", [1, 2])
@EACH
def test_a_sequence_equals_its_steps(name, offsets):
    torch.manual_seed(0)
    net = iqn_blocks.build(tiny(n_actions_per_block=offsets, nn={"core": CORES[name][0]})).eval()
    img, floats = randn(T, B, 1, 34, 36).float(), randn(T, B, 5).float()
    tau, reset = rand(T, K * B, 1).float(), resets(T, B)
    whole = net(img, floats, K, tau, reset=reset)
    acting = net.q_values(img, floats, reset=reset)
    batched = net.quantiles(img, floats, K, tau, reset=reset)
    tail = (3,) if offsets == 1 else (2, 3)
    assert whole.q.shape == (T, K * B, *tail) and whole.tau.shape == (T, K * B, 1)
    assert batched.q.shape == (T, B, K, *tail) and batched.tau.shape == (T, B, K)
    assert acting.q.shape == (T, B, *tail)
    memory = None
    for t in range(T):
        step = net(img[t], floats[t], K, tau[t], memory=memory, reset=reset[t])
        values = net.q_values(img[t], floats[t], memory=memory, reset=reset[t])
        rows = net.quantiles(img[t], floats[t], K, tau[t], memory=memory, reset=reset[t])
        memory = step.memory
        assert torch.equal(whole.tau[t], step.tau)
        for one, other in (
            (whole.q[t], step.q),
            (acting.q[t], values.q),
            (batched.q[t], rows.q),
            (batched.tau[t], rows.tau),
            (memory, values.memory),
            (memory, rows.memory),
        ):
            torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)
    for result in (whole, acting, batched):
        torch.testing.assert_close(result.memory, memory, rtol=1e-5, atol=1e-6)


@EACH
def test_reset_forgets_before_the_step_and_only_where_it_is_true(name):
    net = part_checks.build(config(name))
    floats, memory = randn(B, 5).float(), randn(*net.initial_memory(B).shape).float()
    reset = torch.tensor([True, False, True])
    mixed = net.q_values(None, floats, memory=memory, reset=reset)
    kept = net.q_values(None, floats, memory=memory)
    fresh = net.q_values(None, floats)
    for one, keeps, begins in zip(mixed, kept, fresh, strict=True):
        assert not torch.allclose(keeps, begins)
        torch.testing.assert_close(one, torch.where(reset[:, None], begins, keeps))


def test_reset_goes_back_to_the_initial_memory_of_a_subclass():
    class Ones(GRU):
        def initial_memory(self, batch):
            return torch.ones_like(super().initial_memory(batch))

    core, state = Ones(3), randn(B, 3).float()
    first = core(state, core.initial_memory(B))
    again = core(state, randn(B, core.memory_dim).float(), torch.ones(B, dtype=torch.bool))
    part_checks.alike(again, first)


def test_networks_without_a_core_refuse_a_memory():
    net, floats = iqn_blocks.build(tiny_float()), randn(B, 5).float()
    copy = iqn_blocks.optimize_for_inference(net)
    calls = (net, net.forward, net.quantiles, net.q_values, copy, copy.quantiles, copy.q_values)
    for call in calls:
        for name in ("memory", "reset"):
            with pytest.raises(
                TypeError, match=rf"^{name}: found an argument .*; it has no core.*nn\.core: gru"
            ):
                call(None, floats, **{name: None})
        with pytest.raises(TypeError, match=r"^taus: found an argument that this .*; leave it out"):
            call(None, floats, taus=None)


@EACH
def test_memory_starts_at_zero(name):
    net = part_checks.build(config(name))
    floats, zeros = randn(B, 5).float(), net.initial_memory(B)
    assert not zeros.any()
    part_checks.alike(net.q_values(None, floats), net.q_values(None, floats, memory=zeros))


@EACH
def test_shared_levels_of_a_sequence(name):
    net = part_checks.build(config(name), torch.float64)
    floats, tau = randn(T, B, 5), rand(K, 1)
    shared = net(None, floats, K, tau)
    each = tau.repeat_interleave(B, 0).expand(T, -1, -1)
    part_checks.alike(shared, net(None, floats, K, each))
    assert torch.equal(shared.tau, each)


@EACH
def test_drawn_levels_are_stratified_at_each_step(name):
    net = part_checks.build(config(name))
    tau = net.quantiles(None, randn(T, B, 5).float(), 6).tau
    assert torch.equal((tau * 6).floor().sort(-1).values, torch.arange(6.0).expand(T, B, 6))


@EACH
def test_compiled_exported_and_saved(name, tmp_path):
    net, floats = part_checks.build(config(name)), randn(T, B, 5).float()
    memory, reset = randn(*net.initial_memory(B).shape).float(), resets(T, B)
    tau = rand(T, K * B, 1).float()
    part_checks.one_graph(net, None, floats[:2], K, tau[:2], memory=memory, reset=reset[:2])
    part_checks.one_graph(net.q_values, None, floats[0], memory=memory, reset=reset[0])
    part_checks.exported(net, floats=floats[0], memory=memory, reset=reset[0])
    part_checks.saved_and_loaded(net, tmp_path, lambda net: net.q_values(None, floats))
    assert "\ncore " in iqn_blocks.describe(net)


@EACH
def test_recompute_changes_no_gradient(name):
    net = part_checks.build(config(name), torch.float64)
    results = []
    for net.recompute in (False, True):
        q, *_ = net(None, randn(T, B, 5), K, rand(T, K * B, 1), reset=resets(T, B))
        results.append([q, *torch.autograd.grad(q.square().sum(), list(net.parameters()))])
    part_checks.alike(*results)


def test_a_network_without_a_core_is_the_plain_one():
    net = iqn_blocks.build(tiny_float(nn={"core": None}))
    assert type(net) is iqn_blocks.IQN


def test_width_of_the_quantile_path_is_that_of_the_core():
    net = iqn_blocks.build(tiny_float(nn={"core": {"lstm": {"hidden_dim": 4}}}))
    assert isinstance(net, iqn_blocks.RecurrentIQN)
    assert net.encoder.state_dim == 8 and net.state_dim == net.mixer.out_dim == 4


def test_empty_batch():
    net = part_checks.build(config("gru"))
    q, memory = net.q_values(None, torch.ones(0, 5))
    assert q.shape == (0, 3) and memory.shape == (0, 8)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (
            {"memory": torch.zeros(2, 8)},
            ValueError,
            r"memory: expected shape \(3, 8\), got \(2, 8\); pass what the step before gave, or",
        ),
        ({"reset": torch.zeros(3)}, TypeError, r"reset: expected torch.bool .*, got torch.float32"),
        (
            {"reset": torch.zeros(4, 3, dtype=torch.bool)},
            ValueError,
            r"reset: expected shape \(3,\), got \(4, 3\)",
        ),
    ],
)
def test_bad_memory(arguments, error, message):
    net = part_checks.build(config("gru"))
    for call in (net, net.quantiles, net.q_values):
        with pytest.raises(error, match=message):
            call(None, torch.ones(3, 5), **arguments)


@pytest.mark.parametrize(
    ("img", "floats", "arguments", "message"),
    [
        ((4, 3, 1, 34, 36), (3, 4, 5), {}, r"same T and B; found img \(4, 3, .*, floats \(3, 4, 5"),
        ((3, 1, 34, 36), (4, 3, 5), {}, r"sequence has shape \(T, B, …\) in both"),
        (
            (0, 3, 1, 34, 36),
            (0, 3, 5),
            {},
            "img: found a sequence of 0 steps; accepted: at least 1",
        ),
        (
            (4, 3, 1, 34, 36),
            (4, 3, 5),
            {"tau": torch.rand(24, 1)},
            r"tau: expected shape \(T, K·B, 1\) with T = 4 and B = 3, or \(K, 1\) .*got \(24, 1\)",
        ),
    ],
)
def test_bad_sequences(img, floats, arguments, message):
    net = iqn_blocks.build(tiny(nn={"core": "gru"}))
    with pytest.raises(ValueError, match=message):
        net(torch.ones(img), torch.ones(floats), **arguments)


def test_core_by_hand():
    encoder = nn.Identity()
    encoder.state_dim = 4
    parts = {"advantage_head": Head(4, [4], (2,))}
    with pytest.raises(
        TypeError, match=r"core: Identity must have an integer state_dim >= 1, found None, and a"
    ):
        iqn_blocks.RecurrentIQN(encoder, nn.Identity(), TauEmbedding(3, 4), Hadamard(4), **parts)


def test_a_core_of_width_one():
    core, head = GRU(4, hidden_dim=1), Head(1, [4], (2,))
    encoder = nn.Identity()
    encoder.state_dim = 4
    net = iqn_blocks.RecurrentIQN(
        encoder, core, TauEmbedding(3, 1), Hadamard(1), advantage_head=head
    )
    assert (net.state_dim, net.initial_memory(3).shape) == (1, (3, 1))


def test_unknown_core():
    with pytest.raises(
        iqn_blocks.ConfigError,
        match=r"nn\.core: 'gur' is not registered; did you mean 'gru'\?",
    ):
        iqn_blocks.build(tiny_float(nn={"core": "gur"}))
    with pytest.raises(
        iqn_blocks.ConfigError,
        match=r"nn\.core\.lstm\.hidden_dim: found 0 \(int\); accepted: a whole number",
    ):
        iqn_blocks.build(tiny_float(nn={"core": {"lstm": {"hidden_dim": 0}}}))
