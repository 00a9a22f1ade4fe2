from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import nn

import iqn_blocks
from iqn_blocks import IQN, InputSpec, optimize_for_inference
from iqn_blocks.blocks import Hadamard, Head, NoisyLinear, SpectralNormConv2d, TauEmbedding
from tests.configs import tiny, tiny_btr, tiny_float, tiny_image, tiny_multimodal, tiny_transformer

TRANSFORMER = {"transformer": {"d_model": 4, "n_heads": 2}}
DEEP = {"mlp": {"hidden_dim": 5, "n_hidden_layers": 3}}
CONFIGS = {
    "classic": tiny(),
    "btr": tiny_btr(),
    "float_only": tiny_float(),
    "image_only": tiny_image(),
    "transformer": tiny_transformer(),
    "transformers": tiny_transformer(nn={"decoder": {"advantage": TRANSFORMER}}),
    "multi_action": tiny_btr(n_actions_per_block=2),
    "deep": tiny_float(nn={"decoder": {"value": DEEP}}),
    "deep_noisy": tiny_btr(nn={"decoder": {"value": {"mlp": {"n_hidden_layers": 3}}}}),
    "multimodal": tiny_multimodal(btr={"use_impala_cnn": True, "impala_model_size": 1}),
    "film": tiny_float(nn={"iqn": {"mixer": "film"}}),
    "no_dueling": tiny_float(nn={"decoder": {"dueling": "none"}}),
    "at_midpoints": tiny_btr(nn={"decoder": {"dueling": "at_midpoints"}}),
    "monotone": tiny_btr(
        nn={"decoder": {"dueling": "at_midpoints", "advantage": "monotone", "value": "monotone"}}
    ),
    "fqf": tiny_float(nn={"iqn": {"fractions": "fqf"}}),
    "widths": tiny_float(nn={"decoder": {"value": {"mlp": {"hidden_dim": 5}}}}),
}


@pytest.fixture(params=CONFIGS, ids=str)
def net(request):
    torch.manual_seed(0)
    net = iqn_blocks.build(CONFIGS[request.param]).eval()
    if net.config.float_input_dim:
        net.set_float_stats(torch.arange(5.0), torch.arange(1.0, 6.0))
    net.reset_noise()
    return net


def assert_same_values(fast, net):
    inputs = net.example_inputs(3)
    tau = torch.rand(6, 1)
    for result, expected in [
        (fast.q_values(*inputs), net.q_values(*inputs)),
        (fast.q_values(*inputs, tau=tau), net.q_values(*inputs, tau=tau)),
        (
            fast.q_values(*inputs, tau=tau, risk=lambda tau: tau / 2),
            net.q_values(*inputs, tau=tau, risk=lambda tau: tau / 2),
        ),
        (fast(*inputs, tau=tau)[0], net(*inputs, tau=tau)[0]),
        (fast(*inputs, 6, tau)[0], net(*inputs, 6, tau)[0]),
        (fast.quantiles(*inputs, 6, tau)[0], net.quantiles(*inputs, 6, tau)[0]),
        (fast.encode(*inputs), net.encode(*inputs)),
    ]:
        error = (result - expected).abs().max() / expected.abs().max()
        assert error <= 1e-5
    mask = torch.ones_like(fast.q_values(*inputs), dtype=torch.bool)
    mask[..., 0] = False
    assert (fast.q_values(*inputs, mask=mask)[~mask] < -1e30).all()


def change(net):
    """Another update of the network: weights, statistics, spectral vectors and noise."""
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    net.train()(*net.example_inputs(2))
    net.eval().reset_noise()


def test_same_values(net):
    fast = optimize_for_inference(net)
    assert_same_values(fast, net)
    assert not any(p.requires_grad for p in fast.parameters())
    assert not any(isinstance(m, NoisyLinear | SpectralNormConv2d) for m in fast.modules())


def test_it_is_a_copy_until_refreshed(net):
    fast = optimize_for_inference(net)
    inputs = net.example_inputs(2)
    before = fast.q_values(*inputs)
    change(net)
    assert torch.equal(fast.q_values(*inputs), before)
    fast.refresh(net)
    assert_same_values(fast, net)


