"""The head whose values never fall as τ rises: equations, order, and networks with it."""

from __future__ import annotations

import math
from functools import partial

import pytest
import torch
from torch import nn

import iqn_blocks
from iqn_blocks import ConfigError
from iqn_blocks.blocks import Hadamard, Head, MonotoneHead, TauEmbedding
from iqn_blocks.diagnostics import crossing_rate
from iqn_blocks.diagram import svg
from iqn_blocks.functional import midpoints
from iqn_blocks.losses import quantile_huber_loss
from tests.blocks import checks
from tests.blocks.checks import rand, randn
from tests.blocks.compare import compare_both
from tests.configs import merge, tiny_float
from tests.reference.parts.monotone import monotone_head

MONOTONE = {"monotone": {"hidden_dim": 8, "n_levels": 5}}
PLAIN = {"mlp": {"hidden_dim": 8}}


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def config(dueling="at_midpoints", advantage=MONOTONE, value=MONOTONE, **change):
    """None of these keys is unread."""
    slots = {"advantage": advantage} | ({} if dueling == "none" else {"value": value})
    base = tiny_float(nn={"decoder": {"dueling": dueling, **slots}})
    del base["nn"]["decoder"]["dense_hidden_dimension"]
    return merge(base, change)


@pytest.mark.parametrize("out_shape", [(1,), (3,), (2, 3)])
@pytest.mark.parametrize("levels", [1, 4])
@pytest.mark.parametrize("shared", [True, False])
def test_it_is_its_equation(out_shape, levels, shared):
    head = MonotoneHead(5, out_shape, hidden_dim=6, n_levels=levels)

    def draw(generator):
        x = torch.randn((levels * 2, 5), generator=generator, dtype=torch.float64)
        rows = 3 if shared else 6
        return [x, torch.rand((rows, 1), generator=generator, dtype=torch.float64)]

    sizes = {"out_shape": out_shape, "width": 6, "levels": levels, "num_quantiles": 3}
    compare_both(head, partial(monotone_head, **sizes), draw, 3)


def thousand_levels(dtype):
    """Among them 0, 1, the borders of the pieces and their neighbours."""
    borders = torch.linspace(0, 1, 6, dtype=dtype)
    near = [torch.nextafter(borders, torch.tensor(float(end), dtype=dtype)) for end in (0, 1)]
    tau = torch.cat([borders, *near, torch.rand(1000, dtype=dtype)])
    return tau[:1000].clamp(0, 1)[torch.randperm(1000)][:, None]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("dueling", ["at_midpoints", "none"])
@pytest.mark.parametrize("scale", [1e-4, 1, 100])
def test_no_levels_cross(dtype, dueling, scale):
    """Also where values are so close, or so far apart, that rounding decides."""
    net = checks.build(config(dueling, n_actions_per_block=2), dtype)
    with torch.no_grad():
        for parameter in net.advantage_head.readout.parameters():
            parameter *= scale
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    floats = 5 * randn(16, 5, dtype=wide)
    tau = thousand_levels(wide)
    q, levels = net.quantiles(None, floats, 1000, tau)
    assert q.shape == (16, 1000, 2, 3) and crossing_rate(q, levels) == 0
    assert (q.amax(1) > q.amin(1)).float().mean() > 0.5  # a slope may be 0 to rounding


def test_an_ordinary_head_crosses():
    """What the test above would see, and what one ordinary head does beside a monotone one."""
    floats, tau = 5 * randn(16, 5, dtype=torch.float32), thousand_levels(torch.float32)
    for heads in ({"advantage": PLAIN}, {"value": PLAIN}, {"advantage": PLAIN, "value": PLAIN}):
        net = checks.build(config(**heads))
        with torch.no_grad():
            for head in (net.advantage_head, net.value_head):
                head.readout.weight *= 10 if isinstance(head, Head) else 0.1
        assert crossing_rate(*net.quantiles(None, floats, 1000, tau)) > 0.01


def test_acting_at_its_levels_gives_the_mean_exactly():
    net = checks.build(config("none", nn={"iqn": {"k": 5}}), torch.float64)
    floats = randn(3, 5)
    x = net.mixer(net.encode(None, floats), net.tau_embedding(midpoints(5).double()), 5)
    y = net.advantage_head.readout(net.advantage_head.hidden(x))[:, :3]
    torch.testing.assert_close(net.q_values(None, floats), y.view(5, 3, 3).mean(0))


def test_dueling_at_midpoints_leaves_the_mean_of_the_value_head():
    net = checks.build(config(nn={"iqn": {"k": 5}}), torch.float64)
    floats, tau = randn(3, 5), midpoints(5).double()
    x = net.mixer(net.encode(None, floats), net.tau_embedding(tau), 5)
    value = net.value_head(x, tau, 5).view(5, 3).mean(0)
    torch.testing.assert_close(net.q_values(None, floats).mean(-1), value)


def test_each_head_reads_its_own_levels():
    """Heads with 5 levels, with 3 and with none, against heads that were called one by one."""
    floats, tau = randn(2, 5), rand(6, 1)
    three = {"monotone": {"hidden_dim": 8, "n_levels": 3}}
    for value in (MONOTONE, three, PLAIN):
        net = checks.build(config(value=value), torch.float64)
        state = net.encode(None, floats)

        def one(head, tau, count, net=net, state=state):
            n_levels = getattr(head, "n_levels", None)
            if n_levels is None:
                return head(net.mixer(state, net.tau_embedding(tau), count))
            levels = midpoints(n_levels, dtype=torch.float64)
            return head(net.mixer(state, net.tau_embedding(levels), n_levels), tau, count)

        centre = one(net.advantage_head, net.acting_tau(), 4).view(4, 2, 3).mean((0, 2))
        expected = one(net.advantage_head, tau, 3) + one(net.value_head, tau, 3)
        expected = expected - centre.repeat(3)[:, None]
        torch.testing.assert_close(net(None, floats, 3, tau)[0], expected)


