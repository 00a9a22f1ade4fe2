from __future__ import annotations

import copy
import pickle

import pytest
import torch
from iqn_blocks.blocks.acting import Acting
from iqn_blocks.inference import _mean_over_quantiles
from torch import nn

import iqn_blocks
from iqn_blocks import optimize_for_inference
from iqn_blocks.blocks import NoisyLinear, SpectralNormConv2d, packed
from iqn_blocks.blocks.stems import ResidualBlock
from tests.configs import tiny, tiny_btr, tiny_float, tiny_image, tiny_multimodal, tiny_transformer

TRANSFORMER = {"transformer": {"d_model": 4, "n_heads": 2}}
CONFIGS = {
    "classic": tiny(),
    "btr": tiny_btr(),
    "float_only": tiny_float(),
    "image_only": tiny_image(),
    "transformer": tiny_transformer(),
    "transformers": tiny_transformer(nn={"decoder": {"advantage": TRANSFORMER}}),
    "multi_action": tiny_btr(n_actions_per_block=2),
    "deep": tiny_float(nn={"decoder": {"value": {"mlp": {"hidden_dim": 5, "n_hidden_layers": 3}}}}),
    "multimodal": tiny_multimodal(btr={"use_impala_cnn": True, "impala_model_size": 1}),
    "widths": tiny_float(nn={"decoder": {"value": {"mlp": {"hidden_dim": 5}}}}),
}


@pytest.fixture(params=["small", "packed"])
def size(request, monkeypatch):
    """Tiny networks as they are, and as if they were large enough to be packed."""
    if request.param == "packed":
        monkeypatch.setattr(packed, "FEWEST_POSITIONS", 1)
        monkeypatch.setattr(packed, "FEWEST_PRODUCTS", 1)


@pytest.fixture(params=CONFIGS, ids=str)
def net(request, size):
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
            fast.q_values(*inputs, risk=lambda tau: tau / 2),
            net.q_values(*inputs, risk=lambda tau: tau / 2),
        ),
        (fast(*inputs, tau=tau)[0], net(*inputs, tau=tau)[0]),
        (fast(*inputs, 6, tau)[0], net(*inputs, 6, tau)[0]),
    ]:
        error = (result - expected).abs().max() / expected.abs().max()
        assert error <= 1e-5
    mask = torch.ones_like(result.unflatten(0, (6, 3))[0], dtype=torch.bool)
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
    addresses = [t.data_ptr() for t in (*fast.parameters(), *fast.buffers())]
    change(net)
    assert torch.equal(fast.q_values(*inputs), before)
    fast.refresh(net)
    assert_same_values(fast, net)
    assert [t.data_ptr() for t in (*fast.parameters(), *fast.buffers())] == addresses


def test_live_network_is_left_alone(net):
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    fast = optimize_for_inference(net)
    fast.q_values(*net.example_inputs(2))
    after = net.state_dict()
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
    assert all(p.requires_grad for p in net.parameters())


@pytest.mark.parametrize("name", ["btr", "multi_action"])
def test_new_noise_alone(name):
    net = iqn_blocks.build(CONFIGS[name]).eval()
    fast = optimize_for_inference(net)
    before = fast.q_values(*net.example_inputs(2))
    net.reset_noise()
    fast.refresh_heads(net)
    assert_same_values(fast, net)
    assert not torch.allclose(fast.q_values(*net.example_inputs(2)), before)


def test_refresh_from_another_network():
    fast = optimize_for_inference(iqn_blocks.build(tiny_float()))
    with pytest.raises(ValueError, match="another configuration; make a new copy"):
        fast.refresh(iqn_blocks.build(tiny_float(n_actions=4)))


def test_copies_pickles_and_compiles(net):
    fast = optimize_for_inference(net)
    for twin in (copy.deepcopy(fast), pickle.loads(pickle.dumps(fast))):
        assert_same_values(twin, net)
    torch._dynamo.reset()
    compiled = torch.compile(fast.q_values, fullgraph=True, backend="eager")
    inputs = net.example_inputs(3)
    torch.testing.assert_close(compiled(*inputs), fast.q_values(*inputs))


def test_bfloat16_copy(net):
    fast = optimize_for_inference(net).bfloat16()
    inputs = net.example_inputs(3)
    for _ in range(2):
        q, expected = fast.q_values(*inputs), net.q_values(*inputs)
        assert q.dtype == torch.bfloat16
        assert (q - expected).abs().max() <= 0.1 * expected.abs().max()
        change(net)
        fast.refresh(net)


