from __future__ import annotations

import copy
import math
import multiprocessing
import pickle

import pytest
import torch
from torch import nn

import iqn_blocks
from iqn_blocks import blocks
from iqn_blocks.blocks.transformer import SelfAttention
from tests.configs import tiny_float


def _singular_value(conv: nn.Conv2d) -> float:
    return torch.linalg.matrix_norm(conv.weight.detach().flatten(1), 2).item()


@pytest.mark.parametrize("batch", [0, 1, 3])
@pytest.mark.parametrize(
    ("block", "in_shape", "out_shape"),
    [
        (blocks.NoisyLinear(4, 3), (4,), (3,)),
        (blocks.HiddenLayer(4, 3, layer_norm=True, noisy=True), (4,), (3,)),
        (blocks.TauEmbedding(6, 5), (1,), (5,)),
        (blocks.FloatNormalization(4), (4,), (4,)),
        (blocks.FloatMLP(4, 7), (4,), (7,)),
        (blocks.ConvStem(2, (34, 50)), (2, 34, 50), (32 * 3,)),
        (blocks.ImpalaStem(2, (9, 17), width=1), (2, 9, 17), (32 * 2 * 3,)),
        (blocks.ImpalaStem(1, (9, 9), readout="max", readout_size=3), (1, 9, 9), (64 * 9,)),
        (blocks.SpectralNormConv2d(2, 3, 3, padding=1), (2, 5, 5), (3, 5, 5)),
        (blocks.IQNTransformerTrunk(8, 4, n_heads=2), (8,), (4,)),
        (blocks.Head(8, [5], (3,)), (8,), (3,)),
        (blocks.Head(8, [5, 6], (2, 3), noisy_readout=True), (8,), (2, 3)),
        (
            blocks.Head(8, [5], (1,), trunk=blocks.IQNTransformerTrunk(8, 4, n_heads=2)),
            (8,),
            (1,),
        ),
    ],
    ids=lambda case: type(case).__name__,
)
def test_shapes(block, in_shape, out_shape, batch):
    assert block(torch.rand(batch, *in_shape)).shape == (batch, *out_shape)
    assert repr(block).startswith(type(block).__name__)


@pytest.mark.parametrize("stem", [blocks.ConvStem, blocks.ImpalaStem])
def test_stem_out_dim_is_what_comes_out(stem):
    for size in [(34, 34), (35, 51), (60, 80)]:
        for readout in [{}, {"readout": "max", "readout_size": 2}, {"readout": "avg"}]:
            module = stem(1, size, **readout)
            assert module(torch.rand(2, 1, *size)).shape == (2, module.out_dim)


def test_conv_stem_smallest_image():
    blocks.ConvStem(1, (34, 34))(torch.zeros(1, 1, 34, 34))
    with pytest.raises(
        ValueError, match=r"image_size: found 34 x 33 .*accepted: at least 34 x 34; en"
    ):
        blocks.ConvStem(1, (33, 34))


def test_noisy_linear_equation_and_init():
    layer = blocks.NoisyLinear(4, 3, sigma0=0.3)
    assert (layer.weight_mu.abs() <= 0.5).all()
    assert layer.weight_sigma.unique().item() == pytest.approx(0.15)
    assert layer.bias_sigma.unique().item() == pytest.approx(0.15)
    x = torch.rand(2, 4)
    quiet = torch.nn.functional.linear(x, layer.weight_mu, layer.bias_mu)
    assert torch.equal(layer(x), quiet), "a new layer is silent"
    layer.reset_noise(torch.Generator().manual_seed(0))
    noise = torch.outer(layer.epsilon_out, layer.epsilon_in)
    weight = layer.weight_mu + layer.weight_sigma * noise
    bias = layer.bias_mu + layer.bias_sigma * layer.epsilon_out
    torch.testing.assert_close(layer(x), x @ weight.T + bias)
    layer.disable_noise()
    assert not layer.epsilon_in.any() and not layer.epsilon_out.any()
    assert torch.equal(layer(x), quiet)


def test_disable_noise_gives_zeros_even_where_the_weights_hide_them():
    layer = blocks.NoisyLinear(4, 3, sigma0=0.0)
    layer.reset_noise()
    layer.disable_noise()
    assert layer.epsilon_in.tolist() == [0] * 4
    assert layer.epsilon_out.tolist() == [0] * 3


