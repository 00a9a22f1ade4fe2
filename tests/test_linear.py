"""The product that oneDNN computes: values and derivatives of ``F.linear``, and its place."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch._subclasses import FakeTensorMode
from torch.autograd import forward_ad
from torch.utils.flop_counter import FlopCounterMode

from iqn_blocks.blocks import linear as module
from iqn_blocks.blocks.linear import Linear, linear

SHAPES = [(6, 5), (2, 3, 5), (0, 5), (1, 5)]


@pytest.fixture
def calls(monkeypatch):
    """However small, products are oneDNN's; how many they were."""
    monkeypatch.setattr(module, "FEWEST_PRODUCTS", 0)
    count = []
    forward = module._Linear.forward

    def counting(*args):
        count.append(args)
        return forward(*args)

    monkeypatch.setattr(module._Linear, "forward", staticmethod(counting))
    return count


def operands(shape, with_bias=True):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(shape, generator=generator)
    weight = torch.randn(7, 5, generator=generator)
    bias = torch.randn(7, generator=generator) if with_bias else None
    return [x, weight, bias]


def derivatives(function, tensors, of):
    """First and second derivatives of a scalar of the result."""
    tensors = [
        None if t is None else t.clone().requires_grad_(i in of) for i, t in enumerate(tensors)
    ]
    leaves = [tensors[i] for i in of]
    result = function(*tensors)
    first = torch.autograd.grad(result.sin().sum(), leaves, create_graph=True)
    second = torch.autograd.grad(sum(g.square().sum() for g in first), leaves)
    return [result, *first, *second]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("of", [(0,), (1,), (0, 1), (0, 1, 2), (1, 2)])
def test_values_and_derivatives(shape, of, calls):
    tensors = operands(shape)
    found = derivatives(linear, tensors, of)
    assert calls
    for a, b in zip(found, derivatives(F.linear, tensors, of), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


def test_without_a_bias(calls):
    tensors = operands((4, 5), with_bias=False)
    for a, b in zip(
        derivatives(linear, tensors, (0, 1)), derivatives(F.linear, tensors, (0, 1)), strict=True
    ):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)
    assert calls


def test_strided_operands(calls):
    x, weight, bias = torch.randn(5, 6).T, torch.randn(5, 7).T, torch.randn(14)[::2]
    torch.testing.assert_close(linear(x, weight, bias), F.linear(x, weight, bias))
    assert calls


@pytest.mark.parametrize("of", [(0,), (1,), (2,), (0, 1, 2)])
def test_forward_mode(of, calls):
    tensors = operands((4, 5))
    tangents = [torch.randn_like(t) for t in tensors]

    def tangent(function):
        with forward_ad.dual_level():
            duals = [
                forward_ad.make_dual(t, tangents[i]) if i in of else t
                for i, t in enumerate(tensors)
            ]
            return forward_ad.unpack_dual(function(*duals)).tangent

    torch.testing.assert_close(tangent(linear), tangent(F.linear))
    assert calls


def test_batched_gradients(calls):
    x, weight, bias = operands((4, 5))
    x.requires_grad_()
    seeds = torch.randn(3, 4, 7)
    (found,) = torch.autograd.grad(linear(x, weight, bias), x, seeds, is_grads_batched=True)
    torch.testing.assert_close(found, seeds @ weight)
    assert calls


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
def test_where_pytorchs_own_product_is_used(calls):
    x, weight, bias = operands((4, 5))
    twice = [t.double() for t in (x, weight, bias)]
    torch.testing.assert_close(linear(*twice), F.linear(*twice))
    with torch.autocast("cpu", torch.bfloat16):
        assert linear(x, weight, bias).dtype == torch.bfloat16
    torch.func.vmap(lambda row: linear(row, weight, bias))(x)
    torch.func.grad(lambda x: linear(x, weight, bias).sum())(x)
    with FlopCounterMode(display=False) as counter:
        linear(x, weight, bias)
    assert counter.get_total_flops() == 2 * 4 * 5 * 7
    with FakeTensorMode(allow_non_fake_inputs=True):
        linear(torch.randn(4, 5), weight, bias)
    torch.jit.trace(Linear(5, 7), x, check_trace=False)
    torch._dynamo.reset()
    torch.compile(Linear(5, 7), fullgraph=True, backend="eager")(x)
    assert linear(x.to("meta"), weight.to("meta")).shape == (4, 7)
    assert not calls


def test_small_products_are_pytorchs():
    x, weight, bias = operands((4, 5))
    assert linear(x, weight, nn.Parameter(bias)).grad_fn.name() == "AddmmBackward0"
    x, weight = torch.randn(2048, 128), nn.Parameter(torch.randn(128, 128))
    assert linear(x, weight).grad_fn.name() == "_LinearBackward"
