"""Recorded results as Markdown tables and bars, put into the slots of docs/performance.md."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from benchmarks.results import BYTES, SECONDS, Record, Run, find, format_value

RESULTS = Path("benchmarks/results")
PAGE = Path("docs/performance.md")
IMAGES = Path("docs/images")
SLOT = re.compile(r"(<!-- measured: (\w+) (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)
NOT_YET = "Not measured yet.\n"


class Measured(NamedTuple):
    """A record and the run it comes from."""

    record: Record
    run: Run


def write() -> None:
    """Fill the page's slots from all runs in benchmarks/results, and draw the bars."""
    runs = load_runs(RESULTS)
    PAGE.write_text(fill(PAGE.read_text(encoding="utf-8"), runs), encoding="utf-8")
    print(PAGE)
    if find_spec("matplotlib") is None:
        print("bars: matplotlib is not installed, left out")
        return
    from benchmarks.plots import draw

    for device in sorted({str(run.machine["device"]) for run in runs}):
        records = [measured.record for measured in latest(runs, device)]
        path = IMAGES / f"performance-{device}.svg"
        if draw(records, path):
            print(path)


def load_runs(folder: Path) -> list[Run]:
    """The runs in a folder, oldest first."""
    runs = [Run.load(path) for path in sorted(folder.glob("*.json"))]
    return sorted(runs, key=lambda run: str(run.machine["date"]))


def latest(runs: Sequence[Run], device: str) -> list[Measured]:
    """The newest measurement of everything on a device: of two of one group, the later run's."""
    groups: dict[tuple[str, str, str], list[Measured]] = {}
    for run in runs:
        if run.machine["device"] != device:
            continue
        fresh: dict[tuple[str, str, str], list[Measured]] = {}
        for record in run.records:
            fresh.setdefault(record.group, []).append(Measured(record, run))
        groups.update(fresh)
    return [measured for group in groups.values() for measured in group]


def fill(page: str, runs: Sequence[Run]) -> str:
    """The page with what was measured in its slots, ``<!-- measured: KIND DEVICE -->``."""

    def slot(match: re.Match[str]) -> str:
        start, kind, device, end = match.groups()
        found = [m for m in latest(runs, device) if m.record.kind == kind]
        return start + (markdown(found) if found else NOT_YET) + end

    return SLOT.sub(slot, page)


def markdown(found: Sequence[Measured]) -> str:
    """A table of one kind: a row a network and case, a column a side; then where it comes from."""
    records = [measured.record for measured in found]
    columns = list(dict.fromkeys(record.side for record in records))
    lines = [
        "| network | case | " + " | ".join(columns) + " |",
        "|---|---|" + "---|" * len(columns),
    ]
    for group in dict.fromkeys(record.group for record in records):
        sides = [record for record in records if record.group == group]
        cells = [_cell(find(sides, column), find(sides, "literal")) for column in columns]
        _, network, case = group
        lines.append(f"| {network} | {case} | " + " | ".join(cells) + " |")
    return "\n".join([*lines, "", *_sources(found)]) + "\n"


def _cell(record: Record | None, literal: Record | None) -> str:
    if record is None:
        return ""
    text = format_value(record.median, record.unit)
    if record.samples > 1 and record.median:
        text += f" ± {50 * (record.high - record.low) / record.median:.0f} %"
    if literal is not None and record is not literal:
        if record.unit == SECONDS:
            text += f", **{literal.median / record.median:.2f}×**"
        elif record.unit == BYTES:
            text += f", **{record.median / literal.median:.2f}**"
    return text


def _sources(found: Iterable[Measured]) -> list[str]:
    """Machine, versions and command of the runs, each once."""
    runs: dict[int, Run] = {id(measured.run): measured.run for measured in found}
    lines = []
    for run in runs.values():
        m = run.machine
        gpu = f"{m['gpu']}, " if m["gpu"] else ""
        lines.append(
            f"{gpu}{m['cpu']}, {m['cores']} cores, {m['threads']} threads ({m['cpu_capability']}); "
            f"Python {m['python']}, torch {m['torch']}, iqn-blocks {m['iqn_blocks']}; "
            f"`{m['command']}`, {m['date']}."
        )
    return lines
