"""The table of a network's stages."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import iqn_blocks
from iqn_blocks.blocks import Hadamard, Head, TauEmbedding
from iqn_blocks.graph import trace
from tests.configs import tiny


class Failing(nn.Module):
    state_dim = 4

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 4)

    def forward(self, img: object, floats: torch.Tensor) -> torch.Tensor:
        raise ArithmeticError("no state")


def by_hand(encoder: nn.Module) -> iqn_blocks.IQN:
    heads = {"value_head": Head(4, [8], (1,)), "advantage_head": Head(4, [8], (3,))}
    inputs = iqn_blocks.InputSpec(n_floats=2)
    return iqn_blocks.IQN(encoder, TauEmbedding(5, 4), Hadamard(4), **heads, inputs=inputs)


def test_no_hooks_are_left_behind() -> None:
    net = by_hand(Failing())
    with pytest.raises(ArithmeticError):
        iqn_blocks.describe(net)
    assert not any(module._forward_hooks for module in net.modules())
    net = by_hand(Failing())
    net.inputs = iqn_blocks.InputSpec()  # without it there are no examples to run
    with pytest.raises(ValueError, match="made by hand without inputs"):
        iqn_blocks.describe(net)
    assert not any(module._forward_hooks for module in net.modules())


def test_a_compiled_network_is_described_as_itself() -> None:
    net = iqn_blocks.build(
        {"n_actions": 3, "float_input_dim": 2, "nn": {"vis": {"no_image": True}}}
    )
    text = iqn_blocks.describe(net)
    assert iqn_blocks.describe(torch.compile(net)) == text
    assert "mixer" in text and "Hadamard" in text


def test_other_modules_are_refused() -> None:
    with pytest.raises(
        TypeError, match=r"expected a network made by iqn_blocks\.build.*got Linear"
    ):
        iqn_blocks.describe(nn.Linear(2, 2))


def test_a_stage_that_hands_its_input_on_stands_between_its_neighbours() -> None:
    edges = trace(iqn_blocks.build(tiny())).edges  # floating images pass the normalisation as is
    assert {edge for edge in edges if edge[0] == "img" or edge[1] == "encoder.stem"} == {
        ("img", "encoder.image_normalization"),
        ("encoder.image_normalization", "encoder.stem"),
    }
