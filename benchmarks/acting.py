"""Acting: ``q_values`` of the folded copy, and what it costs to bring it up to date."""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import Tensor

import iqn_blocks
from benchmarks.networks import Batch, Pair, assert_close, build_pair, draw_batch
from benchmarks.results import SECONDS, SHARE, Record
from benchmarks.scenarios import Scenario
from benchmarks.setup import Setup
from benchmarks.timing import Call, time_sides

FLOAT32 = 1e-5  # of the largest value
BFLOAT16 = 0.05


@torch.no_grad()
def measure_acting(scenario: Scenario, setup: Setup) -> list[Record]:
    """Every acting batch size, then the updates of the copy."""
    pair = build_pair(scenario, setup.device)
    for network in pair:
        network.eval()
    records = []
    for batch in setup.sizes.acting_batches:
        records += _measure_batch(scenario, setup, pair, batch)
    return records + _measure_updates(scenario, setup, pair)


def _measure_batch(scenario: Scenario, setup: Setup, pair: Pair, batch: int) -> list[Record]:
    torch.compiler.reset()
    net, literal = pair
    k = setup.sizes.acting_quantiles
    inputs = draw_batch(net, batch, k)
    img, floats, _ = inputs
    fast = iqn_blocks.optimize_for_inference(net)
    small = copy.deepcopy(fast).bfloat16()
    wanted = literal.q_values(img, floats)

    sides: dict[str, Call] = {
        "literal": lambda: literal.q_values(img, floats),
        "ours": lambda: fast.q_values(img, floats),
        "ours bfloat16": lambda: small.q_values(img, floats),
    }
    assert_close(fast.q_values(img, floats), wanted, FLOAT32, "folded copy")
    if setup.compiled:
        for mode in setup.acting_modes:
            suffix = "" if mode == "default" else f" {mode}"
            sides[f"ours compiled{suffix}"] = _compiled(setup, pair, fast, inputs, mode, FLOAT32)
            if setup.cuda:
                sides[f"ours bfloat16 compiled{suffix}"] = _compiled(
                    setup, pair, small, inputs, mode, BFLOAT16
                )

    repetitions = setup.repetitions * (10 if setup.cuda else 1)
    case = f"B={batch}, K={k}"
    samples = time_sides(sides, setup.clock, repetitions)
    records = [
        Record.of("acting", scenario.name, case, side, SECONDS, seconds)
        for side, seconds in samples.items()
    ]
    if batch > 1:
        error = (small.q_values(img, floats) - wanted).abs().max() / (wanted.max() - wanted.min())
        case += ", largest error in the range of the float32 values"
        records.append(
            Record.of("acting", scenario.name, case, "ours bfloat16", SHARE, [error.item()])
        )
    return records


def _compiled(
    setup: Setup,
    pair: Pair,
    fast: iqn_blocks.InferenceIQN,
    inputs: Batch,
    mode: str,
    tolerance: float,
) -> Call:
    """The compiled call, after proof that it sees new weights and noise."""
    img, floats, _ = inputs
    compiled: Callable[..., Tensor] = setup.compile_acting(fast.q_values, mode)
    live = copy.deepcopy(pair.ours)
    for _ in range(3):  # CUDA graphs are recorded in the second call
        before = compiled(img, floats).clone()
    assert_close(before, fast.q_values(img, floats), tolerance, f"compiled, {mode}")

    update(live, inputs)
    fast.refresh(live, in_place=True)
    after = compiled(img, floats).clone()
    assert_close(after, fast.q_values(img, floats), tolerance, f"compiled, {mode}, refreshed")
    assert (after - before).abs().max() > 2 * tolerance * before.abs().max(), "nothing changed"
    live.reset_noise()
    fast.refresh_heads(live, in_place=True)
    after = compiled(img, floats).clone()
    assert_close(after, fast.q_values(img, floats), tolerance, f"compiled, {mode}, new noise")
    fast.refresh(pair.ours, in_place=True)
    return lambda: compiled(img, floats)


@torch.enable_grad()
def update(net: iqn_blocks.IQN, inputs: Batch) -> None:
    """One optimiser step that changes every weight visibly, and new noise."""
    optimizer = torch.optim.Adam(net.parameters(), lr=0.01)
    net(*inputs[:2], tau=inputs.tau)[0].square().mean().backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    net.zero_grad(set_to_none=True)
    net.reset_noise()


def _measure_updates(scenario: Scenario, setup: Setup, pair: Pair) -> list[Record]:
    net = pair.ours
    fast = iqn_blocks.optimize_for_inference(net)
    _, floats, _ = draw_batch(net, 1, 2)
    normalization = fast.get_submodule("folded.encoder.float_normalization")
    sides: dict[str, Call] = {
        "optimize_for_inference": lambda: iqn_blocks.optimize_for_inference(net),
        "refresh": lambda: fast.refresh(net),
        "refresh_heads": lambda: fast.refresh_heads(net),
        "reset_noise": net.reset_noise,
        "float normalisation, B=1": lambda: normalization(floats),
    }
    return [
        Record.of("upkeep", scenario.name, "", side, SECONDS, seconds)
        for side, seconds in time_sides(sides, setup.clock, setup.repetitions).items()
    ]
