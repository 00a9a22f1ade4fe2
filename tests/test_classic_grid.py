"""Every structure of the classic topology against the specification's equations."""

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

    single = compare.compare_single(net.eval(), generator)
    compare.compare_values(net, single, generator)

    double = compare.draw_inputs(net.double().config, torch.float64, generator)
    compare.compare(net.eval(), double, double.shared)
    compare.compare_q_values(net, double)
    compare.compare(net.train(), double, double.per_sample)
