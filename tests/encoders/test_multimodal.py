"""Networks with fused inputs as a whole: both modes, autocast, functional calls, missing inputs."""

from __future__ import annotations

import pytest
import torch
from torch.func import functional_call, stack_module_state, vmap

import iqn_blocks
from tests import compare, grid
from tests.grid.test_multimodal import CONFIGS, placed

SAMPLE = list(CONFIGS)[::29]
PLAIN = [  # without transformer or HF model
    "vision_transformer-cnn-summary-default",
    "fused_vector-impala-summary-cnn",
    "sequence+feature-none-summary-mlp",
    "sequence+dense-cnn-summary-linear",
    "unified-native-summary-linear",
]


STEMS = {str(c["nn"]["vis"].get("cnn")): c["nn"]["vis"] for c in grid.classic_grid().values()}


def build(name, folders, **change):
    torch.manual_seed(0)
    return iqn_blocks.build(placed(CONFIGS[name] | change, folders))


@pytest.mark.parametrize("name", SAMPLE)
def test_training_mode_changes_no_value(name, folders):
    """Without dropout and spectral norm."""
    net = build(name, folders)
    inputs, tau = net.example_inputs(3), torch.rand(6, 1)
    expected = net.train()(*inputs, tau=tau)[0]
    torch.testing.assert_close(net.eval()(*inputs, tau=tau)[0], expected)
    with torch.no_grad():
        torch.testing.assert_close(net(*inputs, tau=tau)[0], expected)


@pytest.mark.filterwarnings("ignore:In CPU autocast:UserWarning")
@pytest.mark.parametrize("name", SAMPLE)
def test_autocast(name, folders):
    net = build(name, folders)
    inputs, tau = net.example_inputs(3), torch.rand(6, 1)
    with torch.autocast("cpu", torch.bfloat16):
        q, rows = net(*inputs, tau=tau)
    assert q.dtype == torch.bfloat16 and rows.dtype == torch.float32
    expected = net(*inputs, tau=tau)[0]
    scale = expected.detach().abs().max().item()
    torch.testing.assert_close(q.float(), expected, atol=0.2 * scale, rtol=0)
    q.float().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())


@pytest.mark.parametrize("name", SAMPLE)
def test_parameters_from_outside(name, folders):
    net = build(name, folders).eval()
    inputs, tau = net.example_inputs(2), torch.rand(4, 1)
    scaled = {key: p * 1.1 for key, p in net.named_parameters()}
    found = functional_call(net, scaled, inputs, {"tau": tau})[0]
    with torch.no_grad():
        for parameter in net.parameters():
            parameter *= 1.1
    torch.testing.assert_close(net(*inputs, tau=tau)[0], found)


@pytest.mark.parametrize("name", PLAIN)
def test_vmap_over_networks(name, folders):
    heads = {"decoder": {"dense_hidden_dimension": 16}}
    nn = {**CONFIGS[name]["nn"], **heads}
    nets = [build(name, folders, nn=nn).eval() for _ in range(3)]
    for index, net in enumerate(nets):
        with torch.no_grad():
            for parameter in net.parameters():
                parameter += 0.1 * index
    (img, floats), tau = nets[0].example_inputs(4), torch.rand(8, 1)

    def call(parameters, buffers):
        return functional_call(nets[0], (parameters, buffers), (img, floats), {"tau": tau})[0]

    found = vmap(call)(*stack_module_state(nets))
    expected = torch.stack([net(img, floats, tau=tau)[0] for net in nets])
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


def test_an_image_is_ignored_where_there_is_no_branch_for_it(folders):
    net = build("unified-none-summary-linear", folders).eval()
    _, floats = net.example_inputs(2)
    tau = torch.rand(4, 1)
    assert torch.equal(
        net(torch.rand(2, 1, 5, 5), floats, tau=tau)[0], net(None, floats, tau=tau)[0]
    )


@pytest.mark.parametrize("stem", [stem for stem in STEMS if stem != "None"])
def test_every_stem_option_behind_a_sequence(stem):
    config = CONFIGS["sequence+feature-impala-summary-native_transformer"]
    nn = {**config["nn"], "vis": STEMS[stem]}
    torch.manual_seed(0)
    net = compare.build_without_warnings({**config, "nn": nn}).double()
    generator = torch.Generator().manual_seed(0)
    compare.randomize(net, generator)
    inputs = compare.draw_inputs(net.config, torch.float64, generator)
    for mode in (net.eval, net.train):
        compare.compare(mode(), inputs, inputs.per_sample)
