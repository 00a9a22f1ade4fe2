from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import nn

import iqn_blocks
from iqn_blocks.functional import mean_over_quantiles, midpoints
from tests.configs import merge, tiny, tiny_btr, tiny_float, tiny_image, tiny_transformer

CONFIGS = {
    "classic": tiny(),
    "btr": tiny_btr(),
    "transformer": tiny_transformer(),
    "float_only": tiny_float(),
    "image_only": tiny_image(),
    "multi_action": tiny(n_actions_per_block=2),
}


@pytest.fixture(params=CONFIGS, ids=str)
def net(request):
    torch.manual_seed(0)
    net = iqn_blocks.build(CONFIGS[request.param])
    net.reset_noise()
    return net


def build(config=None, **change):
    torch.manual_seed(0)
    return iqn_blocks.build(merge(config or tiny(), change))


# τ and the batch


@pytest.mark.parametrize("batch", [0, 1, 3])
@pytest.mark.parametrize("scheme", ["symmetric", "uniform", "midpoints"])
def test_shapes(net, batch, scheme):
    q, tau = net(*net.example_inputs(batch), 6, scheme=scheme)
    offsets, actions = net.config.n_actions_per_block, net.config.n_actions
    tail = (actions,) if offsets == 1 else (offsets, actions)
    assert q.shape == (6 * batch, *tail)
    assert tau.shape == (6 * batch, 1)
    assert net.q_values(*net.example_inputs(batch)).shape == (batch, *tail)


def test_quantiles_are_laid_out_as_losses_take_them(net):
    net.eval()
    inputs, tau = net.example_inputs(3), torch.rand(6 * 3, 1)
    rows, _ = net(*inputs, 6, tau)
    for number in (6, None):  # None: counted from tau, not net.n = 4
        q, levels = net.quantiles(*inputs, number, tau)
        assert q.shape[:2] == levels.shape == (3, 6)
        for k in range(6):
            for b in range(3):
                assert torch.equal(q[b, k], rows[k * 3 + b])
                assert levels[b, k] == tau[k * 3 + b]
    for number, k in ((6, 6), (None, net.n)):
        q, levels = net.quantiles(*inputs, number)
        assert q.shape[:2] == levels.shape == (3, k)


def test_numbers_of_quantiles_of_a_network_made_by_hand():
    """The defaults: 8 in training, 32 in acting."""
    built = build(tiny_float())
    parts = {"value_head": built.value_head, "advantage_head": built.advantage_head}
    net = iqn_blocks.IQN(built.encoder, built.tau_embedding, built.mixer, **parts)
    assert (net.n, net.k) == (8, 32)


def test_number_of_quantiles_defaults_to_iqn_n():
    net = build()
    assert net(*net.example_inputs(2))[1].shape == (4 * 2, 1)


def test_odd_number_of_quantiles():
    net = build()
    with pytest.raises(ValueError, match="even number, got 5"):
        net(*net.example_inputs(2), 5)
    assert net(*net.example_inputs(2), 5, scheme="uniform")[0].shape[0] == 10


def test_odd_default_number_of_quantiles_names_its_key():
    net = build(nn={"iqn": {"n": 5}})
    with pytest.raises(ValueError, match=r"nn\.iqn\.n: found 5, .* needs an even number"):
        net(*net.example_inputs(2))
    assert net(*net.example_inputs(2), scheme="uniform")[0].shape[0] == 10


def test_empty_tau_for_an_empty_batch():
    net = build()
    assert net(*net.example_inputs(0), tau=torch.rand(0, 1))[0].shape == (0, 3)


def test_own_tau_in_its_three_forms(net):
    inputs = net.eval().example_inputs(3)
    shared = torch.rand(4, 1)
    repeated = shared.repeat_interleave(3, 0)
    q, tau = net(*inputs, tau=repeated)
    assert torch.equal(tau, repeated)
    again, _ = net(*inputs, 4, repeated)
    assert torch.equal(q, again)
    q_shared, tau_shared = net(*inputs, 4, shared)
    torch.testing.assert_close(q_shared, q)
    assert torch.equal(tau_shared, repeated)