def test_in_place_the_tensors_stay_where_they_are(net):
    fast = optimize_for_inference(net)
    addresses = [t.data_ptr() for t in (*fast.parameters(), *fast.buffers())]
    change(net)
    fast.refresh(net, in_place=True)
    assert_same_values(fast, net)
    net.reset_noise()
    fast.refresh_heads(net, in_place=True)
    assert_same_values(fast, net)
    assert [t.data_ptr() for t in (*fast.parameters(), *fast.buffers())] == addresses


def test_live_network_is_left_alone(net):
    net.train()
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    fast = optimize_for_inference(net)
    fast.q_values(*net.example_inputs(2))
    after = net.state_dict()
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
    assert all(p.requires_grad for p in net.parameters())
    assert all(m.training for m in net.modules())


@pytest.mark.parametrize("name", ["btr", "multi_action", "deep_noisy", "at_midpoints"])
def test_new_noise_alone(name):
    net = iqn_blocks.build(CONFIGS[name]).eval()
    fast = optimize_for_inference(net)
    before = fast.q_values(*net.example_inputs(2))
    net.reset_noise()
    fast.refresh_heads(net)
    assert_same_values(fast, net)
    assert not torch.allclose(fast.q_values(*net.example_inputs(2)), before)


def test_without_noise():
    net = iqn_blocks.build(tiny_btr()).eval()
    silent = net.q_values(*net.example_inputs(2))
    net.reset_noise()
    fast = optimize_for_inference(net, noise=False)
    for refresh in (lambda net: None, fast.refresh, fast.refresh_heads):
        refresh(net)
        torch.testing.assert_close(fast.q_values(*net.example_inputs(2)), silent.detach())
    assert not torch.allclose(net.q_values(*net.example_inputs(2)), silent)


def test_refresh_from_another_network():
    fast = optimize_for_inference(iqn_blocks.build(tiny_float()))
    for refresh in (fast.refresh, fast.refresh_heads):
        with pytest.raises(ValueError, match=r"another configuration.*make a new copy"):
            refresh(iqn_blocks.build(tiny_float(n_actions=4)))
        with pytest.raises(TypeError, match=r"found InferenceIQN, accepted is an iqn_blocks.IQN"):
            refresh(fast)


def by_hand(actions=3, **parts):
    class Encoder(nn.Module):
        state_dim = 4

        def forward(self, img, floats):
            return floats

    parts = {
        "encoder": Encoder(),
        "tau_embedding": TauEmbedding(6, 4),
        "mixer": Hadamard(4),
        "value_head": Head(4, [5], (1,)),
        "advantage_head": Head(4, [5], (actions,)),
        "inputs": InputSpec(n_floats=4),
        **parts,
    }
    return IQN(**parts).eval()


def test_refresh_from_other_shapes_of_a_network_made_by_hand():
    fast = optimize_for_inference(by_hand())
    with pytest.raises(ValueError, match=r"other names or shapes.*make a new copy"):
        fast.refresh(by_hand(actions=4))


def test_a_network_made_by_hand_without_inputs():
    with pytest.raises(ValueError, match=r"inputs=InputSpec"):
        optimize_for_inference(by_hand(inputs=None))


def test_copies_pickles_and_loads(net):
    fast = optimize_for_inference(net)
    for twin in (copy.deepcopy(fast), pickle.loads(pickle.dumps(fast))):
        assert_same_values(twin, net)
    other = optimize_for_inference(iqn_blocks.build(net.config))
    other.load_state_dict(fast.state_dict())
    assert_same_values(other, net)


def test_compiles_once_for_every_refresh(net):
    fast, graphs = optimize_for_inference(net), []

    def backend(graph, inputs):
        graphs.append(graph)
        return graph.forward

    torch.compiler.reset()
    compiled = torch.compile(fast.q_values, fullgraph=True, backend=backend)
    inputs = net.example_inputs(3)
    for _ in range(3):
        torch.testing.assert_close(compiled(*inputs), net.q_values(*inputs).detach())
        change(net)
        fast.refresh(net)
        net.reset_noise()
        fast.refresh_heads(net)
    assert len(graphs) == 1