def test_defaults_of_the_quantile_path():
    # i = 1 … E: cos(π·i·½) is 0 for i = 1, where i = 0 would give 1.
    embedding = blocks.TauEmbedding(1, 1)
    nn.init.ones_(embedding.projection.weight)
    nn.init.zeros_(embedding.projection.bias)
    assert embedding(torch.tensor([[0.5]])).item() == pytest.approx(0, abs=1e-6)
    noisy = blocks.Head(4, [5], (3,), noisy=True, noisy_readout=True)
    for layer, width in ((noisy.hidden[0].linear, 4), (noisy.readout, 5)):  # σ0/√in, σ0 = ½
        assert layer.weight_sigma.unique().item() == pytest.approx(0.5 / math.sqrt(width))
    trunk = blocks.IQNTransformerTrunk(64, 32)
    (layer,) = trunk.encoder.layers
    assert layer.linear1.out_features == 4 * 32
    assert layer.self_attn.n_heads == 4
    x = torch.rand(2, 64)
    assert torch.equal(trunk.train()(x), trunk(x)), "no dropout"


def test_defaults_of_small_parts():
    hidden = blocks.HiddenLayer(3, 4, activation="leaky_relu")
    assert "negative_slope=0.01" in repr(hidden)
    proposer = blocks.FractionProposer(5, 3)
    assert not proposer.linear.bias.any()
    # Xavier's bound is sqrt(6 / (in + out)); with logits of nearly zero, fractions are k / 3.
    bound = 0.01 * (6 / (5 + 3)) ** 0.5
    assert 0 < proposer.linear.weight.abs().max() <= bound
    assert blocks.mlp_head(8, (2,)).readout.in_features == 512


def test_noise_is_sign_root_gaussian():
    layer = blocks.NoisyLinear(200_000, 1)
    layer.reset_noise(torch.Generator().manual_seed(0))
    z = layer.epsilon_in.sign() * layer.epsilon_in.square()
    assert z.mean().item() == pytest.approx(0, abs=0.02)
    assert z.std().item() == pytest.approx(1, abs=0.02)
    assert z.pow(4).mean().item() == pytest.approx(3, abs=0.1)