@pytest.mark.usefixtures("size")
def test_a_copy_made_while_all_modules_have_a_hook():
    net = iqn_blocks.build(tiny_btr()).eval()
    hook = nn.modules.module.register_module_forward_hook(lambda *call: None)
    try:
        fast = optimize_for_inference(net)
    finally:
        hook.remove()
    assert_same_values(fast, net)


def test_the_mean_over_levels_keeps_its_digits_in_bfloat16():
    net = iqn_blocks.build(tiny_float(nn={"iqn": {"k": 13}})).requires_grad_(False)
    for parameter in net.parameters():
        parameter.zero_()
    net.value_head.first_hidden.linear.bias.fill_(1.5)
    net.value_head.readout.weight[:, 0] = 1
    fast = optimize_for_inference(net).bfloat16()
    assert (fast.q_values(*net.example_inputs(2)) == 1.5).all()  # 1.5 · 13 / 13, 1.508 if rounded


@pytest.mark.usefixtures("size")
def test_no_rows():
    net = iqn_blocks.build(tiny_btr())
    assert optimize_for_inference(net).q_values(*net.example_inputs(0)).shape == (0, 3)


def test_the_image_is_not_written_to():
    fast = optimize_for_inference(iqn_blocks.build(tiny_btr()))
    img, floats = fast.example_inputs(2)
    before = img.clone()
    fast.q_values(img, floats)
    assert torch.equal(img, before)


def doubled(stage):
    class Doubled(ResidualBlock):
        def forward(self, x):
            return 2 * super().forward(x)

    stage.blocks[0].__class__ = Doubled


@pytest.mark.parametrize(
    ("config", "change"),
    [
        (tiny(), lambda stem: stem.convs[0].register_forward_hook(lambda *call: 2 * call[2])),
        (tiny(), lambda stem: torch.nn.utils.parametrizations.weight_norm(stem.convs[0])),
        (tiny_btr(), lambda stem: doubled(stem.stages[0])),
    ],
    ids=["hook", "parametrized", "own block"],
)
def test_what_the_user_put_into_a_stem_is_kept(config, change):
    net = iqn_blocks.build(config).eval()
    change(net.encoder.stem)
    inputs = net.example_inputs(2)
    fast = optimize_for_inference(net)
    assert not isinstance(fast.encoder.stem, Acting)
    torch.testing.assert_close(fast.q_values(*inputs), net.q_values(*inputs).detach())


@pytest.mark.parametrize("config", [tiny(), tiny_btr()], ids=["classic", "btr"])
def test_export_with_a_dynamic_batch(config):
    fast = optimize_for_inference(iqn_blocks.build(config))
    batch = torch.export.Dim("batch", min=1, max=4096)

    class Acting(nn.Module):
        def __init__(self):
            super().__init__()
            self.fast = fast

        def forward(self, img, floats):
            return self.fast.q_values(img, floats)

    program = torch.export.export(
        Acting(), fast.example_inputs(20), dynamic_shapes=({0: batch}, {0: batch})
    )
    inputs = fast.example_inputs(33)
    torch.testing.assert_close(program.module()(*inputs), fast.q_values(*inputs))


@pytest.mark.usefixtures("size")
def test_loaded_weights_are_packed():
    one, other = (optimize_for_inference(iqn_blocks.build(tiny_btr())) for i in (0, 1))
    inputs = one.example_inputs(2)
    other.load_state_dict(one.state_dict())
    torch.testing.assert_close(other.q_values(*inputs), one.q_values(*inputs))


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


def test_heads_of_different_activations_are_not_one():
    net = iqn_blocks.build(tiny_float()).eval()
    net.value_head.first_hidden.negative_slope = 0.5
    inputs = net.example_inputs(2)
    fast = optimize_for_inference(net)
    torch.testing.assert_close(fast.q_values(*inputs), net.q_values(*inputs).detach())


def test_the_mean_over_levels_keeps_its_digits_under_autocast():
    features = torch.randn(10 * 2, 3)
    with torch.autocast("cpu", torch.bfloat16):
        mean = _mean_over_quantiles(features, 10)
    torch.testing.assert_close(mean, features.view(10, 2, 3).mean(0))