def test_bfloat16_copy(net):
    fast = optimize_for_inference(net).bfloat16()
    inputs = net.example_inputs(3)
    for _ in range(2):
        q, expected = fast.q_values(*inputs), net.q_values(*inputs)
        assert q.dtype == torch.bfloat16
        assert (q - expected).abs().max() <= 0.1 * expected.abs().max()
        change(net)
        fast.refresh(net)


def test_of_a_bfloat16_network():
    net = iqn_blocks.build(tiny_btr()).eval().bfloat16()
    inputs = net.example_inputs(3)
    q, expected = optimize_for_inference(net).q_values(*inputs), net.q_values(*inputs)
    assert q.dtype == torch.bfloat16
    assert (q - expected).abs().max() <= 0.1 * expected.abs().max()


def test_made_under_autocast():
    net = iqn_blocks.build(tiny_btr()).eval()
    with torch.autocast("cpu", torch.bfloat16):
        fast = optimize_for_inference(net)
    assert_same_values(fast, net)


def test_a_copy_made_while_all_modules_have_a_hook():
    net = iqn_blocks.build(tiny_btr()).eval()
    hook = nn.modules.module.register_module_forward_hook(lambda *call: None)
    try:
        fast = optimize_for_inference(net)
    finally:
        hook.remove()
    assert_same_values(fast, net)


def test_the_mean_over_quantiles_keeps_its_digits_in_bfloat16():
    net = iqn_blocks.build(tiny_float(nn={"iqn": {"k": 13}})).requires_grad_(False)
    for parameter in net.parameters():
        parameter.zero_()
    net.value_head.hidden[0].linear.bias.fill_(1.5)
    net.value_head.readout.weight[:, 0] = 1
    fast = optimize_for_inference(net).bfloat16()
    assert (fast.q_values(*net.example_inputs(2)) == 1.5).all()  # 1.5 · 13 / 13, 1.508 if rounded


def test_no_rows():
    net = iqn_blocks.build(tiny_btr())
    assert optimize_for_inference(net).q_values(*net.example_inputs(0)).shape == (0, 3)


def test_the_image_is_not_written_to():
    fast = optimize_for_inference(iqn_blocks.build(tiny_btr()))
    img, floats = fast.example_inputs(2)
    before = img.clone()
    fast.q_values(img, floats)
    assert torch.equal(img, before)


def test_gradients_of_the_inputs(net):
    fast = optimize_for_inference(net)
    given = [x for x in net.example_inputs(2) if x is not None]

    def gradients(network):
        leaves = [x.clone().requires_grad_() for x in given]
        inputs = iter(leaves)
        img, floats = (None if x is None else next(inputs) for x in net.example_inputs(2))
        q = network.q_values(img, floats)
        return torch.autograd.grad(q.square().sum(), leaves)

    torch.testing.assert_close(gradients(fast), gradients(net), rtol=1e-3, atol=1e-6)


class DoubledHead(Head):
    def forward(self, x):
        return 2 * super().forward(x)


class DoubledEmbedding(TauEmbedding):
    def forward(self, tau):
        return 2 * super().forward(tau)


class DoubledMixer(Hadamard):
    def forward(self, state, phi, num_quantiles):
        return 2 * super().forward(state, phi, num_quantiles)


class DoubledLinear(nn.Linear):
    def forward(self, x):
        return 2 * super().forward(x)


class DoubledNoise(NoisyLinear):
    def forward(self, x):
        return 2 * super().forward(x)


def with_layer(layer):
    head = Head(4, [5], (3,))
    head.hidden[0].linear = layer
    return head


@pytest.mark.parametrize(
    "parts",
    [
        {"value_head": DoubledHead(4, [5], (1,))},
        {"advantage_head": DoubledHead(4, [5], (3,), noisy=True)},
        {"advantage_head": nn.Sequential(nn.Linear(4, 3))},
        {"advantage_head": with_layer(DoubledLinear(4, 5))},
        {"advantage_head": with_layer(DoubledNoise(4, 5))},
        {"advantage_head": with_layer(nn.Linear(4, 5, bias=False))},
        {"value_head": Head(4, [], (1,))},
        {"tau_embedding": DoubledEmbedding(6, 4)},
        {"mixer": DoubledMixer(4)},
    ],
)
def test_parts_of_other_classes_run_as_they_are(parts):
    if isinstance(parts.get("advantage_head"), nn.Sequential):
        parts["advantage_head"].out_shape = (3,)
    net = by_hand(**parts)
    net.reset_noise()
    fast = optimize_for_inference(net)
    assert_same_values(fast, net)
    change(net)
    fast.refresh(net)
    assert_same_values(fast, net)


