from __future__ import annotations

import pytest
import torch

import iqn_blocks
from tests.configs import tiny, tiny_btr, tiny_float, tiny_transformer

CONFIGS = {
    "classic": tiny(),
    "btr": tiny_btr(),
    "transformer": tiny_transformer(),
    "float_only": tiny_float(),
    "multi_action": tiny(n_actions_per_block=2),
}


@pytest.fixture(autouse=True)
def fresh_dynamo():
    torch._dynamo.reset()


def build(name):
    torch.manual_seed(0)
    net = iqn_blocks.build(CONFIGS[name])
    net.reset_noise()
    return net


def run(call, net, inputs, tau):
    """Values and gradients of one training step's forward and backward."""
    q, *_ = call(*inputs, tau=tau)
    return [q, *torch.autograd.grad(q.float().square().sum(), list(net.parameters()))]


def assert_equal(compiled, eager, rtol):
    for a, b in zip(compiled, eager, strict=True):
        scale = b.detach().abs().max().item()
        torch.testing.assert_close(a, b, atol=rtol * scale + 1e-7, rtol=rtol)


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("mode", ["train", "eval"])
def test_whole_graph(name, mode):
    net = getattr(build(name), mode)()
    twin = build(name)
    getattr(twin, mode)()
    compiled = torch.compile(net, fullgraph=True, backend="eager")
    inputs, tau = net.example_inputs(3), torch.rand(6, 1)
    for _ in range(2):  # spectral norm moves on in training mode, alike in both
        assert_equal(run(compiled, net, inputs, tau), run(twin, twin, inputs, tau), 1e-5)
    q, drawn = compiled(*inputs)
    assert q.shape[0] == drawn.shape[0] == 4 * 3
    q_values = torch.compile(net.eval().q_values, fullgraph=True, backend="eager")
    torch.testing.assert_close(q_values(*inputs), net.q_values(*inputs))


def distances(found, exact):
    """``‖found − exact‖ / ‖exact‖`` of each tensor."""
    return [((a.float() - b).norm() / b.norm()).item() for a, b in zip(found, exact, strict=True)]


@pytest.mark.parametrize("name", ["classic", "btr", "float_only"])
def test_inductor_forward_and_backward(name):
    net = build(name).eval()
    inputs, tau = net.example_inputs(3), torch.rand(6, 1)
    compiled = torch.compile(net, fullgraph=True)
    assert_equal(run(compiled, net, inputs, tau), run(net, net, inputs, tau), 1e-4)


@pytest.mark.filterwarnings("ignore:In CPU autocast:UserWarning")
@pytest.mark.parametrize("name", ["classic", "btr", "float_only"])
def test_inductor_under_autocast(name):
    # bfloat16 turns some ReLUs and maxima of a deep stem, and eager and compiled code not the same
    # ones: what can be asked is that compiled code comes as near to float32 as eager code does.
    net = build(name).eval()
    inputs, tau = net.example_inputs(3), torch.rand(6, 1)
    exact = run(net, net, inputs, tau)
    with torch.autocast("cpu", torch.bfloat16):
        eager = run(net, net, inputs, tau)
        result = run(torch.compile(net, fullgraph=True), net, inputs, tau)
    assert result[0].dtype == torch.bfloat16
    assert distances(result, exact)[0] < 0.03
    for ours, theirs in zip(distances(result, exact), distances(eager, exact), strict=True):
        assert ours <= 1.5 * theirs + 0.01


class Counter:
    """A backend that counts the graphs it is handed."""

    def __init__(self):
        self.graphs = 0

    def __call__(self, graph, example_inputs):
        self.graphs += 1
        return graph.forward


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("mode", ["train", "eval"])
def test_graphs_of_a_dynamic_batch(name, mode):
    convolutions = not CONFIGS[name]["nn"]["vis"].get("no_image", False)
    for sizes, accepted in [(range(2, 34), 2 if convolutions else 1), (range(16, 65, 8), 1)]:
        torch._dynamo.reset()
        net, counter = getattr(build(name), mode)(), Counter()
        compiled = torch.compile(net, fullgraph=True, backend=counter, dynamic=True)
        for batch in sizes:
            compiled(*net.example_inputs(batch), 4)
        assert counter.graphs <= accepted


def test_noise_of_the_moment_reaches_the_compiled_network():
    net, counter = build("btr").eval(), Counter()
    compiled = torch.compile(net, fullgraph=True, backend=counter)
    inputs, tau = net.example_inputs(3), torch.rand(6, 1)
    for _ in range(4):
        net.reset_noise()
        torch.testing.assert_close(compiled(*inputs, tau=tau)[0], net(*inputs, tau=tau)[0])
    net.disable_noise()
    torch.testing.assert_close(compiled(*inputs, tau=tau)[0], net(*inputs, tau=tau)[0])
    assert counter.graphs == 1


@pytest.mark.parametrize("backend", ["eager", "inductor"])
def test_compiled_backward_survives_reset_noise(backend):
    net = build("btr").eval()
    inputs, tau = net.example_inputs(3), torch.rand(6, 1)
    expected = run(net, net, inputs, tau)
    compiled = torch.compile(net, fullgraph=True, backend=backend)
    q, _ = compiled(*inputs, tau=tau)
    net.reset_noise()
    grads = torch.autograd.grad(q.square().sum(), list(net.parameters()))
    assert_equal(grads, expected[1:], 1e-4)


@pytest.mark.parametrize("name", CONFIGS)
def test_export_with_a_dynamic_batch(name):
    net = build(name).eval()
    batch = torch.export.Dim("batch", min=2, max=4096)
    inputs = net.example_inputs(3)
    tau = torch.rand(4, 1)
    shapes = [None if x is None else {0: batch} for x in inputs]
    program = torch.export.export(
        net, (*inputs, 4, tau), dynamic_shapes=(*shapes, None, None), strict=False
    )
    for size in (3, 8):
        inputs = net.example_inputs(size)
        torch.testing.assert_close(
            program.module()(*inputs, 4, tau)[0], net(*inputs, 4, tau)[0], atol=1e-5, rtol=1e-4
        )