def test_rows_are_quantile_major():
    net = build()
    img, floats = net.example_inputs(3)
    tau = torch.rand(2 * 3, 1)
    q, _ = net(img, floats, tau=tau)
    for k in range(2):
        for b in range(3):
            row = k * 3 + b
            alone, _ = net(img[b : b + 1], floats[b : b + 1], tau=tau[row : row + 1])
            torch.testing.assert_close(q[row], alone[0])


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"tau": torch.rand(7, 1)}, ValueError, r"7 rows do not fit a batch of 3"),
        ({"tau": torch.rand(6, 2)}, ValueError, r"shape \(K·B, 1\) or \(K, 1\), got \(6, 2\)"),
        (
            {"tau": torch.rand(5, 1), "num_quantiles": 4},
            ValueError,
            r"5 rows, .*need 12 \(per sample\) or 4 \(shared\)",
        ),
        ({"tau": torch.ones(3, 1).long()}, TypeError, "expected a floating dtype, got torch.int64"),
        ({"tau": torch.rand(0, 1)}, ValueError, "0 rows do not fit a batch of 3"),
        ({"num_quantiles": 0}, ValueError, "num_quantiles: must be at least 1, got 0"),
        (
            {"tau": torch.rand(6, 1), "generator": torch.Generator()},
            ValueError,
            "generator: nothing is drawn when tau is given",
        ),
    ],
)
def test_bad_tau(arguments, error, message):
    net = build()
    with pytest.raises(error, match=message):
        net(*net.example_inputs(3), **arguments)


@pytest.mark.parametrize(
    ("img", "floats", "error", "message"),
    [
        (None, torch.rand(2, 5), TypeError, r"img: expected .*\(B, 1, 34, 36\).* got NoneType"),
        (torch.rand(2, 1, 36, 34), torch.rand(2, 5), ValueError, r"34, 36\).*\(2, 1, 36, 34\)"),
        (torch.rand(2, 34, 36), torch.rand(2, 5), ValueError, r"got shape \(2, 34, 36\)"),
        (torch.ones(2, 1, 34, 36).int(), torch.rand(2, 5), TypeError, "got torch.int32"),
        (torch.rand(2, 1, 34, 36), None, TypeError, r"floats: expected .*\(B, 5\).* got NoneType"),
        (torch.rand(2, 1, 34, 36), torch.rand(2, 4), ValueError, r"got shape \(2, 4\)"),
        (torch.rand(2, 1, 34, 36), torch.rand(2, 5) > 0, TypeError, "got torch.bool"),
        (torch.rand(2, 1, 34, 36), torch.rand(3, 5), ValueError, "batch sizes differ"),
        (
            torch.rand(2, 1, 34, 36, device="meta"),
            torch.rand(2, 5),
            ValueError,
            "devices differ, meta against cpu",
        ),
    ],
)
def test_bad_inputs(img, floats, error, message):
    with pytest.raises(error, match=message):
        build()(img, floats)


def test_image_only_and_float_only():
    net = build(tiny_image())
    img, floats = net.example_inputs(2)
    assert floats is None
    assert net(img)[0].shape == (8, 3)
    with pytest.raises(ValueError, match=r"takes none \(float_input_dim is 0\)"):
        net(img, torch.rand(2, 5))
    net = build(tiny_float())
    floats = torch.rand(2, 5)
    tau = torch.rand(8, 1)
    q, _ = net(None, floats, tau=tau)
    assert torch.equal(net(torch.rand(9, 9), floats, tau=tau)[0], q), "an image is ignored"


# Values that do not depend on how they are asked for


