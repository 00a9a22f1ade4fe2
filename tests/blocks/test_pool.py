"""The max-pool that keeps positions alone, against PyTorch's."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from iqn_blocks.blocks.pool import HalvingMaxPool


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("size", [(2, 3, 8, 8), (1, 4, 7, 5), (2, 1, 1, 1)])
@pytest.mark.parametrize("ties", [False, True])
def test_values_and_gradients_are_those_of_pytorch(layout, size, ties):
    x = torch.randn(size, dtype=torch.float64)
    x = (x.round() if ties else x).contiguous(memory_format=layout).requires_grad_()
    ours, plain = HalvingMaxPool()(x), nn.MaxPool2d(3, 2, 1)(x)
    assert torch.equal(ours, plain)
    weight = torch.randn_like(plain)
    found, wanted = (torch.autograd.grad(out, x, weight)[0] for out in (ours, plain))
    assert torch.equal(found, wanted)
    with torch.no_grad():
        assert torch.equal(HalvingMaxPool()(x), plain)


def test_differentiable_twice():
    x = torch.randn(2, 2, 5, 6, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradgradcheck(HalvingMaxPool(), (x,))


def test_the_input_is_not_kept():
    kept = []
    x = torch.randn(2, 3, 8, 8, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        HalvingMaxPool()(x)
    assert [t.dtype for t in kept] == [torch.int64]


def test_forward_mode():
    x, tangent = torch.randn(2, 2, 2, 5, 6, dtype=torch.float64)
    found, wanted = (
        torch.func.jvp(pool, (x,), (tangent,))[1]
        for pool in (HalvingMaxPool(), nn.MaxPool2d(3, 2, 1))
    )
    assert torch.equal(found, wanted)
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(x.requires_grad_(), tangent)
        out = torch.autograd.forward_ad.unpack_dual(HalvingMaxPool()(dual))
    assert torch.equal(out.tangent, wanted)
