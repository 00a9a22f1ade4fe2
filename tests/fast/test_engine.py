"""The onnxruntime engine of the acting copy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import iqn_blocks
from iqn_blocks import IQN, InputSpec, optimize_for_inference
from iqn_blocks.blocks import Hadamard, Head, TauEmbedding
from tests.configs import tiny_btr, tiny_float, tiny_image, tiny_multimodal
from tests.fast.test_folded import change

CONFIGS = {
    "float_only": tiny_float(),
    "action_blocks": tiny_btr(n_actions_per_block=2),
    "multimodal": tiny_multimodal(),
    "at_midpoints": tiny_float(
        nn={"decoder": {"dueling": "at_midpoints"}},
        btr={"use_noisy_linear": True, "noisy_value_readout": True},
    ),
}


def assert_same_values(fast, net):
    for batch in (1, 3, 8):
        inputs = fast.example_inputs(batch)
        q, expected = fast.q_values(*inputs), net.q_values(*inputs).detach()
        assert q.shape == expected.shape
        assert (q - expected).abs().max() <= 1e-5 * expected.abs().max()


@pytest.fixture(params=CONFIGS, ids=str)
def net(request):
    torch.manual_seed(0)
    net = iqn_blocks.build(CONFIGS[request.param]).eval()
    net.reset_noise()
    return net


def test_same_values_after_every_refresh(net):
    fast = optimize_for_inference(net, engine="onnxruntime")
    assert_same_values(fast, net)
    for _ in range(2):
        change(net)
        fast.refresh(net)
        assert_same_values(fast, net)
        for _ in range(2):
            net.reset_noise()
            fast.refresh_heads(net)
            assert_same_values(fast, net)


@pytest.fixture(scope="module")
def pair():
    net = iqn_blocks.build(tiny_btr()).eval()
    net.reset_noise()
    return optimize_for_inference(net, engine="onnxruntime"), net


def test_arrays_and_tensors(pair):
    fast, net = pair
    img, floats = fast.example_inputs(3)
    expected = net.q_values(img, floats).detach().numpy()
    arrays = img.numpy(), floats.double().numpy()
    for given in (arrays, tuple(np.asfortranarray(x) for x in arrays)):
        for x in given:
            x.flags.writeable = False
        found = fast.q_values(*given)
        assert isinstance(found, np.ndarray)
        np.testing.assert_allclose(found, expected, atol=1e-5)
    mask = np.array([[True, False, True]] * 3)
    found = fast.q_values(*arrays, mask=mask)
    np.testing.assert_allclose(found[mask], expected[mask], atol=1e-5)
    assert (found[~mask] == np.finfo(np.float32).min).all()
    found = fast.q_values(img, floats, mask=torch.from_numpy(mask))
    assert isinstance(found, torch.Tensor)
    assert fast.q_values(img[:0], floats[:0]).shape == (0, 3)


def test_tau_and_risk(pair):
    fast, net = pair
    inputs, tau = fast.example_inputs(3), torch.rand(6, 1)
    for given in ({"tau": tau}, {"risk": torch.square}, {"tau": tau, "risk": torch.square}):
        expected = net.q_values(*inputs, **given).detach()
        torch.testing.assert_close(fast.q_values(*inputs, **given), expected)


def test_floating_images():
    net = iqn_blocks.build(tiny_image()).eval()
    fast = optimize_for_inference(net, engine="onnxruntime", image_dtype=torch.float32)
    assert fast.example_inputs().img.dtype == torch.float32
    assert_same_values(fast, net)
    with pytest.raises(TypeError, match=r"found torch.uint8.*takes torch.float32; make it with"):
        fast.q_values(torch.zeros(1, 1, 34, 36, dtype=torch.uint8))


def test_wrong_inputs(pair):
    fast, net = pair
    img, floats = fast.example_inputs(3)
    with pytest.raises(TypeError, match=r"found torch.float32.*image_dtype=torch.float32"):
        fast.q_values(img.float(), floats)
    with pytest.raises(ValueError, match=r"img: expected shape \(B, 1, 34, 36\)"):
        fast.q_values(img[:, :, 1:], floats)
    with pytest.raises(ValueError, match="batch sizes differ"):
        fast.q_values(img, floats[1:])
    with pytest.raises(ValueError, match=r"image_dtype: found torch.uint8, .*leave it out"):
        optimize_for_inference(net, image_dtype=torch.uint8)


def test_without_noise_in_float32():
    net = iqn_blocks.build(tiny_float(btr={"use_noisy_linear": True})).eval().double()
    silent = net.q_values(*net.example_inputs(2)).detach().float()
    net.reset_noise()
    fast = optimize_for_inference(net, engine="onnxruntime", noise=False)
    for refresh in (lambda net: None, fast.refresh, fast.refresh_heads):
        refresh(net)
        torch.testing.assert_close(fast.q_values(*fast.example_inputs(2)), silent)


class Table(nn.Module):
    """Keeps a tensor that is neither a parameter nor a buffer."""

    state_dim = 4

    def __init__(self):
        super().__init__()
        self.table = torch.ones(4)

    def forward(self, img, floats):
        return floats * self.table


class Own(Head):
    def forward(self, x):
        return 2 * super().forward(x)


def test_own_parts_and_their_own_tensors():
    heads = {"value_head": Own(4, [5], (1,)), "advantage_head": Own(4, [5], (3,), noisy=True)}
    inputs = InputSpec(n_floats=4)
    net = IQN(Table(), TauEmbedding(6, 4), Hadamard(4), **heads, inputs=inputs).eval()
    fast = optimize_for_inference(net, engine="onnxruntime")
    assert_same_values(fast, net)
    net.encoder.table = torch.tensor([3.0, -1, 2, 0])
    fast.refresh(net)
    assert_same_values(fast, net)
    net.reset_noise()
    fast.refresh_heads(net)
    assert_same_values(fast, net)
