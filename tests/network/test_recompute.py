from __future__ import annotations

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

import iqn_blocks
from iqn_blocks.blocks import Head, TauEmbedding
from iqn_blocks.blocks.transformer import EncoderLayer
from tests.configs import tiny, tiny_btr, tiny_float, tiny_multimodal, tiny_transformer

CONFIGS = {
    "classic": tiny(),
    "btr": tiny_btr(),
    "float_only": tiny_float(),
    "multi_action": tiny(n_actions_per_block=2),
    "deep": tiny_float(nn={"decoder": {"value": {"mlp": {"n_hidden_layers": 3}}}}),
    "multimodal": tiny_multimodal(),
    "transformer": tiny_transformer(),
    "relu": tiny_float(nn={"activation": "relu", "iqn": {"cosine_start": 0}}),
}


def build(name):
    torch.manual_seed(0)
    net = iqn_blocks.build(CONFIGS[name]).eval()
    net.reset_noise()
    return net


def run(net, call, inputs, tau):
    q, _ = call(*inputs, num_quantiles=4, tau=tau)
    return [q, *torch.autograd.grad(q.float().square().sum(), list(net.parameters()))]


# Raised by torch itself when it traces any autograd.Function.
@pytest.mark.filterwarnings("ignore:.*autograd.*should not be instantiated:DeprecationWarning")
@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("rows", [4, 4 * 3], ids=["shared", "per_sample"])
@pytest.mark.parametrize(
    ("dtype", "compiled"), [(torch.float32, False), (torch.float64, False), (torch.float32, True)]
)
def test_same_values_and_gradients(name, rows, dtype, compiled):
    torch._dynamo.reset()
    net = build(name).to(dtype)
    inputs, tau = net.example_inputs(3), torch.rand(rows, 1)
    expected = run(net, net, inputs, tau)
    net.recompute = True
    call = torch.compile(net, fullgraph=True, backend="aot_eager") if compiled else net
    tolerance = 1e-4 if dtype == torch.float32 else 1e-9
    for a, b in zip(run(net, call, inputs, tau), expected, strict=True):
        assert (a - b).abs().max() <= tolerance * b.abs().max()


@pytest.mark.filterwarnings("ignore:In CPU autocast:UserWarning")
def test_autocast():
    net = build("classic")
    inputs, tau = net.example_inputs(3), torch.rand(4, 1)
    with torch.autocast("cpu", torch.bfloat16):
        expected = run(net, net, inputs, tau)
        net.recompute = True
        results = run(net, net, inputs, tau)
    assert results[0].dtype == torch.bfloat16
    for a, b in zip(results, expected, strict=True):
        assert a.dtype == b.dtype
        assert (a - b).abs().max() <= 0.05 * b.abs().max()


