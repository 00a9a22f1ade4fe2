"""Every structure of the classic topology against the equations of tests/reference."""

from __future__ import annotations

import pytest
import torch

from tests import compare, grid

CONFIGS = grid.classic_grid()


@pytest.mark.parametrize("name", CONFIGS)
def test_agrees_with_the_reference(name: str) -> None:
    generator = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    net = compare.build_without_warnings(CONFIGS[name])
    compare.randomize(net, generator)

    compare.compare_single(net.eval(), generator)

    double = compare.draw_inputs(net.double().config, torch.float64, generator)
    compare.compare(net.eval(), double, double.shared)
    compare.compare_values(net, double, generator)
    compare.compare_q_values(net, double)
    decoder = net.config.nn.decoder
    net.recompute = decoder.advantage.transformer is None and decoder.value.transformer is None
    compare.compare(net.train(), double, double.per_sample)
