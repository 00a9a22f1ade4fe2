"""Run the benchmarks, or put recorded results into the docs.

    python -m benchmarks                    everything
    python -m benchmarks acting btr         one kind of measurement, one network
    python -m benchmarks --device cuda      on a GPU, with the batch sizes of one
    python -m benchmarks report             fill docs/performance.md from benchmarks/results

A run prints a table and writes JSON: a whole one to benchmarks/results, where ``report`` looks, a
part to benchmarks/output unless ``--output`` names another place.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from benchmarks import report, scenarios
from benchmarks.acting import measure_acting
from benchmarks.head import measure_head
from benchmarks.peers import measure_peers
from benchmarks.results import Record, Run, describe_machine, table
from benchmarks.scenarios import Scenario, scenario
from benchmarks.setup import Setup
from benchmarks.startup import measure_build, measure_import
from benchmarks.training import measure_memory, measure_training

Measure = Callable[[Scenario, Setup], list[Record]]

PER_SCENARIO: dict[str, Measure] = {
    "acting": measure_acting,
    "training": measure_training,
    "memory": measure_memory,
    "head": measure_head,
}
KINDS = (*PER_SCENARIO, "startup", "peers")
IMPORT_REPETITIONS = 7


def run(kinds: Sequence[str], names: Sequence[str], setup: Setup) -> list[Record]:
    """Measure these kinds for these scenarios; prints each table when it is done."""
    records: list[Record] = []

    def add(found: list[Record]) -> None:
        records.extend(found)
        if found:
            print(table(found), end="\n\n", flush=True)

    for kind in kinds:
        if kind == "startup":
            add(measure_import(min(IMPORT_REPETITIONS, setup.repetitions)))
            for name in names:
                add(measure_build(scenario(name, setup.sizes), setup.clock, setup.repetitions))
        elif kind == "peers":
            add(measure_peers(setup))
        else:
            for name in names:
                add(PER_SCENARIO[kind](scenario(name, setup.sizes), setup))
    return records


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    options = _parse(arguments)
    if options.names == ["report"]:
        report.write()
        return
    device = torch.device(options.device)
    if options.threads:
        torch.set_num_threads(options.threads)
    sizes = scenarios.CUDA if device.type == "cuda" else scenarios.FULL
    setup = Setup(
        device,
        scenarios.TINY if options.tiny else sizes,
        options.repetitions,
        compiled=not options.no_compile,
    )
    kinds = [kind for kind in KINDS if kind in options.names] or list(_default_kinds(setup))
    all_names = scenarios.CUDA_NAMES if setup.cuda else scenarios.NAMES
    names = [name for name in scenarios.NAMES if name in options.names] or list(all_names)
    machine = describe_machine(device)
    print(", ".join(f"{key} {value}" for key, value in machine.items() if value), end="\n\n")

    start = time.perf_counter()
    records = run(kinds, names, setup)
    whole = not options.names and not options.tiny and not options.no_compile
    folder = report.RESULTS if whole else Path("benchmarks/output")
    path = options.output or folder / f"{'-'.join([device.type, *options.names])}.json"
    Run(machine, records).save(path)
    print(f"{path}, {time.perf_counter() - start:.0f} s")


def _default_kinds(setup: Setup) -> tuple[str, ...]:
    return KINDS if setup.cuda else tuple(kind for kind in KINDS if kind != "head")


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "names",
        nargs="*",
        metavar="NAME",
        help=f"kinds ({', '.join(KINDS)}) and networks ({', '.join(scenarios.NAMES)}), or report",
    )
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--repetitions", type=int, default=20, help="samples of each side at most")
    parser.add_argument("--threads", type=int, help="threads of PyTorch; all cores by default")
    parser.add_argument("--no-compile", action="store_true", help="leave the compiled sides out")
    parser.add_argument("--tiny", action="store_true", help="tiny networks, to try the program")
    parser.add_argument("--output", type=Path, help="where the JSON goes")
    options = parser.parse_args(arguments)
    unknown = set(options.names) - {*KINDS, *scenarios.NAMES, "report"}
    if unknown:
        parser.error(f"unknown NAME: {', '.join(sorted(unknown))}; see --help")
    return options


if __name__ == "__main__":
    main()
