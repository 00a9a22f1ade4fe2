from __future__ import annotations

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import iqn_blocks
from iqn_blocks.blocks.recompute import mixed_chains
from iqn_blocks.blocks.transformer import EncoderLayer
from tests.configs import tiny, tiny_btr, tiny_float, tiny_multimodal, tiny_transformer

CONFIGS = {
    "classic": tiny(),
    "btr": tiny_btr(),
    "float_only": tiny_float(),
    "multi_action": tiny(n_actions_per_block=2),
    "deep": tiny_float(nn={"decoder": {"value": {"mlp": {"n_hidden_layers": 3}}}}),
    "multimodal": tiny_multimodal(),
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


def saved_elements(net, inputs, tau):
    saved = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        saved[storage.data_ptr()] = storage.nbytes() // tensor.itemsize
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        net(*inputs, tau=tau)[0].sum()
    for parameter in net.parameters():
        saved.pop(parameter.untyped_storage().data_ptr(), None)
    return list(saved.values())


def test_neither_phi_nor_the_product_is_kept():
    net = iqn_blocks.build(tiny_float(nn={"float": {"mlp": {"hidden_dim": 97}}}))
    inputs, tau = net.example_inputs(10), torch.rand(80, 1)
    assert saved_elements(net, inputs, tau).count(80 * 97) == 2, "φ and the product"
    net.recompute = True
    assert 80 * 97 not in saved_elements(net, inputs, tau)


def test_the_feed_forward_activations_of_native_layers_are_not_kept():
    net = iqn_blocks.build(tiny_multimodal())
    inputs, tau = net.example_inputs(3), torch.rand(4 * 3, 1)
    layer = next(m for m in net.modules() if isinstance(m, EncoderLayer))
    sizes = []
    layer.linear1.register_forward_hook(lambda *call: sizes.append(call[2].numel()))
    before = saved_elements(net, inputs, tau).count(size := sizes[0])
    net.recompute = True
    assert saved_elements(net, inputs, tau).count(size) < before


def test_batched_gradients_of_one_output():
    net = build("classic")
    tau, state = torch.rand(4, 1), torch.rand(3, net.state_dim, requires_grad=True)
    chains = [head.links() for head in (net.value_head, net.advantage_head)]
    outputs = mixed_chains(state, tau, net.tau_embedding, chains, 4)
    grads = torch.randn(2, *outputs[1].shape)
    found = torch.autograd.grad(outputs[1], state, grads, is_grads_batched=True, retain_graph=True)
    for one, grad in zip(found[0], grads, strict=True):
        torch.testing.assert_close(
            one, torch.autograd.grad(outputs[1], state, grad, retain_graph=True)[0]
        )


def test_no_zeros_are_made_for_what_is_between_the_layers():
    net, made = build("float_only"), []
    width = net.value_head.first_hidden.linear.out_features
    net.recompute = True

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
            result = operation(*args, **(kwargs or {}))
            if "zero" in str(operation):
                made.append(tuple(result.shape))
            return result

    q, _ = net(*net.example_inputs(2), tau=torch.rand(8, 1))
    with Watch():
        q.sum().backward()
    assert (8, width) not in made


def test_a_readout_without_a_bias():
    net = build("float_only")
    net.value_head.readout.bias = None
    inputs, tau, gradients = net.example_inputs(2), torch.rand(8, 1), []
    for net.recompute in (False, True):
        net(*inputs, tau=tau)[0].square().sum().backward()
        gradients.append([p.grad for p in net.parameters()])
        net.zero_grad()
    torch.testing.assert_close(*gradients)


def test_it_can_be_asked_for_when_building():
    assert not iqn_blocks.build(tiny_float()).recompute
    assert iqn_blocks.build(tiny_float(), recompute=True).recompute


def test_transformer_slots_are_refused():
    with pytest.raises(ValueError, match="recompute: needs mlp in both decoder slots"):
        iqn_blocks.build(tiny_transformer(), recompute=True)
    net = iqn_blocks.build(tiny_transformer())
    with pytest.raises(ValueError, match="recompute"):
        net.recompute = True
    assert not net.recompute