def test_train_and_eval_agree(net):
    if any(isinstance(m, iqn_blocks.blocks.SpectralNormConv2d) for m in net.modules()):
        for _ in range(300):
            net(*net.example_inputs(1))
    inputs, tau = net.example_inputs(3), torch.rand(6, 1)
    trained, _ = net.train()(*inputs, tau=tau)
    torch.testing.assert_close(net.eval()(*inputs, tau=tau)[0], trained)
    with torch.no_grad():
        torch.testing.assert_close(net(*inputs, tau=tau)[0], trained)


def test_uint8_images_are_scaled_inside():
    img = torch.randint(0, 256, (2, 1, 34, 36), dtype=torch.uint8)
    floats, tau = torch.rand(2, 5), torch.rand(4, 1)
    for scaling, scaled in [("signed", (img.float() - 128) / 128), ("unit", img.float() / 255)]:
        net = build(nn={"vis": {"uint8_scaling": scaling}})
        torch.testing.assert_close(net(img, floats, tau=tau)[0], net(scaled, floats, tau=tau)[0])


def test_q_values_are_the_mean_over_midpoints(net):
    net.eval()
    inputs = net.example_inputs(3)
    q, _ = net(*inputs, 4, midpoints(4))
    torch.testing.assert_close(net.q_values(*inputs), mean_over_quantiles(q, 4))
    tau = torch.rand(5, 1)
    q, _ = net(*inputs, 5, tau)
    torch.testing.assert_close(net.q_values(*inputs, tau=tau), mean_over_quantiles(q, 5))
    q, _ = net(*inputs, 4, midpoints(4) / 4)
    risky = net.q_values(*inputs, risk=lambda tau: tau / 4)
    torch.testing.assert_close(risky, mean_over_quantiles(q, 4))
    assert net.q_values(*inputs).requires_grad


def test_q_values_take_a_mask_and_a_shared_tau_only():
    net = build(n_actions_per_block=2)
    mask = torch.tensor([[True, False, True], [False, True, True]]).expand(3, 2, 3)
    q = net.q_values(*net.example_inputs(3), mask=mask)
    assert (q[~mask] == torch.finfo(torch.float32).min).all()
    assert q[mask].abs().max() < 1e6
    with pytest.raises(ValueError, match=r"risk: gave τ of shape \(4,\), expected \(K, 1\)"):
        net.q_values(*net.example_inputs(3), risk=lambda tau: tau.flatten())
    with pytest.raises(ValueError, match=r"takes shape \(K, 1\), got \(4,\)"):
        net.q_values(*net.example_inputs(3), tau=torch.rand(4))


