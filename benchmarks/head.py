"""How near the head's first matrix products come to the fastest product of the machine."""

from __future__ import annotations

import torch

from benchmarks.networks import build_pair
from benchmarks.results import FLOPS, SHARE, Record
from benchmarks.scenarios import Scenario
from benchmarks.setup import Setup
from benchmarks.timing import time_sides
from iqn_blocks.blocks import Head

PEAK_SIDE_CUDA = 8192  # rows and columns of the product whose speed is called the peak
PEAK_SIDE_CPU = 1024


@torch.no_grad()
def measure_head(scenario: Scenario, setup: Setup) -> list[Record]:
    """The forward's product and the backward's two, as the network runs them in training."""
    net = build_pair(scenario, setup.device).ours
    rows = scenario.training_batch * setup.sizes.training_quantiles
    assert isinstance(net.value_head, Head)
    width = next(net.value_head.hidden.parameters()).shape[0]
    side = PEAK_SIDE_CUDA if setup.cuda else PEAK_SIDE_CPU
    square, x, w, grad = (
        torch.randn(size, device=setup.device, dtype=setup.training_dtype)
        for size in ((side, side), (rows, net.state_dim), (width, net.state_dim), (rows, width))
    )
    flops = {
        "peak": 2 * side**3,
        "head, forward": 2 * rows * width * net.state_dim,
        "head, backward": 4 * rows * width * net.state_dim,
    }
    samples = time_sides(
        {
            "peak": lambda: square @ square,
            "head, forward": lambda: x @ w.T,
            "head, backward": lambda: (grad.T @ x, grad @ w),
        },
        setup.clock,
        setup.repetitions,
    )
    case = f"{rows} × {net.state_dim} → {width}"
    records = [
        Record.of("head", scenario.name, case, name, FLOPS, [flops[name] / s for s in seconds])
        for name, seconds in samples.items()
    ]
    peak, forward, backward = (record.median for record in records)
    whole = 3 / (1 / forward + 2 / backward)
    records.append(
        Record.of("head", scenario.name, case, "share of the peak", SHARE, [whole / peak])
    )
    return records
