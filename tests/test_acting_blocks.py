"""Blocks with programs: the values of the blocks they came from, in every state they can be in."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from iqn_blocks import blocks
from iqn_blocks.blocks import packed
from iqn_blocks.blocks.acting import Acting, PairNorm, make_acting, pack
from iqn_blocks.blocks.transformer import EncoderLayer


def norm_with_weights(width):
    norm = nn.LayerNorm(width)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    return norm


def float_normalization():
    return blocks.FloatNormalization(4, [1.0, 2.0, 3.0, 4.0], [1.0, 2.0, 3.0, 4.0])


def spread(block):
    """Weights and biases that none can do without."""
    for parameter in block.parameters():
        nn.init.normal_(parameter, std=0.3)
    return block


BLOCKS = {
    "conv stem": (lambda: blocks.ConvStem(2, (38, 46)), (2, 38, 46)),
    "relu stem": (lambda: blocks.ConvStem(1, (34, 34), activation="relu"), (1, 34, 34)),
    "pooled stem": (lambda: blocks.ConvStem(1, (50, 50), adaptive_maxpool_size=2), (1, 50, 50)),
    "impala stem": (lambda: blocks.ImpalaStem(2, (12, 18), model_size=1), (2, 12, 18)),
    "odd impala stem": (
        lambda: blocks.ImpalaStem(1, (19, 21), model_size=1, adaptive_maxpool_size=2),
        (1, 19, 21),
    ),
    "float normalization": (float_normalization, (4,)),
    "float mlp": (lambda: blocks.FloatMLP(4, 6), (4,)),
    "float mlp with norms": (lambda: blocks.FloatMLP(4, 6, layer_norm=True), (4,)),
    "hidden layer": (lambda: blocks.HiddenLayer(5, 7), (5,)),
    "relu layer with norm": (
        lambda: blocks.HiddenLayer(5, 7, layer_norm=True, activation="relu"),
        (5,),
    ),
    "encoder layer": (lambda: EncoderLayer(8, 2, 64, dropout=0.5), (5, 8)),
}


def of_size(monkeypatch, size):
    fewest = 1 if size == "packed" else 10**9
    monkeypatch.setattr(packed, "FEWEST_POSITIONS", fewest)
    monkeypatch.setattr(packed, "FEWEST_PRODUCTS", fewest)


def acting(block):
    """A frozen twin with a program."""
    holder = nn.Sequential(copy.deepcopy(block)).requires_grad_(False).eval()
    holder.to(memory_format=torch.channels_last)
    make_acting(holder)
    assert isinstance(holder[0], Acting)
    return holder[0]


def assert_same(twin, block, x):
    expected = block(x.to(twin_dtype(twin))).detach()
    tolerance = {torch.bfloat16: 0.1, torch.float32: 1e-4, torch.float64: 1e-9}[expected.dtype]
    torch.testing.assert_close(twin(x), expected, rtol=tolerance, atol=tolerance)


def twin_dtype(block):
    return next(iter([*block.parameters(), *block.buffers()])).dtype


@pytest.mark.parametrize("size", ["small", "packed"])
@pytest.mark.parametrize("batch", [0, 1, 3])
@pytest.mark.parametrize("name", BLOCKS)
def test_program(name, batch, size, monkeypatch):
    of_size(monkeypatch, size)
    torch.manual_seed(0)
    make, shape = BLOCKS[name]
    block = spread(make()).eval()
    x = torch.randn(batch, *shape)
    twin = acting(block)
    assert twin.program is not None
    before = x.clone()
    for each in (twin, copy.deepcopy(twin), pickle.loads(pickle.dumps(twin))):
        assert each.program is not None
        assert_same(each, block, x)
    assert torch.equal(x, before)


@pytest.mark.parametrize("size", ["small", "packed"])
@pytest.mark.parametrize("name", BLOCKS)
def test_program_follows_the_weights(name, size, monkeypatch):
    of_size(monkeypatch, size)
    make, shape = BLOCKS[name]
    block = make().eval()
    x = torch.randn(2, *shape)
    twin = acting(block)
    with torch.no_grad():
        for own, live in zip(twin.state_dict().values(), block.state_dict().values(), strict=True):
            live.add_(torch.rand_like(live))
            own.copy_(live)
    pack(nn.Sequential(twin))
    assert_same(twin, block, x)

    other = make().eval()
    twin.load_state_dict(other.state_dict())
    assert_same(twin, other, x)
    for dtype in (torch.bfloat16, torch.float32, torch.float64):
        other, twin = other.to(dtype), twin.to(dtype)
        assert (twin.program is None) == (twin_dtype(twin) == torch.float64)
        assert_same(twin, other, x.to(dtype))


@pytest.mark.parametrize("name", BLOCKS)
def test_where_gradients_or_autocast_want_it_the_block_computes(name, monkeypatch):
    of_size(monkeypatch, "packed")
    make, shape = BLOCKS[name]
    block = spread(make()).eval()
    twin = acting(block)
    x = torch.randn(2, *shape)

    def gradient(module):
        leaf = x.clone().requires_grad_()
        return torch.autograd.grad(module(leaf).square().sum(), leaf)[0]

    torch.testing.assert_close(gradient(twin), gradient(block), rtol=1e-3, atol=1e-4)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(twin(x), block(x))
    torch._dynamo.reset()
    compiled = torch.compile(twin, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(x), block(x), rtol=1e-4, atol=1e-4)


def test_dropout_in_training_mode():
    twin = acting(EncoderLayer(8, 2, 64, dropout=0.5)).train()
    x = torch.randn(2, 5, 8)
    assert not torch.equal(twin(x), twin(x))


def test_images_of_bytes():
    stem = blocks.ConvStem(1, (34, 34), uint8_scaling="unit").eval()
    img = torch.randint(256, (2, 1, 34, 34), dtype=torch.uint8)
    torch.testing.assert_close(acting(stem)(img), stem(img).detach())


def test_pair_norm():
    first, second, x = norm_with_weights(3), norm_with_weights(3), torch.randn(4, 6)
    pair = PairNorm(6)
    pair.weight.data = torch.cat([first.weight, second.weight])
    pair.bias.data = torch.cat([first.bias, second.bias])
    torch.testing.assert_close(pair(x), torch.cat([first(x[:, :3]), second(x[:, 3:])], dim=1))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("size", ["small", "packed"])
@pytest.mark.parametrize("slope", [None, 0.0, 0.01])
def test_linear_steps(slope, size, dtype, monkeypatch):
    of_size(monkeypatch, size)
    weight, bias = torch.randn(7, 5, dtype=dtype), torch.randn(14, dtype=dtype)[::2]
    tolerance = 0.1 if dtype == torch.bfloat16 else 1e-5
    for shape in [(0, 5), (1, 5), (2, 4, 5)]:
        x, y = torch.randn(shape, dtype=dtype), torch.randn(*shape[:-1], 7, dtype=dtype)
        expected = plain = F.linear(x, weight, bias)
        if slope is not None:
            expected = F.leaky_relu(plain, slope)
        before = y.clone()
        for result, value in [
            (packed.linear(weight, bias, slope)(x), expected),
            (packed.linear_gelu(weight, bias)(x), F.gelu(plain)),
            (packed.linear_add(weight, bias)(x, y), plain + y),
        ]:
            torch.testing.assert_close(result, value, rtol=tolerance, atol=tolerance)
        assert torch.equal(y, before)


UNUSUAL = {
    "groups": lambda: nn.Conv2d(16, 32, 4, 2, groups=2),
    "no bias": lambda: nn.Conv2d(16, 32, 4, 2, bias=False),
    "dilation": lambda: nn.Conv2d(16, 32, 4, 2, dilation=2),
    "padding": lambda: nn.Conv2d(16, 32, 4, 2, padding=1, padding_mode="circular"),
}


@pytest.mark.parametrize("kind", UNUSUAL)
def test_layers_for_which_there_is_no_program(kind):
    stem = blocks.ConvStem(1, (64, 64))
    stem.convs[1] = UNUSUAL[kind]()
    holder = nn.Sequential(stem).requires_grad_(False)
    make_acting(holder)
    assert not isinstance(holder[0], Acting)
    assert holder(torch.randn(1, 1, 64, 64)).isfinite().all()


class Doubled(nn.Linear):
    def forward(self, x):
        return 2 * super().forward(x)


CHANGES = {
    "no activation": ("conv stem", lambda b: setattr(b, "activation", nn.Identity())),
    "activations": ("conv stem", lambda b: setattr(b, "activation", nn.Sequential(nn.ELU()))),
    "padding": ("pooled stem", lambda b: b.convs.append(nn.Conv2d(32, 32, 3, padding=1))),
    "word": ("pooled stem", lambda b: b.convs.append(nn.Conv2d(32, 32, 3, padding="same"))),
    "pool": ("impala stem", lambda b: setattr(b.stages[0], "pool", nn.MaxPool2d(2))),
    "dropout": ("float mlp", lambda b: b.layers.append(nn.Dropout())),
    "two layers": (
        "hidden layer",
        lambda b: setattr(b, "linear", nn.Sequential(b.linear, nn.Linear(7, 7))),
    ),
    "own linear": ("hidden layer", lambda b: setattr(b, "linear", Doubled(5, 7))),
    "no norm": ("encoder layer", lambda b: setattr(b, "norm1", nn.Identity())),
    "patch": ("encoder layer", lambda b: setattr(b.linear2, "forward", lambda x: x[..., :8])),
    "patched block": ("float mlp", lambda b: setattr(b, "forward", lambda x: x)),
}


@pytest.mark.parametrize("name", CHANGES)
def test_what_a_user_changed_is_kept(name, monkeypatch):
    of_size(monkeypatch, "packed")
    kind, change = CHANGES[name]
    make, shape = BLOCKS[kind]
    block = make().eval()
    change(block)
    block.eval()
    holder = nn.Sequential(copy.deepcopy(block)).requires_grad_(False).eval()
    make_acting(holder)
    x = torch.randn(2, *shape)
    torch.testing.assert_close(holder(x), block(x).detach())


def test_forward_mode(monkeypatch):
    of_size(monkeypatch, "packed")
    block = blocks.FloatMLP(4, 6).eval()
    x, twin = torch.randn(2, 4), acting(block)
    found, expected = (torch.func.jvp(f, (x,), (torch.ones_like(x),))[1] for f in (twin, block))
    torch.testing.assert_close(found, expected)
    assert found.any()
