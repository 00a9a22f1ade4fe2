"""The benchmarks at tiny sizes: what they compare is equal, and what they write can be read."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

import iqn_blocks
from benchmarks import __main__ as program
from benchmarks import report
from benchmarks.limit import Attention, Convolution, Linears, limit_call, products
from benchmarks.literal import LiteralIQN
from benchmarks.memory import peak_bytes, saved_bytes
from benchmarks.networks import build_pair, check_same, draw_batch
from benchmarks.plots import draw
from benchmarks.results import BYTES, SECONDS, SHARE, Record, Run, format_value, table
from benchmarks.scenarios import NAMES, TINY, scenario
from benchmarks.setup import Setup
from benchmarks.timing import Clock, fastest, time_sides
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


def test_products_of_a_network():
    net, literal = build_pair(scenario("classic", TINY), CPU)
    inputs = draw_batch(net, 3, 4)
    convolutions = [
        Convolution((3, 1, 36, 36), (16, 1, 4, 4), (2, 2), (0, 0), False),
        Convolution((3, 16, 17, 17), (32, 16, 4, 4), (2, 2), (0, 0), True),
        Convolution((3, 32, 7, 7), (64, 32, 3, 3), (2, 2), (0, 0), True),
        Convolution((3, 64, 3, 3), (32, 64, 3, 3), (1, 1), (0, 0), True),
    ]
    floats = [Linears(3, 5, (8,), False), Linears(3, 8, (8,), True)]
    head = Linears(12, 40, (8, 8), True)
    rows = [Linears(12, 8, (1,), True), Linears(12, 8, (3,), True)]
    found = products(literal, *inputs, acting=False)
    assert found == [*floats, *convolutions, Linears(12, 4, (40,), False), head, *rows]
    with torch.no_grad():
        found = products(literal, *inputs, acting=True)
    assert found[:-1] == [p._replace(input_grad=False) for p in (*floats, *convolutions, head)]
    assert found[-1] == Linears(3, 16, (3,), False)  # both readouts of the mean row
    limit_call(found, inputs.floats, Clock(CPU), acting=True)()


class Normal:
    """Stands where a tensor's `new_ones` is called: other numbers than ones tell layouts apart."""

    def new_ones(self, *size):
        return torch.randn(*size, generator=torch.Generator().manual_seed(sum(size)))


def total(result):
    parts = result if isinstance(result, list | tuple) else [result]
    return sum(part.double().sum() for part in parts if part is not None)


@pytest.mark.parametrize(
    ("product", "like", "ways"),
    [
        (Linears(6, 5, (4, 3), True), Normal(), [5, 3, 4]),
        (Linears(6, 5, (4,), False), Normal(), [5, 3]),
        (Convolution((2, 3, 8, 8), (4, 3, 3, 3), (2, 2), (1, 1), True), torch.ones(1), [3, 2]),
        (Attention((2, 2, 3, 4)), torch.ones(1), [1, 1]),
    ],
    ids=lambda case: type(case).__name__,
)
def test_ways_to_do_a_product_agree(product, like, ways):
    steps = [product.forward(like) + product.packed(like), *product.backward(like)]
    assert [len(step) for step in steps] == ways
    for step in steps:
        sums = torch.stack([total(call()) for call in step])
        torch.testing.assert_close(sums, sums[:1].expand_as(sums), rtol=1e-5, atol=1e-5)
        assert torch.isfinite(sums).all()


def test_a_run_prints_a_table_and_writes_what_the_report_reads(tmp_path, capsys):
    path = tmp_path / "run.json"
    options = ["--tiny", "--no-compile", "--repetitions", "2", "--output", str(path)]
    program.main(["acting", "training", "memory", "head", "btr", "floats", *options])
    printed = capsys.readouterr().out
    assert "acting · btr · B=1, K=4\n  literal " in printed
    assert "× the limit" in printed

    run = Run.load(path)
    kinds = {"acting", "upkeep", "training", "memory", "head"}
    assert {(r.kind, r.scenario) for r in run.records} == {
        (kind, name) for kind in kinds for name in ("btr", "floats")
    }
    assert all(0 < r.low <= r.median <= r.high for r in run.records)
    assert {"cpu", "threads", "torch", "date", "command"} <= set(run.machine)

    page = "a\n<!-- measured: training cpu -->\nold\n<!-- end -->\nb\n"
    filled = report.fill(page, [run])
    assert "| btr | B=3, K=2 | " in filled
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
    calls = []
    fast, slow = (lambda: calls.append(1)), (lambda: torch.ones(300, 300) @ torch.ones(300, 300))
    assert fastest([slow, fast], Clock(CPU)) is fast


def test_bytes_kept_for_backward():
    layer = nn.Linear(3, 4, bias=False)
    x = torch.ones(5, 3)
    # Kept are x and the parameter for the product, the result once though two operations need it.
    assert saved_bytes(layer, lambda: layer(x).exp().square()) == 4 * (15 + 20)


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
