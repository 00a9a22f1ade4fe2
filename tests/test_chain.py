"""Layers as one function: values and derivatives of PyTorch's layers, and where it is used."""

from __future__ import annotations

import itertools

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch._subclasses import FakeTensorMode
from torch.autograd import forward_ad
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils.flop_counter import FlopCounterMode

import iqn_blocks
from iqn_blocks import blocks
from iqn_blocks.blocks import chain as module
from iqn_blocks.blocks.chain import Link, can_chain, chain, linear, through
from tests.configs import tiny, tiny_btr, tiny_float, tiny_image, tiny_multimodal


@pytest.fixture
def calls(monkeypatch):
    """However small, chains are one function; which they were."""
    monkeypatch.setattr(module, "FEWEST_PRODUCTS", 0)
    monkeypatch.setattr(module, "FEWEST_FEATURES", 0)
    seen = []
    forward = module._Chain.forward

    def counting(ctx, x, kinds, *tensors):
        seen.append(len(kinds))
        return forward(ctx, x, kinds, *tensors)

    monkeypatch.setattr(module._Chain, "forward", staticmethod(counting))
    return seen


def matrices(widths, slopes, rows=(4,)):
    """An input and links of linear layers."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(*rows, widths[0], generator=generator)
    return x, [
        Link(torch.randn(b, a, generator=generator), torch.randn(b, generator=generator), slope)
        for (a, b), slope in zip(itertools.pairwise(widths), slopes, strict=True)
    ]


def kernels(slopes, strides=((2, 1), (1, 1))):
    """An image and links of convolutions."""
    generator = torch.Generator().manual_seed(0)
    shapes = [(3, 2, 3, 3), (4, 3, 2, 2)]
    x = torch.randn(2, 2, 9, 8, generator=generator).to(memory_format=torch.channels_last)
    return x, [
        Link(
            torch.randn(shape, generator=generator),
            torch.randn(shape[0], generator=generator),
            slope,
            stride,
        )
        for shape, slope, stride in zip(shapes, slopes, strides, strict=True)
    ]


CHAINS = {
    "product": matrices([5, 7], [None]),
    "product of nothing": matrices([5, 7], [None], rows=(0,)),
    "product of tokens": matrices([5, 7], [None], rows=(2, 3)),
    "no bias": (torch.randn(4, 5), [Link(torch.randn(7, 5), None)]),
    "layer": matrices([5, 7], [0.01]),
    "head": matrices([5, 7, 3], [0.01, None]),
    "relu head": matrices([5, 7, 6, 1], [0.0, 0.0, None], rows=(1,)),
    "stem": kernels([0.01, 0.01]),
    "relu stem": kernels([0.0, 0.0]),
    "open stem": kernels([0.01, None]),
}


def layers(x, links):
    """The same by PyTorch."""
    for weight, bias, slope, stride in links:
        x = F.linear(x, weight, bias) if stride is None else F.conv2d(x, weight, bias, stride)
        x = x if slope is None else F.leaky_relu(x, slope)
    return x


def with_leaves(x, links, frozen):
    """The chain on new leaves, of which some need no gradient, and those that do."""
    count = itertools.count()
    leaves = []

    def leaf(tensor):
        if tensor is None:
            return None
        twin = tensor.clone().requires_grad_(next(count) not in frozen)
        leaves.extend([twin] if twin.requires_grad else [])
        return twin

    x = leaf(x)
    return (
        x,
        [link._replace(weight=leaf(link.weight), bias=leaf(link.bias)) for link in links],
        leaves,
    )


def assert_close(found, expected):
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("with_input", [True, False])
@pytest.mark.parametrize("name", CHAINS)
def test_values_and_gradients(name, with_input, calls):
    x, links = CHAINS[name]

    def gradients(function):
        *arguments, leaves = with_leaves(x, links, () if with_input else (0,))
        y = function(*arguments)
        seed = torch.ones_like(y) + y.detach()
        kept = seed.clone()
        found = torch.autograd.grad(y, leaves, seed, retain_graph=True)
        again = torch.autograd.grad(y, leaves, seed)
        assert torch.equal(seed, kept)
        assert all(map(torch.equal, found, again))
        return [y, *found]

    assert can_chain(*with_leaves(x, links, ())[:2])
    assert_close(gradients(chain), gradients(layers))
    assert calls == [len(links)]


def test_what_is_partly_frozen_is_not_chained(calls):
    x, links = CHAINS["head"]
    for frozen in range(1, 5):
        arguments = with_leaves(x, links, (frozen,))[:2]
        assert not can_chain(*arguments)
        with torch.no_grad():
            assert can_chain(*arguments)
    head = blocks.Head(5, [7], (3,)).requires_grad_(False)
    head(x.clone().requires_grad_()).sum().backward()
    assert not calls


def test_layers_that_share_weights(calls):
    head = blocks.Head(6, [6, 6], (3,))
    head.hidden[1].linear = head.hidden[0].linear
    x, parameters = torch.randn(4, 6), list(head.parameters())

    def gradients(create_graph):
        loss = head(x).square().sum()
        return torch.autograd.grad(loss, parameters, create_graph=create_graph)

    assert_close(gradients(create_graph=True), gradients(create_graph=False))
    assert calls == [3, 3]

    def of_x(function):
        leaf = x.clone().requires_grad_()
        y = function(leaf, torch.ones(5, 4) @ leaf)
        return torch.autograd.grad(y.square().sum(), leaf, create_graph=True)

    assert_close(of_x(linear), of_x(F.linear))
    assert len(calls) == 3


@pytest.mark.parametrize("name", CHAINS)
def test_gradients_of_gradients(name, calls):
    x, links = CHAINS[name]

    def derivatives(function):
        *arguments, leaves = with_leaves(x, links, ())
        y = function(*arguments)
        first = torch.autograd.grad(y.sin().sum(), leaves, create_graph=True)
        loss = sum(g.square().sum() for g in first) + y.sum()
        return [*first, *torch.autograd.grad(loss, leaves)]

    assert_close(derivatives(chain), derivatives(layers))
    assert calls


@pytest.mark.parametrize("name", ["product", "head", "stem"])
def test_batched_gradients(name, calls):
    x, links = CHAINS[name]

    def gradients(function):
        *arguments, leaves = with_leaves(x, links, ())
        y = function(*arguments)
        seeds = torch.linspace(-1, 1, 3 * y.numel()).view(3, *y.shape)
        return torch.autograd.grad(y, leaves, seeds, is_grads_batched=True)

    assert_close(gradients(chain), gradients(layers))
    assert calls


def test_an_input_that_is_used_twice(calls):
    x, links = CHAINS["head"]

    def gradients(function):
        *arguments, leaves = with_leaves(x, links, ())
        y = function(*arguments)
        return torch.autograd.grad((y * arguments[0][:, :3]).sum(), leaves)

    assert_close(gradients(chain), gradients(layers))
    assert calls


def test_a_backward_in_forward_mode(calls):
    x, links = CHAINS["head"]

    def tangent(function):
        *arguments, leaves = with_leaves(x, links, ())
        y = function(*arguments)
        with forward_ad.dual_level():
            seed = forward_ad.make_dual(torch.ones_like(y), torch.linspace(-1, 1, 12).view(4, 3))
            found = torch.autograd.grad(y, leaves, seed)
            return [forward_ad.unpack_dual(gradient).tangent for gradient in found]

    assert_close(tangent(chain), tangent(layers))
    assert calls


def test_sparse_weights_are_left_to_pytorch(calls):
    x, (link, *_) = CHAINS["product"]
    with torch.no_grad():
        sparse = link.weight.to_sparse()
        torch.testing.assert_close(linear(x, sparse), F.linear(x, link.weight))
    assert not calls


def test_strided_operands(calls):
    x, weight, bias = torch.randn(5, 6).T, torch.randn(5, 7).T, torch.randn(14)[::2]
    with torch.no_grad():
        torch.testing.assert_close(linear(x, weight, bias), F.linear(x, weight, bias))
    assert calls


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
def test_where_pytorchs_own_layers_are_used(calls):
    x, (link, *_) = CHAINS["product"]
    weight, bias, *_ = link
    weight, bias = nn.Parameter(weight), nn.Parameter(bias)
    twice = [t.double() for t in (x, weight, bias)]
    torch.testing.assert_close(linear(*twice), F.linear(*twice))
    with torch.autocast("cpu", torch.bfloat16):
        assert linear(x, weight, bias).dtype == torch.bfloat16
    torch.func.vmap(lambda row: linear(row, weight, bias))(x)
    torch.func.grad(lambda x: linear(x, weight, bias).sum())(x)
    with forward_ad.dual_level():
        y = linear(forward_ad.make_dual(x, torch.ones_like(x)), weight, bias)
        torch.testing.assert_close(forward_ad.unpack_dual(y).tangent, weight.sum(1).expand(4, 7))
    with FlopCounterMode(display=False) as counter:
        linear(x, weight, bias)
    assert counter.get_total_flops() == 2 * 4 * 5 * 7
    with FakeTensorMode(allow_non_fake_inputs=True):
        linear(torch.randn(4, 5), weight, bias)
    torch.jit.trace(blocks.HiddenLayer(5, 7), x, check_trace=False)
    layer = nn.Linear(5, 7)
    torch._dynamo.reset()
    torch.compile(lambda x: through(layer, x), fullgraph=True, backend="eager")(x)
    torch.fx.symbolic_trace(blocks.Head(5, [7], (3,)))
    make_fx(lambda x: through(layer, x), pre_dispatch=True)(x)
    for other in (torch.randn(()), torch.randn(1), torch.randn(4, 7)):
        torch.testing.assert_close(linear(x, weight, other), F.linear(x, weight, other))
    torch.testing.assert_close(linear(x, weight[0]), F.linear(x, weight[0]))
    assert linear(x.to("meta"), weight.to("meta")).shape == (4, 7)
    assert not calls


def test_operands_that_do_not_fit_get_pytorchs_error(calls):
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        linear(torch.randn(4, 6), torch.randn(7, 5), torch.randn(7))
    head = blocks.Head(5, [7, 7], (3,))
    head.hidden[1].linear = nn.Linear(6, 7)
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        head(torch.randn(4, 5))
    assert calls == [3]


def test_small_products_are_pytorchs():
    x, (link, *_) = CHAINS["product"]
    assert linear(x, *link[:1], nn.Parameter(link.bias)).grad_fn.name() == "AddmmBackward0"
    x, weight = torch.randn(2048, 128), nn.Parameter(torch.randn(128, 128))
    assert linear(x, weight).grad_fn.name() == "_ChainBackward"


CONFIGS = {
    "classic": tiny(),
    "image_only": tiny_image(),
    "relu": tiny(nn={"activation": "relu"}),
    "frozen stem": tiny(nn={"vis": {"freeze": True}}),
    "frozen heads": tiny(
        nn={"decoder": {"advantage": {"freeze": True}, "value": {"freeze": True}}}
    ),
    "noisy": tiny_float(btr={"use_noisy_linear": True}),
    "deep": tiny_float(nn={"decoder": {"value": {"mlp": {"hidden_dim": 5, "n_hidden_layers": 3}}}}),
    "btr": tiny_btr(),
    "multimodal": tiny_multimodal(),
}


@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("name", CONFIGS)
def test_networks(name, recompute, calls, monkeypatch):
    torch.manual_seed(0)
    net = iqn_blocks.build(CONFIGS[name], recompute=recompute)
    net.reset_noise()
    state = {key: tensor.clone() for key, tensor in net.state_dict().items()}
    inputs, tau = net.example_inputs(3), torch.rand(12, 1)

    def gradients():
        net.load_state_dict(state)  # spectral norm moves its vectors
        q, _ = net(*inputs, tau=tau)
        q.square().sum().backward()
        found = {n: p.grad for n, p in net.named_parameters() if p.grad is not None}
        net.zero_grad()
        return {"q": q.detach(), **found}

    as_chains = gradients()
    assert calls
    monkeypatch.setattr(module, "FEWEST_PRODUCTS", 2**60)
    monkeypatch.setattr(module, "FEWEST_FEATURES", 2**60)
    calls.clear()
    as_layers = gradients()
    assert not calls
    assert as_chains.keys() == as_layers.keys()
    torch.testing.assert_close(as_chains, as_layers, rtol=1e-4, atol=1e-5)


def doubled(*call):
    return 2 * call[2]


HEAD_LAYERS = {
    "readout": lambda head: head.readout,
    "linear": lambda head: head.hidden[0].linear,
    "hidden layer": lambda head: head.hidden[0],
    "hidden layers": lambda head: head.hidden,
}


@pytest.mark.parametrize("name", HEAD_LAYERS)
def test_hooks_of_a_head_are_heard(name, calls):
    head, x = blocks.Head(4, [5], (2,)), torch.randn(3, 4)
    before = head(x)
    assert calls == [2]
    heard = []
    layer = HEAD_LAYERS[name](head)
    hook = layer.register_forward_hook(lambda *call: heard.append(call))
    torch.testing.assert_close(head(x), before)
    assert len(heard) == 1
    hook.remove()
    if name != "linear":  # PyTorch allows no activation in place after such a hook
        layer.register_full_backward_hook(lambda *call: heard.append(call))
        head(x.requires_grad_()).sum().backward()
        assert len(heard) == 2


def test_hooks_and_own_layers_of_a_stem_are_heard(calls):
    stem, img = blocks.ConvStem(1, (40, 40)), torch.randn(2, 1, 40, 40)
    before = stem(img)
    assert calls == [4]
    hook = stem.convs[1].register_forward_hook(doubled)
    assert not torch.allclose(stem(img), before)
    hook.remove()
    torch.testing.assert_close(stem(img), before)
    stem.activation = nn.Identity()
    assert not torch.allclose(stem(img), before)
    stem.activation = nn.LeakyReLU(-0.2)
    stem(img).sum().backward()
    stem.activation = nn.LeakyReLU(0.01)
    stem.convs[1] = nn.Conv2d(16, 32, 4, 2, padding=1)
    assert stem(img).shape != before.shape


def test_patches_and_subclasses_of_a_head_are_heard(calls):
    x = torch.randn(3, 4)
    head = blocks.Head(4, [5], (2,))
    head.readout.forward = lambda x: torch.full((3, 2), 7.0)
    assert (head(x) == 7).all()

    class Own(blocks.Head):
        def features(self, x):
            return 0 * super().features(x)

    own = Own(4, [5], (2,))
    assert torch.equal(own(x), own.readout.bias.expand(3, 2))
    assert 2 not in calls


def test_hooks_of_all_modules_are_heard(calls):
    head, heard = blocks.Head(4, [5], (2,)), []
    with torch.no_grad():
        hook = nn.modules.module.register_module_forward_hook(lambda *call: heard.append(call[0]))
        try:
            head(torch.randn(3, 4))
        finally:
            hook.remove()
    assert head.readout in heard
    assert 2 not in calls