def test_heads_of_different_activations_are_not_one():
    net = by_hand()
    net.value_head.hidden[0].negative_slope = 0.5
    assert_same_values(optimize_for_inference(net), net)


def doubled(module, *rest):
    """A hook that doubles what a module gives."""
    q = rest[-1]
    return (2 * q[0], q[1]) if isinstance(q, tuple) else 2 * q


@pytest.mark.parametrize(
    "change",
    [
        lambda net: net.encoder.stem.stages[0].conv.register_forward_hook(doubled),
        lambda net: net.value_head.register_forward_hook(doubled),
        lambda net: net.advantage_head.hidden[0].register_forward_hook(doubled),
        lambda net: net.advantage_head.readout.register_forward_hook(doubled),
        lambda net: net.register_forward_hook(doubled),
        lambda net: setattr(net.value_head, "forward", lambda x: x[:, :1]),
    ],
    ids=["conv", "head", "layer", "readout", "network", "method"],
)
def test_hooks_that_a_copy_would_lose_are_refused(change):
    net = iqn_blocks.build(tiny_btr()).eval()
    change(net)
    with pytest.raises(ValueError, match=r"other values.*accepted is 0.0001.*class of your own"):
        optimize_for_inference(net)


@pytest.mark.parametrize("part", ["encoder", "encoder.stem.convs.0", "tau_embedding", "mixer"])
def test_hooks_on_parts_that_are_copied_are_kept(part):
    net = iqn_blocks.build(tiny()).eval()
    net.get_submodule(part).register_forward_hook(doubled)
    assert_same_values(optimize_for_inference(net), net)


def test_parametrized_layers_are_kept():
    net = iqn_blocks.build(tiny()).eval()
    nn.utils.parametrizations.weight_norm(net.encoder.stem.convs[0])
    assert_same_values(optimize_for_inference(net), net)


def test_a_target_network_whose_spectral_norm_iterates():
    net = iqn_blocks.build(tiny_btr()).eval()
    expected = net.q_values(*net.example_inputs(2)).detach()
    for layer in net.modules():
        if isinstance(layer, SpectralNormConv2d):
            layer.iterate_in_eval = True
    fast = optimize_for_inference(net)
    torch.testing.assert_close(fast.q_values(*net.example_inputs(2)), expected)


class Doubled(IQN):
    def q_values(self, *args, **kwargs):
        return 2 * super().q_values(*args, **kwargs)


def test_what_cannot_be_folded_is_refused():
    net = iqn_blocks.build(tiny_float())
    with pytest.raises(TypeError, match=r"copy made by optimize_for_inference.*pass the network"):
        optimize_for_inference(optimize_for_inference(net))
    net.__class__ = Doubled
    with pytest.raises(TypeError, match=r"found .*test_folded\.Doubled, .*as a part"):
        optimize_for_inference(net)
    with pytest.raises(TypeError, match=r"found torch.nn.*Sequential.*inside a wrapper"):
        optimize_for_inference(nn.Sequential(net))
    net.__class__ = IQN
    fast = optimize_for_inference(net)
    net.to("meta")
    for needs_values in (optimize_for_inference, fast.refresh, fast.refresh_heads):
        with pytest.raises(ValueError, match=r"meta device.*to_empty"):
            needs_values(net)
    with pytest.raises(ValueError, match=r"got 'onyx', accepted are 'torch', 'onnxruntime'"):
        optimize_for_inference(net, engine="onyx")


def test_weights_that_are_not_finite_are_refused():
    net = iqn_blocks.build(tiny_float())
    with torch.no_grad():
        net.value_head.readout.bias.fill_(float("nan"))
    with pytest.raises(ValueError, match=r"by nan of the largest.*not finite"):
        optimize_for_inference(net)
