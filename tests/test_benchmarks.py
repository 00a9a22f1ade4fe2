"""The benchmarks at tiny sizes: what they compare is equal, and what they write can be read."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

import iqn_blocks
from benchmarks import __main__ as program
from benchmarks import acting, report
from benchmarks.literal import LiteralIQN
from benchmarks.memory import peak_bytes, saved_bytes
from benchmarks.networks import build_pair, check_same, draw_batch
from benchmarks.plots import draw
from benchmarks.results import BYTES, SECONDS, SHARE, Record, Run, format_value, table
from benchmarks.scenarios import NAMES, TINY, scenario
from benchmarks.setup import Setup
from benchmarks.timing import Clock, time_sides
from benchmarks.training import Side, check_updates_are_seen

CPU = torch.device("cpu")
SETUP = Setup(CPU, TINY, repetitions=1, compiled=False)


@pytest.mark.parametrize("name", NAMES)
def test_literal_network_is_the_same(name, monkeypatch):
    pair = build_pair(scenario(name, TINY), CPU)  # compares values and gradients
    assert any(p.abs().max() > 0 for p in pair.ours.buffers())
    forward = LiteralIQN.forward
    monkeypatch.setattr(LiteralIQN, "forward", lambda *args: forward(*args) * (1 + 1e-9))
    with pytest.raises(AssertionError, match="q: differs by"):
        check_same(pair)


def test_a_side_is_timed_in_a_process_of_its_own():
    alone = acting.in_own_process(scenario("floats", TINY), SETUP, 1, "ours")
    assert len(alone.seconds) == SETUP.repetitions
    assert alone.error < 1e-5


def test_a_run_prints_a_table_and_writes_what_the_report_reads(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(acting, "in_own_process", lambda *args: acting.measure_alone(*args, 1))
    monkeypatch.setattr(acting, "ROUNDS", 1)
    path = tmp_path / "run.json"
    options = ["--tiny", "--no-compile", "--repetitions", "2", "--output", str(path)]
    program.main(["acting", "training", "memory", "head", "floats", *options])
    printed = capsys.readouterr().out
    assert "acting · floats · B=2, K=4\n  literal " in printed
    assert "× as fast as literal" in printed

    run = Run.load(path)
    kinds = {"acting", "upkeep", "training", "memory", "head"}
    assert {(r.kind, r.scenario) for r in run.records} == {(kind, "floats") for kind in kinds}
    assert all(0 < r.low <= r.median <= r.high for r in run.records)
    assert {"cpu", "threads", "torch", "date", "command"} <= set(run.machine)

    page = "a\n<!-- measured: training cpu -->\nold\n<!-- end -->\nb\n"
    filled = report.fill(page, [run])
    assert "| floats | B=3, K=2 | " in filled
    assert "old" not in filled
    assert filled == report.fill(filled, [run])
    assert report.NOT_YET in report.fill(page, [])
    assert draw(run.records, tmp_path / "bars.svg")
    assert "linesight" not in (tmp_path / "bars.svg").read_text()


def test_startup_at_tiny_size(capsys):
    records = program.run(["startup"], ["floats"], SETUP)
    assert [(r.case, r.unit) for r in records] == [
        ("import iqn_blocks", SECONDS),
        ("build", SECONDS),
    ]


def test_wrong_names_are_refused(capsys):
    with pytest.raises(SystemExit):
        program.main(["actin"])
    assert "unknown NAME: actin" in capsys.readouterr().err


def test_the_page_shows_the_recorded_results():
    page = (report.PAGE).read_text(encoding="utf-8")
    assert page == report.fill(page, report.load_runs(report.RESULTS)), (
        "docs/performance.md is stale: run `python -m benchmarks report`"
    )


def test_sides_are_timed_in_turn():
    order = []
    sides = {name: lambda name=name: order.append(name) for name in "abc"}

    class OneCall(Clock):
        def calls_per_sample(self, call):
            return 1

    samples = time_sides(sides, OneCall(CPU), 4)
    assert "".join(order) == "abcbcacababc"
    assert all(len(seconds) == 4 for seconds in samples.values())


def test_short_calls_are_repeated():
    x = torch.ones(2)
    assert Clock(CPU).calls_per_sample(lambda: x + x) > 10


def test_bytes_kept_for_backward():
    layer = nn.Linear(3, 4, bias=False)
    x = torch.ones(5, 3)
    # The exponential, which square keeps, and the result; not what the exponential was made of.
    assert saved_bytes(lambda: layer(x).exp().square(), CPU) == 4 * (20 + 20)


def test_peak_bytes_of_a_step():
    def step():
        a = torch.ones(1000)
        b = a + 1
        del a
        return b.sum()

    assert 8000 <= peak_bytes(step, CPU) < 9000


def test_compiled_network_must_follow_updates():
    net = iqn_blocks.build(scenario("btr", TINY).config)
    net.reset_noise()
    inputs = draw_batch(net, 2, 2)

    def side(call):
        return Side(net, lambda: call(*inputs[:2], tau=inputs.tau)[0])

    before = copy.deepcopy(net.state_dict())
    follows = torch.compile(net, backend="eager")
    check_updates_are_seen(SETUP, net, inputs, side(follows), side(net))
    after = net.state_dict()
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
    stale = copy.deepcopy(net)
    with pytest.raises(AssertionError, match="compiled network: differs by"):
        check_updates_are_seen(SETUP, net, inputs, side(stale), side(net))


def test_medians_and_ratios():
    values = [3.0, 1.0, 2.0, 5.0, 4.0]
    literal = Record.of("k", "net", "case", "literal", SECONDS, values)
    assert (literal.low, literal.median, literal.high, literal.samples) == (2, 3, 4, 5)
    ours = literal._replace(side="ours", median=1.5)
    kept = Record.of("m", "net", "", "literal", BYTES, [4096])
    less = Record.of("m", "net", "", "ours", BYTES, [1024])
    text = table([literal, ours, kept, less])
    assert "2.00× as fast as literal" in text
    assert "0.25 of literal" in text
    assert text.startswith("k · net · case\n")


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (1.234, SECONDS, "1.23 s"),
        (0.01234, SECONDS, "12.3 ms"),
        (0.1234e-3, SECONDS, "123 µs"),
        (5e-8, SECONDS, "0.05 µs"),
        (3 * 2**20, BYTES, "3.00 MiB"),
        (0.0123, SHARE, "1.23 %"),
        (2.5e12, "FLOP/s", "2.50 TFLOP/s"),
    ],
)
def test_values_as_text(value, unit, text):
    assert format_value(value, unit) == text


def test_newer_runs_win():
    old = Record.of("training", "btr", "c", "literal", SECONDS, [1.0])
    gone = old._replace(side="ours")
    other = old._replace(scenario="classic")
    runs = [
        Run({"device": "cpu"}, [old, gone, other]),
        Run({"device": "cpu"}, [old._replace(median=2.0)]),
        Run({"device": "cuda"}, [old._replace(median=3.0)]),
    ]
    found = [measured.record for measured in report.latest(runs, "cpu")]
    assert found == [old._replace(median=2.0), other]
