"""The head of which every offset of a block has a vector of its own."""

from __future__ import annotations

from functools import partial

import pytest
import torch

import iqn_blocks
from iqn_blocks import ConfigError
from iqn_blocks.blocks import BlockHead
from iqn_blocks.plasticity import parameter_groups
from tests.blocks.compare import compare_both
from tests.configs import tiny_float
from tests.reference.parts.block import block_head


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.mark.parametrize("out_shape", [(1,), (3,), (2, 3)])
@pytest.mark.parametrize("n_layers", [0, 1])
def test_it_is_its_equation(out_shape, n_layers):
    head = BlockHead(6, out_shape, hidden_dim=5, n_layers=n_layers, n_heads=2)

    def draw(generator):
        return [torch.randn((3, 6), generator=generator, dtype=torch.float64)]

    equation = partial(block_head, out_shape=out_shape, width=5, layers=n_layers)
    compare_both(head, equation, draw)


def test_offsets_begin_nearly_alike_and_are_told_apart():
    head = BlockHead(64, (2, 3), hidden_dim=32)
    assert head.offsets.mean().item() == pytest.approx(1, abs=0.05)
    assert head.offsets.std().item() == pytest.approx(0.1, abs=0.03)
    one, two = head(torch.randn(8, 64)).unbind(1)
    assert (one - two).abs().max() > 0
    assert (one - two).abs().mean() < 0.3 * one.abs().mean()


@pytest.mark.parametrize("n_layers", [0, 1])
def test_only_with_layers_an_offset_sees_the_vectors_of_others(n_layers):
    head = BlockHead(8, (2, 3), hidden_dim=8, n_layers=n_layers)
    head(torch.randn(4, 8))[:, 0].square().sum().backward()
    assert head.offsets.grad[0].any()
    assert head.offsets.grad[1].any() == (n_layers > 0)


def test_in_a_configuration():
    block = {"block": {"n_layers": 1, "n_heads": 2, "hidden_dim": 4}}
    net = iqn_blocks.build(tiny_float(n_actions=[3, 2], nn={"decoder": {"advantage": block}}))
    assert net.advantage_head.offsets.shape == (2, 8)
    assert net.q_values(*net.example_inputs(4)).shape == (4, 2, 3)
    assert any(net.advantage_head.offsets is p for p in parameter_groups(net)["embeddings"])
    block["block"]["n_heads"] = 3
    message = r"nn\.decoder\.advantage\.block\.n_heads: found 3, which does not divide .* set n_h"
    with pytest.raises(ConfigError, match=message):
        iqn_blocks.build(tiny_float(nn={"decoder": {"advantage": block}}))


def test_what_it_is_made_with_by_default():
    head = BlockHead(32, (2, 3))
    assert len(head.encoder.layers) == 0  # over the offsets
    layer = BlockHead(32, (2, 3), n_layers=1).encoder
    widths = {module.out_features for module in layer.modules() if hasattr(module, "out_features")}
    assert 4 * 32 in widths  # ff_mult
