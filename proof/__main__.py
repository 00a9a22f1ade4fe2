"""Fill tables that others can check, or put what is there into the docs.

    python -m proof memory boards       run what is missing of these tables
    python -m proof cartpole --row "IQN, our loop" --seeds 0 1
    python -m proof page                fill docs/proof.md from proof/results
    python -m proof check               run two cheap rows again and compare

A run that was broken off starts over; runs that are there are kept, unless their settings have
changed since. Several processes may run different tables or rows at once.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from proof import page
from proof.loop import learn
from proof.results import FOLDER, Result, describe, load, thin
from proof.tables import TABLES

CHECKED = (("memory", "gru"), ("distributions", "IQN, K = 8"))


def run(table: str, row: str, seed: int) -> Result:
    """Run one seed of a row, with a line that shows how far it is."""
    settings = TABLES[table].rows[row]
    wall, cpu = time.perf_counter(), time.process_time()
    name = f"{table}: {row}, seed {seed}"

    def watch(step: int, score: float) -> None:
        share, passed = step / settings.budget, time.perf_counter() - wall
        line = f"{name}: {share:4.0%}, score {score:.3f}, {passed / share - passed:.0f} s left"
        print(f"\r{line:<100}", end="", flush=True)

    metrics, curve, parameters = learn(settings, seed, watch)
    seconds = round(time.perf_counter() - wall, 1), round(time.process_time() - cpu, 1)
    if "return" in metrics:
        metrics["best on the way"] = max(score for _, score in curve)
    found = ", ".join(f"{key} {value:.3f}" for key, value in metrics.items())
    print(f"\r{f'{name}: {found}, {seconds[0]:.0f} s':<100}", flush=True)
    rounded = {key: round(value, 6) for key, value in metrics.items()}
    return Result(
        table, row, seed, rounded, parameters, *seconds, settings.to_dict(), describe(), thin(curve)
    )


def fill(table: str, rows: Sequence[str], seeds: Sequence[int], folder: Path) -> None:
    """Run what is missing, seed after seed, so that a table broken off has rows of equal length."""
    for seed in seeds:
        for row in rows:
            if load(folder, table, row, seed, TABLES[table].rows[row]) is None:
                run(table, row, seed).save(folder)


def check(folder: Path) -> bool:
    """Whether seed 0 of two rows, run again, lies as near its result as the seeds to each other."""
    agrees = True
    for table, row in CHECKED:
        settings = TABLES[table].rows[row]
        seeds = range(TABLES[table].seeds)
        known = [r for seed in seeds if (r := load(folder, table, row, seed, settings))]
        again = run(table, row, 0)
        for metric, value in again.metrics.items():
            recorded = [result.metrics[metric] for result in known]
            spread = max(recorded) - min(recorded)
            fits = abs(value - recorded[0]) <= max(spread, 1e-3)
            print(f"  {metric}: {value:.4f}, recorded {recorded[0]:.4f} ± {spread:.4f}: {fits}")
            agrees &= fits
    return agrees


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m proof",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    names = [*TABLES, "page", "check"]
    parser.add_argument("names", nargs="+", choices=names, metavar="NAME", help=", ".join(names))
    parser.add_argument("--row", action="append", help="this row alone; may be given again")
    parser.add_argument("--seeds", type=int, nargs="+", help="these seeds alone")
    parser.add_argument("--results", type=Path, default=FOLDER, help=f"folder, {FOLDER} by default")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)  # the networks are far too small for more
    for name in options.names:
        if name == "page":
            page.write(options.results)
        elif name == "check":
            if not check(options.results):
                sys.exit("check: what was learned now is not what is recorded")
        else:
            table = TABLES[name]
            unknown = set(options.row or ()) - set(table.rows)
            if unknown:
                wrong, known = (", ".join(map(repr, x)) for x in (sorted(unknown), table.rows))
                parser.error(f"--row: found {wrong}; {name} has {known}")
            fill(
                name,
                options.row or list(table.rows),
                options.seeds or range(table.seeds),
                options.results,
            )


if __name__ == "__main__":
    main()
