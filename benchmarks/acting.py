"""Acting: ``q_values`` of each engine, and what it costs to bring a copy up to date.

Every side runs in a process of its own: the thread pools of two engines in one process wait for
each other, which doubles the time of the faster one.
"""

from __future__ import annotations

import copy
import multiprocessing
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from typing import NamedTuple

import torch
from torch import Tensor

import iqn_blocks
from benchmarks.literal import export_literal
from benchmarks.networks import Batch, Pair, assert_close, build_pair, draw_batch
from benchmarks.results import SECONDS, SHARE, Record
from benchmarks.scenarios import Scenario
from benchmarks.setup import Setup
from benchmarks.timing import Call, time_sides

FLOAT32 = 1e-5  # of the largest value
BFLOAT16 = 0.05
ROUNDS = 2  # processes of each side, in turn


class Alone(NamedTuple):
    """What one process measured: seconds of a call, and its error in the range of the values."""

    seconds: list[float]
    error: float


def measure_acting(scenario: Scenario, setup: Setup) -> list[Record]:
    """Every acting batch size, then the updates of the copy."""
    records = []
    for batch in setup.sizes.acting_batches:
        records += _measure_batch(scenario, setup, batch)
    return records + _measure_updates(scenario, setup)


def _sides(scenario: Scenario, setup: Setup) -> list[str]:
    modes = setup.acting_modes if setup.compiled else ()
    compiled = [f"{side} compiled {mode}" for mode in modes for side in ("ours", "ours bfloat16")]
    onnxruntime = [] if setup.cuda else ["ours onnxruntime"]
    if onnxruntime and "btr" not in scenario.config:  # PyTorch exports no adaptive pooling
        onnxruntime.insert(0, "literal onnxruntime")
    return ["literal", "ours", *onnxruntime, "ours bfloat16", *compiled]


def _measure_batch(scenario: Scenario, setup: Setup, batch: int) -> list[Record]:
    case = f"B={batch}, K={setup.sizes.acting_quantiles}"
    seconds: dict[str, list[float]] = defaultdict(list)
    error = 0.0
    for _ in range(ROUNDS):
        for side in _sides(scenario, setup):
            alone = in_own_process(scenario, setup, batch, side)
            seconds[side] += alone.seconds
            if side == "ours bfloat16":
                error = alone.error
    records = [
        Record.of("acting", scenario.name, case, side, SECONDS, samples)
        for side, samples in seconds.items()
    ]
    if batch > 1:
        case += ", largest error in the range of the float32 values"
        records.append(Record.of("acting", scenario.name, case, "ours bfloat16", SHARE, [error]))
    return records


def in_own_process(scenario: Scenario, setup: Setup, batch: int, side: str) -> Alone:
    """:func:`measure_alone` in a fresh process with as many threads as this one."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        threads = torch.get_num_threads()
        return pool.submit(measure_alone, scenario, setup, batch, side, threads).result()


@torch.no_grad()
def measure_alone(scenario: Scenario, setup: Setup, batch: int, side: str, threads: int) -> Alone:
    """Time one side, after a comparison of its values with the literal network's."""
    torch.set_num_threads(threads)
    pair = build_pair(scenario, setup.device)
    for network in pair:
        network.eval()
    inputs = draw_batch(pair.ours, batch, setup.sizes.acting_quantiles)
    img, floats, _ = inputs
    wanted = pair.literal.q_values(img, floats)
    call = _call(setup, pair, inputs, side)
    found = call()
    tolerance = BFLOAT16 if "bfloat16" in side else FLOAT32
    assert_close(found, wanted, tolerance, side)
    error = (found - wanted).abs().max() / (wanted.max() - wanted.min())
    repetitions = setup.repetitions * (10 if setup.cuda else 1)
    (seconds,) = time_sides({side: call}, setup.clock, repetitions).values()
    return Alone(seconds, error.item())


def _call(setup: Setup, pair: Pair, inputs: Batch, side: str) -> Callable[[], Tensor]:
    """``q_values`` of the inputs, the way of one side."""
    net, literal = pair
    img, floats, _ = inputs
    if side == "literal":
        return lambda: literal.q_values(img, floats)
    if side == "literal onnxruntime":
        return export_literal(literal, img, floats)
    if side == "ours onnxruntime":
        dtype = torch.uint8 if img is None else img.dtype
        engine = iqn_blocks.optimize_for_inference(net, engine="onnxruntime", image_dtype=dtype)
        return lambda: engine.q_values(img, floats)
    fast = iqn_blocks.optimize_for_inference(net)
    tolerance = FLOAT32
    if "bfloat16" in side:
        fast, tolerance = fast.bfloat16(), BFLOAT16
    _, compiled, mode = side.partition(" compiled ")
    if compiled:
        return _compiled(setup, pair, fast, inputs, mode, tolerance)
    return lambda: fast.q_values(img, floats)


def _compiled(
    setup: Setup,
    pair: Pair,
    fast: iqn_blocks.InferenceIQN,
    inputs: Batch,
    mode: str,
    tolerance: float,
) -> Callable[[], Tensor]:
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


@torch.no_grad()
def _measure_updates(scenario: Scenario, setup: Setup) -> list[Record]:
    net = build_pair(scenario, setup.device).ours.eval()
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