def kept_bytes(net, inputs, tau):
    """Bytes that a forward leaves alive: its result, and what backward needs."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as trace:
        q, _ = net(*inputs, tau=tau)
    del q  # alive until here
    return sum(event.self_cpu_memory_usage for event in trace.key_averages())


def test_neither_phi_nor_the_product_is_kept():
    net = iqn_blocks.build(tiny_float(nn={"float": {"mlp": {"hidden_dim": 97}}}))
    inputs, tau = net.example_inputs(10), torch.rand(80, 1)
    plain = kept_bytes(net, inputs, tau)
    net.recompute = True
    generator_state = torch.get_rng_state().nbytes
    assert kept_bytes(net, inputs, tau) <= plain - 2 * 80 * 97 * 4 + generator_state


def test_the_feed_forward_activations_of_native_layers_are_not_kept():
    net = iqn_blocks.build(tiny_multimodal())
    inputs, tau = net.example_inputs(3), torch.rand(4 * 3, 1)
    layers = [m for m in net.modules() if isinstance(m, EncoderLayer)]
    sizes = []
    for layer in layers:
        layer.linear1.register_forward_hook(lambda *call: sizes.append(call[2].nbytes))
    plain = kept_bytes(net, inputs, tau)
    net.recompute = True
    generator_states = (1 + len(layers)) * torch.get_rng_state().nbytes
    phi_and_product = 2 * 4 * 3 * net.state_dim * 4
    saved = sum(sizes[: len(layers)]) + phi_and_product
    assert kept_bytes(net, inputs, tau) <= plain - saved + generator_states


class DoubledHead(Head):
    def forward(self, x):
        return 2 * super().forward(x)


class ShiftedEmbedding(TauEmbedding):
    def forward(self, tau):
        return super().forward(tau) + 1


def strange(net, what):
    """What a user may do to a network; each changes its values."""
    head = net.value_head
    if what == "subclass of a head":
        head.__class__ = DoubledHead
    elif what == "subclass of the embedding":
        net.tau_embedding.__class__ = ShiftedEmbedding
    else:
        places = {"head": head, "layers": head.hidden, "layer": head.hidden[0]}
        places["product"] = head.hidden[0].linear
        places[what].register_forward_hook(lambda *call: call[2] * 3 + 1)


@pytest.mark.parametrize(
    "what",
    ["subclass of a head", "subclass of the embedding", "head", "layers", "layer", "product"],
)
def test_what_users_change_counts_there_too(what):
    net = build("deep")
    inputs, tau = net.example_inputs(3), torch.rand(4, 1)
    before = run(net, net, inputs, tau)[0]
    strange(net, what)
    expected = run(net, net, inputs, tau)
    assert (expected[0] - before).abs().max() > 0.1 * before.abs().max()
    net.recompute = True
    for a, b in zip(run(net, net, inputs, tau), expected, strict=True):
        torch.testing.assert_close(a, b)


def second_order(net, inputs, tau):
    parameters = list(net.parameters())
    q, _ = net(*inputs, tau=tau)
    first = torch.autograd.grad(q.square().sum(), parameters, create_graph=True)
    total = sum(gradient.square().sum() for gradient in first)
    return torch.autograd.grad(total, parameters, allow_unused=True, materialize_grads=True)


def test_differentiable_twice_and_again():
    net = build("deep")
    inputs, tau = net.example_inputs(3), torch.rand(12, 1)
    expected = second_order(net, inputs, tau)
    net.recompute = True
    for a, b in zip(second_order(net, inputs, tau), expected, strict=True):
        torch.testing.assert_close(a, b)
    q, _ = net(*inputs, tau=tau)
    for _ in range(3):  # one graph, several times
        q.sum().backward(retain_graph=True)
    three = [p.grad.clone() for p in net.parameters() if p.grad is not None]
    net.zero_grad()
    net(*inputs, tau=tau)[0].sum().backward()
    for a, b in zip(three, (p.grad for p in net.parameters() if p.grad is not None), strict=True):
        torch.testing.assert_close(a, 3 * b)


@pytest.mark.parametrize("dropout", [0.0, 0.4])
def test_dropout_in_a_native_layer_is_the_same_in_backward(dropout):
    raw = tiny_multimodal(nn={"encoder": {"transformer": {"dropout": dropout}}})
    torch.manual_seed(0)
    net = iqn_blocks.build(raw).train()
    inputs, tau, found = net.example_inputs(3), torch.rand(12, 1), []
    for net.recompute in (False, True):
        torch.manual_seed(1)
        found.append(run(net, net, inputs, tau))
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("name", ["float_only", "transformer"])
def test_compiled_it_keeps_less_too(name):
    torch._dynamo.reset()
    net = build(name)
    inputs, tau = net.example_inputs(16), torch.rand(8 * 16, 1)
    kept = []
    for net.recompute in (False, True):
        torch._dynamo.reset()
        call = torch.compile(net, fullgraph=True, backend="aot_eager_decomp_partition")
        call(*inputs, tau=tau)
        kept.append(kept_bytes(call, inputs, tau))
    assert kept[1] < kept[0]


def test_it_can_be_asked_for_when_building():
    assert not iqn_blocks.build(tiny_float()).recompute
    assert iqn_blocks.build(tiny_float(), recompute=True).recompute