def test_randomness_comes_from_the_generator_alone(net):
    net.eval()
    inputs = net.example_inputs(2)
    state = torch.get_rng_state()
    first, second = (net(*inputs, generator=torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(first[0], second[0])
    assert torch.equal(state, torch.get_rng_state())
    torch.manual_seed(5)
    _, drawn = net(*inputs)
    torch.manual_seed(5)
    assert torch.equal(net(*inputs)[1], drawn)


# Dtypes


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_dtypes(net, dtype):
    net.to(dtype).eval()
    q, tau = net(*net.example_inputs(2))
    assert q.dtype == dtype
    assert q.isfinite().all()
    assert tau.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    other = torch.float64 if dtype != torch.float64 else torch.float32
    cast = [None if x is None else x.to(other) for x in net.example_inputs(2)]
    assert net(*cast)[0].dtype == dtype


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_raw_floats_do_not_overflow_half_parameters(dtype):
    mean, std = [100_000.0] * 5, [3.0] * 5
    net = build(tiny_float(), float_inputs_mean=mean, float_inputs_std=std).eval()
    floats = 100_000 + torch.randn(4, 5) * 3
    tau = torch.rand(8, 1)
    expected, _ = net(None, floats, tau=tau)
    q, _ = net.to(dtype)(None, floats, tau=tau)
    torch.testing.assert_close(q.float(), expected, atol=0.05, rtol=0.05)


def test_half_cosines_are_those_of_full_precision():
    net = build(tiny_float(), nn={"iqn": {"embedding_dimension": 64}})
    seen = []
    net.tau_embedding.projection.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    tau = torch.rand(8, 1)
    net(None, torch.rand(2, 5), tau=tau)
    net.bfloat16()(None, torch.rand(2, 5), tau=tau)
    assert torch.equal(seen[1], seen[0].bfloat16())


@pytest.mark.filterwarnings("ignore:In CPU autocast:UserWarning")
def test_autocast_gives_its_dtype_and_full_precision_cosines(net):
    net.eval()
    inputs, tau = net.example_inputs(2), torch.rand(4, 1)
    seen = []
    net.tau_embedding.projection.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    with torch.autocast("cpu", torch.bfloat16):
        q, _ = net(*inputs, tau=tau)
    assert q.dtype == torch.bfloat16
    assert seen[0].dtype == torch.float32
    expected, _ = net(*inputs, tau=tau)
    scale = expected.abs().max().item()
    torch.testing.assert_close(q.float(), expected, atol=0.05 * scale, rtol=0.05)


# As a module among modules


def test_functional_call_and_grad(net):
    net.eval()
    inputs, tau = net.example_inputs(2), torch.rand(4, 1)
    expected, _ = net(*inputs, tau=tau)
    state = {**dict(net.named_parameters()), **dict(net.named_buffers())}
    q, _ = torch.func.functional_call(net, state, inputs, {"tau": tau})
    assert torch.equal(q, expected)


@pytest.mark.parametrize("mode", ["train", "eval"])
@pytest.mark.parametrize("name", sorted(set(CONFIGS) - {"transformer"}))
def test_vmap_over_stacked_networks(name, mode):
    nets = [iqn_blocks.build(CONFIGS[name]) for _ in range(3)]
    for each in nets:
        getattr(each, mode)()
        each.reset_noise()
    parameters, buffers = torch.func.stack_module_state(nets)
    skeleton = copy.deepcopy(nets[0]).to("meta")
    inputs, tau = nets[0].example_inputs(2), torch.rand(4, 1)

    def call(parameters, buffers):
        return torch.func.functional_call(skeleton, (parameters, buffers), inputs, {"tau": tau})[0]

    q = torch.func.vmap(call)(parameters, buffers)
    for i, each in enumerate(nets):
        torch.testing.assert_close(q[i], each(*inputs, tau=tau)[0], atol=1e-5, rtol=1e-4)


def test_deepcopy_and_pickle_carry_the_noise(net):
    net(*net.example_inputs(2))
    net.eval()
    inputs, tau = net.example_inputs(2), torch.rand(4, 1)
    expected, _ = net(*inputs, tau=tau)
    for twin in (copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
        assert torch.equal(twin(*inputs, tau=tau)[0], expected)
        assert twin.config == net.config


def test_state_dict_carries_everything(net):
    other = iqn_blocks.build(net.config)
    other.load_state_dict(net.state_dict())
    inputs, tau = net.eval().example_inputs(2), torch.rand(4, 1)
    assert torch.equal(other.eval()(*inputs, tau=tau)[0], net(*inputs, tau=tau)[0])


def test_noise_comes_and_goes():
    net = iqn_blocks.build(tiny_btr()).eval()
    inputs = net.example_inputs(2)
    silent = net.q_values(*inputs)
    net.reset_noise(torch.Generator().manual_seed(1))
    noisy = net.q_values(*inputs)
    assert not torch.allclose(noisy, silent)
    net.reset_noise()
    assert not torch.allclose(net.q_values(*inputs), noisy)
    net.reset_noise(torch.Generator().manual_seed(1))
    assert torch.equal(net.q_values(*inputs), noisy)
    net.disable_noise()
    assert torch.equal(net.q_values(*inputs), silent)


@pytest.mark.parametrize("slot", ["mlp", "transformer"])
@pytest.mark.parametrize("readout", [False, True])
def test_which_layers_are_noisy(slot, readout):
    block = (
        {"mlp": {"n_hidden_layers": 2}}
        if slot == "mlp"
        else {"transformer": {"d_model": 4, "n_heads": 2}}
    )
    btr = {"use_noisy_linear": True, "noisy_value_readout": readout}
    net = build(tiny_float(), nn={"decoder": {"value": block, "advantage": block}}, btr=btr)
    noisy = {n for n, m in net.named_modules() if isinstance(m, iqn_blocks.blocks.NoisyLinear)}
    hidden = range(2 if slot == "mlp" else 1)
    expected = {f"{h}_head.hidden.{i}.linear" for h in ("value", "advantage") for i in hidden}
    expected |= {"advantage_head.readout"} | ({"value_head.readout"} if readout else set())
    assert noisy == expected


FREEZE = {
    "vis": ("encoder.stem.",),
    "float": ("encoder.float_mlp.",),
    "iqn": ("tau_embedding.",),
    "decoder.advantage": ("advantage_head.",),
    "decoder.value": ("value_head.",),
}


@pytest.mark.parametrize("config", [tiny(), tiny_btr()], ids=["plain", "btr"])
@pytest.mark.parametrize("block", FREEZE)
def test_freeze(config, block):
    change = {"freeze": True}
    for key in reversed(block.split(".")):
        change = {key: change}
    net = iqn_blocks.build(merge(config, {"nn": change}))
    frozen = {name for name, p in net.named_parameters() if not p.requires_grad}
    expected = {name for name, _ in net.named_parameters() if name.startswith(FREEZE[block])}
    assert expected
    assert frozen == expected


def test_every_parameter_gets_a_gradient(net):
    q, _ = net(*net.example_inputs(4))
    q.square().sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in net.parameters())


def test_initialisation_of_the_classic_network():
    net = build()
    gain = (2 / 1.0001) ** 0.5
    for weight, expected in [
        (net.encoder.float_mlp.layers[1].linear.weight, gain),
        (net.encoder.stem.convs[1].weight.flatten(1), gain),
        (net.tau_embedding.projection.weight, 2**0.5 * gain),
        (net.advantage_head.hidden[0].linear.weight, gain),
        (net.advantage_head.readout.weight, 1),
        (net.value_head.readout.weight, 1),
    ]:
        values = torch.linalg.svdvals(weight.detach())
        torch.testing.assert_close(values, torch.full_like(values, expected))
    assert not any(p.any() for name, p in net.named_parameters() if name.endswith("bias"))
    plain = build(nn={"init": "pytorch"})
    assert plain.tau_embedding.projection.bias.any()
    assert torch.linalg.svdvals(plain.value_head.hidden[0].linear.weight.detach()).std() > 0.01


def test_set_float_stats():
    net = build()
    img, _ = net.example_inputs(2)
    floats, tau = torch.rand(2, 5) * 100, torch.rand(4, 1)
    mean, std = torch.full((5,), 50.0), torch.full((5,), 25.0)
    expected, _ = net(img, (floats - mean) / std, tau=tau)
    net.set_float_stats(mean, std.tolist())
    torch.testing.assert_close(net(img, floats, tau=tau)[0], expected)
    with pytest.raises(ValueError, match="normalises no floats"):
        build(tiny_image()).set_float_stats([], [])


def test_example_inputs_fit_and_repeat(net):
    first, second = net.example_inputs(2), net.example_inputs(2)
    for a, b in zip(first, second, strict=True):
        assert (a is None and b is None) or torch.equal(a, b)


def test_describe_lists_every_parameter_once(net):
    training = {name: module.training for name, module in net.named_modules()}
    stages = iqn_blocks.describe_stages(net)
    top = {"encoder", "tau_embedding", "q"}
    counted = sum(s.parameters for s in stages if s.name not in top)
    tau = sum(p.numel() for p in net.tau_embedding.parameters())
    assert counted + tau == sum(p.numel() for p in net.parameters())
    assert {name: module.training for name, module in net.named_modules()} == training
    text = iqn_blocks.describe(net)
    assert f"D = {net.state_dim}" in text
    assert len(text.splitlines()) == len(stages) + 2
    assert not any(m._forward_hooks for m in net.modules())


def test_repr_names_the_parts(net):
    text = repr(net)
    assert text.startswith("IQN(\n  n_actions=3")
    assert all(name in text for name in ("encoder", "tau_embedding", "value_head"))


# Registration


def test_own_encoder_through_the_registry():
    @iqn_blocks.register("test_sum_of_floats")
    class Sum(nn.Module):
        def __init__(self, config, scale=1.0):
            super().__init__()
            self.state_dim = config.float_input_dim
            self.scale = nn.Parameter(torch.tensor(scale))

        def forward(self, img, floats):
            return floats * self.scale

    own = {"topology": "test_sum_of_floats", "topology_options": {"scale": 3.0}}
    config = {"n_actions": 3, "float_input_dim": 5, "nn": {**own, "vis": {"no_image": True}}}
    assert "test_sum_of_floats" in iqn_blocks.list_parts("topology")
    assert iqn_blocks.route(config) == "test_sum_of_floats"
    net = iqn_blocks.build(config)
    assert net.encoder.scale.item() == 3
    assert net.state_dim == 5
    loss = net(*net.example_inputs(4))[0].square().mean()
    loss.backward()
    assert net.encoder.scale.grad != 0
    with pytest.raises(ValueError, match="'test_sum_of_floats' is taken"):
        iqn_blocks.register("test_sum_of_floats")(nn.Identity)


def test_unregistered_topology_suggests_the_nearest():
    config = tiny(nn={"topology": "clasic"})
    with pytest.raises(iqn_blocks.UnsupportedTopologyError, match="did you mean 'classic'"):
        iqn_blocks.build(config)


def test_encoder_without_a_width_is_refused():
    @iqn_blocks.register("test_no_width")
    class NoWidth(nn.Module):
        def __init__(self, config):
            super().__init__()

    config = tiny_float(nn={"topology": "test_no_width"})
    with pytest.raises(iqn_blocks.UnsupportedTopologyError, match="state_dim >= 1, got NoWidth"):
        iqn_blocks.build(config)


def test_native_vit_without_fusion_is_refused_with_both_ways_out():
    config = tiny(nn={"vis": {"transformer": {"d_model": 8}}})
    with pytest.raises(iqn_blocks.UnsupportedTopologyError) as error:
        iqn_blocks.build(config)
    assert "fusion_mode" in str(error.value)
    assert "use_hf_backbone" in str(error.value)


def test_encoder_with_another_width_than_it_promises():
    @iqn_blocks.register("test_wrong_width")
    class WrongWidth(nn.Module):
        state_dim = 8

        def __init__(self, config):
            super().__init__()

        def forward(self, img, floats):
            return floats

    raw = {"n_actions": 3, "float_input_dim": 5, "nn": {"topology": "test_wrong_width"}}
    net = iqn_blocks.build(merge(raw, {"nn": {"vis": {"no_image": True}}}))
    with pytest.raises(ValueError, match=r"WrongWidth: gave .*\(2, 5\), but .* \(B, 8\)"):
        net(*net.example_inputs(2))


def test_unused_keys_warn_or_fail():
    config = tiny(nn={"encoder": {"post_concat_layout": "token_sequence"}})
    with pytest.warns(iqn_blocks.UnusedConfigWarning, match=r"nn\.encoder\.post_concat_layout"):
        iqn_blocks.build(config)
    with pytest.raises(iqn_blocks.ConfigError, match=r"nn\.encoder\.post_concat_layout"):
        iqn_blocks.build(config, strict=True)