def test_noise_is_two_vectors_in_the_state():
    layer = blocks.NoisyLinear(4, 3)
    layer.reset_noise()
    assert {k: tuple(v.shape) for k, v in layer.named_buffers()} == {
        "epsilon_in": (4,),
        "epsilon_out": (3,),
    }
    x = torch.rand(2, 4)
    other = blocks.NoisyLinear(4, 3)
    other.load_state_dict(layer.state_dict())
    for twin in (other, copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert torch.equal(twin(x), layer(x))


def test_noise_does_not_follow_train_or_eval():
    layer = blocks.NoisyLinear(4, 3)
    layer.reset_noise()
    x = torch.rand(2, 4)
    before = layer(x)
    assert torch.equal(layer.eval()(x), before)
    assert torch.equal(layer.train()(x), before)


def test_noise_keeps_nothing_of_matrix_size_but_the_weight():
    layer = blocks.NoisyLinear(64, 32)
    layer.reset_noise()
    saved: dict[int, int] = {}

    def pack(tensor):
        saved[tensor.untyped_storage().data_ptr()] = tensor.numel()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        layer(torch.rand(2, 64, requires_grad=True))
    parameters = {p.untyped_storage().data_ptr() for p in layer.parameters()}
    large = [n for ptr, n in saved.items() if n >= 64 * 32 and ptr not in parameters]
    assert len(large) == 1, "only the effective weight, which the matrix product needs"


@pytest.mark.parametrize("backend", ["none", "eager", "aot_eager", "inductor"])
def test_reset_noise_between_forward_and_backward(backend):
    torch._dynamo.reset()
    layer = blocks.NoisyLinear(4, 3)
    layer.reset_noise()
    x = torch.rand(2, 4)
    expected = torch.autograd.grad(layer(x).square().sum(), list(layer.parameters()))
    call = layer if backend == "none" else torch.compile(layer, backend=backend, fullgraph=True)
    loss = call(x).square().sum()
    layer.reset_noise()
    torch.testing.assert_close(torch.autograd.grad(loss, list(layer.parameters())), expected)


def _sigma(conv):
    return (conv.u @ conv.weight.detach().flatten(1) @ conv.v).item()


def test_spectral_norm_converges_and_is_positive_at_once():
    torch.manual_seed(0)
    for _ in range(20):
        conv = blocks.SpectralNormConv2d(3, 5, 3)
        assert 0 < _sigma(conv) <= _singular_value(conv) * 1.0001
    conv.train()
    for _ in range(200):
        conv(torch.zeros(1, 3, 3, 3))
    assert _sigma(conv) == pytest.approx(_singular_value(conv), rel=1e-4)
    weight = conv.normalized_weight()
    assert torch.linalg.matrix_norm(weight.flatten(1), 2).item() == pytest.approx(1, rel=1e-4)


def test_spectral_norm_iterates_when_asked():
    conv = blocks.SpectralNormConv2d(3, 5, 3)
    x = torch.rand(1, 3, 4, 4)
    conv.eval()
    u = conv.u.clone()
    conv(x)
    assert torch.equal(conv.u, u), "eval mode leaves the vectors alone"
    with torch.no_grad():
        conv.weight.copy_(torch.randn_like(conv.weight))
    conv.iterate_in_eval = True
    for _ in range(200):
        conv(x)
    assert _sigma(conv) == pytest.approx(_singular_value(conv), rel=1e-4)


def test_spectral_norm_of_a_zero_weight():
    conv = blocks.SpectralNormConv2d(2, 2, 3)
    with torch.no_grad():
        conv.weight.zero_()
    u, v = conv.u.clone(), conv.v.clone()
    out = conv(torch.rand(1, 2, 3, 3))
    out.sum().backward()
    assert out.isfinite().all()
    assert conv.weight.grad.isfinite().all()
    assert torch.equal(conv.u, u) and torch.equal(conv.v, v)


def test_spectral_norm_two_forwards_before_one_backward():
    conv = blocks.SpectralNormConv2d(2, 3, 3)
    x = torch.rand(1, 2, 3, 3)
    loss = conv(x).sum() + conv(x).sum()
    loss.backward()
    assert conv.weight.grad.isfinite().all()


def test_spectral_norm_vectors_are_constants_to_the_gradient():
    conv = blocks.SpectralNormConv2d(2, 3, 2).double().eval()
    x = torch.rand(1, 2, 2, 2, dtype=torch.float64)

    def literal(weight):
        sigma = conv.u @ weight.flatten(1) @ conv.v
        return torch.nn.functional.conv2d(x, weight / sigma, conv.bias).sum()

    weight = conv.weight.detach().clone().requires_grad_()
    (expected,) = torch.autograd.grad(literal(weight), weight)
    (grad,) = torch.autograd.grad(conv(x).sum(), conv.weight)
    torch.testing.assert_close(grad, expected)


def _spawned(conv, x, results):
    results.put(conv(x).detach().numpy())


def test_spectral_norm_deepcopies_and_pickles_after_a_forward():
    conv = blocks.SpectralNormConv2d(2, 3, 3)
    x = torch.rand(1, 2, 4, 4)
    conv(x)
    expected = conv.eval()(x)
    assert torch.equal(copy.deepcopy(conv)(x), expected)
    assert torch.equal(pickle.loads(pickle.dumps(conv))(x), expected)


def test_spectral_norm_reaches_a_spawned_process():
    conv = blocks.SpectralNormConv2d(2, 3, 3).eval()
    x = torch.rand(1, 2, 4, 4)
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    process = context.Process(target=_spawned, args=(conv, x, results))
    process.start()
    received = results.get(timeout=60)
    process.join()
    torch.testing.assert_close(torch.from_numpy(received), conv(x).detach())


def test_spectral_norm_scopes():
    def normalised(scope):
        stem = blocks.ImpalaStem(1, (16, 16), width=1, spectral_norm=scope)
        return sum(isinstance(m, blocks.SpectralNormConv2d) for m in stem.modules())

    assert [normalised(scope) for scope in (None, "residual", "all")] == [0, 12, 15]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_float_statistics_stay_wide(dtype):
    norm = blocks.FloatNormalization(1, [100_000.0], [2.0]).to(dtype)
    assert norm.mean.dtype == norm.std.dtype == torch.float32
    assert norm(torch.tensor([[100_002.0]])).item() == 1.0
    assert norm.double().mean.dtype == torch.float64
    assert norm.half().mean.item() == 100_000


def test_float_statistics_are_checked_and_all_or_none():
    norm = blocks.FloatNormalization(2)
    for mean, std, message in [
        ([0.0], None, r"mean: expected shape \(2,\), got \(1,\)"),
        (
            [1.0, 2.0],
            [1.0, 0.0],
            r"std: got 0, accepted .* from 1.18e-38 .*constant one a std of 1",
        ),
        ([1.0, 2.0], [1.0, 1e-40], r"std: got 1e-40, accepted .*rescale that feature"),
        ([1.0, 2.0], torch.tensor([1.0, 2.0**-130]), "std: got 7.34684e-40"),
        ([1.0, 2.0], [1.0, 1e300], r"std: got 1e\+300, accepted"),
        ([1.0, 2.0], [1.0, math.nan], "std: got nan"),
        ([1.0, math.inf], None, "mean: got inf, accepted are finite numbers that fit float32"),
        ([-1e300, 1.0], None, r"mean: got -1e\+300"),
        (torch.tensor([-1e300, 1.0], dtype=torch.float64), None, r"mean: got -1e\+300"),
    ]:
        with pytest.raises(ValueError, match=message):
            norm.set_stats(mean, std)
        with pytest.raises(ValueError, match=message):
            blocks.FloatNormalization(2).double().set_stats(mean, std)
        assert norm.mean.tolist() == [0, 0]
        assert norm.std.tolist() == [1, 1]
    smallest = 2.0**-126
    norm.set_stats([3e38, -3e38], [smallest, 1.0])
    assert norm.std[0].item() == smallest
    assert norm.mean.tolist() == torch.tensor([3e38, -3e38]).tolist()


def test_float_statistics_of_a_network_are_checked():
    net = iqn_blocks.build(tiny_float(float_input_dim=2))
    with pytest.raises(ValueError, match=r"std: got 1e-40, .* from 1\.18e-38"):
        net.set_float_stats(None, [1.0, 1e-40])


def test_encoder_layers_differ_from_the_start():
    encoder = blocks.native_encoder(8, n_layers=2, n_heads=2)
    first, second = encoder.layers
    assert not torch.equal(first.linear1.weight, second.linear1.weight)
    assert first.linear1.out_features == 64
    assert blocks.native_encoder(32, n_layers=1, ff_mult=3).layers[0].linear1.out_features == 96


def test_transformer_arguments_are_checked():
    with pytest.raises(
        ValueError, match=r"d_model: found 5, which does not divide .* D = 8; .*set d_model to 4"
    ):
        blocks.IQNTransformerTrunk(8, 5)
    with pytest.raises(
        ValueError, match=r"n_heads: found 3, which does not divide d_model = 4; .* n_heads to [24]"
    ):
        blocks.native_encoder(4, n_layers=1, n_heads=3)


def test_orthogonal_init():
    head = blocks.Head(6, [8, 8], (3,), trunk=blocks.IQNTransformerTrunk(6, 6, n_heads=2))
    packed = head.trunk.encoder.layers[0].self_attn.in_proj_weight.clone()
    blocks.orthogonal_head_(head)
    gain = math.sqrt(2 / 1.0001)
    layer = head.trunk.encoder.layers[0]
    for weight, expected in [
        (head.hidden[0].linear.weight, gain),
        (head.hidden[1].linear.weight, gain),
        (layer.linear1.weight, gain),
        (layer.self_attn.out_proj.weight, gain),
        (head.readout.weight, 1.0),
    ]:
        values = torch.linalg.svdvals(weight.detach())
        torch.testing.assert_close(values, torch.full_like(values, expected))
    assert torch.equal(layer.self_attn.in_proj_weight, packed)
    assert not head.hidden[0].linear.bias.any()
    embedding = blocks.TauEmbedding(4, 6)
    blocks.orthogonal_tau_(embedding)
    values = torch.linalg.svdvals(embedding.projection.weight.detach())
    torch.testing.assert_close(values, torch.full_like(values, math.sqrt(2) * gain))


def test_relu_of_minus_infinity_is_zero():
    layer = blocks.HiddenLayer(1, 1, activation="relu")
    nn.init.constant_(layer.linear.weight, 4)
    nn.init.zeros_(layer.linear.bias)
    assert layer.linear(torch.tensor([[-3e38]])).item() == -math.inf
    assert layer(torch.tensor([[-3e38]])).item() == 0


def test_dropout_of_attention_weights():
    attention = SelfAttention(8, 2, dropout=0.5)
    x = torch.randn(2, 5, 8)
    assert not torch.equal(attention(x), attention(x))
    plain = nn.MultiheadAttention(8, 2, dropout=0.5, batch_first=True).eval()
    plain.load_state_dict(attention.state_dict())
    torch.testing.assert_close(attention.eval()(x), plain(x, x, x)[0])