def test_dueling_per_level_is_refused():
    way_out = r"accepted: at_midpoints, or none, that is no value head"
    for slot in ("advantage", "value"):
        with pytest.raises(
            ConfigError,
            match=rf"^nn\.decoder\.dueling: found per_level with MonotoneHead.*{way_out}",
        ):
            iqn_blocks.build(tiny_float(nn={"decoder": {slot: "monotone"}}))
    encoder = nn.Identity()
    encoder.state_dim = 4
    parts = encoder, TauEmbedding(3, 4), Hadamard(4)
    heads = {"value_head": Head(4, [4], (1,)), "advantage_head": MonotoneHead(4, (2,))}
    with pytest.raises(ValueError, match=rf"^dueling: found per_level with Monotone.*{way_out}"):
        iqn_blocks.IQN(*parts, **heads)
    iqn_blocks.IQN(*parts, **heads, dueling="at_midpoints")
    iqn_blocks.IQN(*parts, advantage_head=heads["advantage_head"])


@pytest.mark.parametrize("batch", [0, 1, 3])
@pytest.mark.parametrize("count", [1, 4])
def test_any_batch_and_number_of_levels(batch, count):
    net = checks.build(config("none"))
    floats = randn(batch, 5, dtype=torch.float32)
    q, tau = net(None, floats, count, scheme="uniform")
    assert q.shape == (count * batch, 3) and tau.shape == (count * batch, 1)
    assert net.q_values(None, floats).shape == (batch, 3)


def test_levels_that_do_not_fit():
    head = MonotoneHead(4, (2,), n_levels=3)
    with pytest.raises(ValueError, match=r"tau: 4 rows, but 3 quantiles .* need 6 .* or 3"):
        head(torch.zeros(6, 4), torch.zeros(4, 1), 3)


def test_compiled_exported_and_saved(tmp_path):
    net, floats = checks.build(config("none")), randn(2, 5, dtype=torch.float32)
    checks.one_graph(net, None, floats, tau=rand(6, 1, dtype=torch.float32))
    checks.exported(net, floats=floats)
    checks.saved_and_loaded(net, tmp_path, lambda net: [net.q_values(None, floats)])


@pytest.mark.parametrize("dueling", ["at_midpoints", "none"])
def test_recompute_changes_no_gradient(dueling):
    net = checks.build(config(dueling), torch.float64)
    results = []
    for net.recompute in (False, True):
        tau = rand(6, 1).requires_grad_()
        q, _ = net(None, randn(2, 5), tau=tau)
        results.append([q, *torch.autograd.grad(q.square().sum(), [tau, *net.parameters()])])
    checks.alike(*results)


def test_after_a_core():
    net = checks.build(config("none", nn={"core": "gru"}))
    floats, tau = randn(4, 3, 5, dtype=torch.float32), thousand_levels(torch.float32)
    q, levels, _ = net.quantiles(None, floats, 1000, tau)
    assert q.shape == (4, 3, 1000, 3)
    assert crossing_rate(q.flatten(0, 1), levels.flatten(0, 1)) == 0
    assert net.q_values(None, floats).q.shape == (4, 3, 3)


def test_at_proposed_fractions():
    net = checks.build(config("none", nn={"iqn": {"fractions": "fqf"}}))
    floats = randn(3, 5, dtype=torch.float32)
    assert crossing_rate(*net.quantiles(None, floats)) == 0
    assert net.q_values(None, floats).shape == (3, 3)


def test_stages_and_picture():
    net = checks.build(config())
    shapes = {stage.name: stage.shape for stage in iqn_blocks.describe_stages(net)}
    assert shapes["tau_embedding"] == ("5", "8")
    assert shapes["mixer"] == ("5·B", "8") and shapes["advantage_head.readout"] == ("5·B", "6")
    names = [stage.name for stage in iqn_blocks.describe_stages(net)]
    assert len(names) == len(set(names))
    assert svg(net).count(">mixer<") == 1


def test_options_are_checked():
    message = r"nn\.decoder\.advantage\.monotone\.n_levels: found 0 \(int\); accepted: a whole"
    with pytest.raises(ConfigError, match=message):
        iqn_blocks.build(config("none", advantage={"monotone": {"n_levels": 0}}))


def test_it_learns_a_distribution():
    """Exponential of rate 1, whose quantiles are −ln(1 − τ) and whose mean is 1."""
    head = MonotoneHead(1, (1,), hidden_dim=16, n_levels=16)
    optimizer = torch.optim.Adam(head.parameters(), lr=0.02)
    x = midpoints(16)
    samples = -midpoints(256).log().T
    for _ in range(300):
        tau = torch.rand(64, 1)
        loss = quantile_huber_loss(head(x, tau, 64).T, samples, tau.T, kappa=0).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    tau = torch.tensor([[0.1], [0.5], [0.9]])
    found = head(x, tau, 3).flatten().tolist()
    assert found == pytest.approx([-math.log(1 - t) for t in (0.1, 0.5, 0.9)], abs=0.2)


def test_what_it_is_made_with_by_default():
    head = MonotoneHead(4, (3,), noisy=True, noisy_readout=True)
    assert head.extra_repr() == "out_shape=(3,), n_levels=32"
    # σ = sigma0 / √in, with sigma0 = ½: of 4 numbers, and of 512 hidden units
    for layer, width in ((head.hidden[0].linear, 4), (head.readout, 512)):
        sigma = 0.5 / math.sqrt(width)
        torch.testing.assert_close(layer.weight_sigma, torch.full_like(layer.weight_sigma, sigma))
