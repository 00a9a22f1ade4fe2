"""Recorded results as Markdown tables, put into the slots of docs/proof.md."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import torch

from proof.results import Result, load
from proof.tables import TABLES, Table

PAGE = Path("docs/proof.md")
SLOT = re.compile(r"(<!-- table: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def write(folder: Path) -> None:
    """Fill the page's slots."""
    PAGE.write_text(fill(PAGE.read_text(encoding="utf-8"), folder), encoding="utf-8")
    print(PAGE)


def fill(page: str, folder: Path) -> str:
    """The page with its tables in their slots, ``<!-- table: NAME -->``."""
    return SLOT.sub(
        lambda slot: slot[1] + markdown(slot[2], TABLES[slot[2]], folder) + slot[3], page
    )


def markdown(name: str, table: Table, folder: Path) -> str:
    """One table: a row a row of settings, with means over its seeds and their intervals.

    Rows without a run are named below it.
    """
    found: dict[str, list[Result]] = {}
    for row, settings in table.rows.items():
        there = (load(folder, name, row, seed, settings) for seed in range(table.seeds))
        found[row] = [run for run in there if run]
    score = next(iter(table.shown))
    columns = [*table.shown, *([f"{score} − {table.base}"] if table.base else [])]
    lines = [
        f"| | seeds of {table.seeds} | " + " | ".join(columns) + " | parameters | minutes |",
        "|---|---|" + "---|" * (len(columns) + 2),
    ]
    for row, runs in found.items():
        if not runs:
            continue
        cells = [
            written([run.metrics[metric] for run in runs], form)
            for metric, form in table.shown.items()
        ]
        if table.base:
            ours, theirs = ([r.metrics[score] for r in rs] for rs in (runs, found[table.base]))
            cells.append("" if row == table.base else difference(ours, theirs, table.shown[score]))
        minutes = sum(run.cpu_s for run in runs) / len(runs) / 60
        cells += [f"{runs[0].parameters:,}".replace(",", " "), f"{minutes:.1f}"]
        lines.append(f"| {row} | {len(runs)} | " + " | ".join(cells) + " |")
    missing = "; ".join(row for row, runs in found.items() if not runs)
    below = f"Not run yet: {missing}.\n" if missing else ""
    if not any(found.values()):
        return below
    return "\n".join(lines) + "\n" + (below and f"\n{below}")


def written(values: Sequence[float], form: str) -> str:
    """Mean and its interval; a single value as it is."""
    mean = format(sum(values) / len(values), form)
    if len(values) == 1:
        return mean
    low, high = interval(means(values))
    return f"{mean} [{low:{form}}, {high:{form}}]"


def difference(ours: Sequence[float], theirs: Sequence[float], form: str) -> str:
    """Difference of two means with its interval, the seeds of both drawn anew."""
    if not theirs:
        return ""
    mean = sum(ours) / len(ours) - sum(theirs) / len(theirs)
    if min(len(ours), len(theirs)) == 1:
        return format(mean, "+" + form)
    low, high = interval(means(ours) - means(theirs, seed=1))
    return f"{mean:+{form}} [{low:+{form}}, {high:+{form}}]"


def means(values: Sequence[float], seed: int = 0, draws: int = 10_000) -> torch.Tensor:
    """Means of as many values, drawn with replacement: the bootstrap."""
    generator = torch.Generator().manual_seed(seed)
    index = torch.randint(len(values), (draws, len(values)), generator=generator)
    return torch.tensor(values, dtype=torch.float64)[index].mean(1)


def interval(draws: torch.Tensor) -> tuple[float, float]:
    """The middle 95 %."""
    low, high = torch.quantile(draws, torch.tensor([0.025, 0.975], dtype=draws.dtype)).tolist()
    return low, high
