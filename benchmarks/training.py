"""Training: the time and the memory of a forward and backward."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

import iqn_blocks
from benchmarks.acting import update
from benchmarks.memory import peak_bytes, saved_bytes
from benchmarks.networks import Batch, Pair, assert_close, build_pair, draw_batch
from benchmarks.results import BYTES, SECONDS, Record
from benchmarks.scenarios import Scenario
from benchmarks.setup import Setup
from benchmarks.timing import Call, time_sides

FLOAT32 = 1e-3  # of the largest value; a power iteration of spectral norm lies between two calls
BFLOAT16 = 0.05
SETTLING_CALLS = 30


class Side(NamedTuple):
    """One way to train: a network and its forward."""

    network: nn.Module
    forward: Callable[[], Tensor]

    def step(self) -> None:
        """Forward and backward."""
        q = self.forward()
        torch.autograd.backward(q, torch.ones_like(q))
        self.network.zero_grad(set_to_none=True)


def measure_training(scenario: Scenario, setup: Setup) -> list[Record]:
    """Seconds of a forward and backward in training mode, noise on."""
    torch.compiler.reset()
    pair, inputs, case = _prepare(scenario, setup)
    sides: dict[str, Call] = {
        name: side.step for name, side in _sides(setup, pair, inputs, setup.compiled).items()
    }
    return [
        Record.of("training", scenario.name, case, side, SECONDS, seconds)
        for side, seconds in time_sides(sides, setup.clock, setup.repetitions).items()
    ]


def measure_memory(scenario: Scenario, setup: Setup) -> list[Record]:
    """Bytes kept for backward, and the most that a forward and backward hold at a time."""
    torch.compiler.reset()
    pair, inputs, case = _prepare(scenario, setup)
    saved = {
        name: saved_bytes(side.forward, setup.device)
        for name, side in _sides(setup, pair, inputs, compiled=False).items()
    }
    peak = {
        name: peak_bytes(side.step, setup.device)
        for name, side in _sides(setup, pair, inputs, setup.compiled and setup.cuda).items()
    }
    return [
        Record.of("memory", scenario.name, f"{what}, {case}", side, BYTES, [size])
        for what, sizes in (("kept for backward", saved), ("peak", peak))
        for side, size in sizes.items()
    ]


def _prepare(scenario: Scenario, setup: Setup) -> tuple[Pair, Batch, str]:
    pair = build_pair(scenario, setup.device)
    for network in pair:
        network.train()
    batch, k = scenario.training_batch, setup.sizes.training_quantiles
    return pair, draw_batch(pair.ours, batch, k), f"B={batch}, K={k}"


def _sides(setup: Setup, pair: Pair, inputs: Batch, compiled: bool) -> dict[str, Side]:
    """The ways to train, by name."""
    img, floats, tau = inputs

    def literal_side(call: Callable[..., Tensor]) -> Side:
        def forward() -> Tensor:
            with setup.training_autocast():
                return call(img, floats, tau)

        return Side(pair.literal, forward)

    def our_side(net: iqn_blocks.IQN, call: Callable[..., tuple[Tensor, Tensor]]) -> Side:
        def forward() -> Tensor:
            with setup.training_autocast():
                return call(img, floats, tau=tau)[0]

        return Side(net, forward)

    net, saving = pair.ours, copy.deepcopy(pair.ours)
    saving.recompute = True
    sides = {
        "literal": literal_side(pair.literal),
        "ours": our_side(net, net),
        "ours recompute": our_side(saving, saving),
    }
    if compiled:
        if setup.cuda:
            sides["literal compiled"] = literal_side(
                setup.compile_training(pair.literal, fullgraph=False)
            )
        sides["ours compiled"] = our_side(net, setup.compile_training(net))
        check_updates_are_seen(setup, net, inputs, sides["ours compiled"], sides["ours"])
    return sides


def check_updates_are_seen(
    setup: Setup, net: iqn_blocks.IQN, inputs: Batch, compiled: Side, eager: Side
) -> None:
    """The compiled network has the eager one's values before and after an update and new noise."""
    tolerance = BFLOAT16 if setup.cuda else FLOAT32
    before = copy.deepcopy(net.state_dict())
    for _ in range(3):  # CUDA graphs are recorded in the second step
        compiled.step()
    outputs = []
    for change in (None, lambda: update(net, draw_batch(net, 2, 2)), net.reset_noise):
        if change is not None:
            change()
        with torch.no_grad():
            for _ in range(SETTLING_CALLS):  # spectral norm follows the new weights
                net(*draw_batch(net, 1, 2)[:2], 2)
        found = compiled.forward().detach().clone()
        assert_close(found, eager.forward().detach(), tolerance, "compiled network")
        outputs.append(found)
    moved = (outputs[1] - outputs[0]).abs().max() / outputs[0].abs().max()
    assert moved > 2 * tolerance, f"the update moved the values by {moved:.3g} only"
    net.load_state_dict(before)
