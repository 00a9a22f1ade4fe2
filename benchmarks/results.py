"""What was measured, where and how: records, their JSON file and their table."""

from __future__ import annotations

import datetime
import json
import os
import platform
import shlex
import statistics
import sys
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import torch

import iqn_blocks

SECONDS, BYTES, SHARE, FLOPS = "s", "B", "", "FLOP/s"


class Record(NamedTuple):
    """One side of one comparison: median and quartiles of ``samples`` measurements."""

    kind: str
    scenario: str
    case: str
    side: str
    unit: str
    median: float
    low: float
    high: float
    samples: int

    @classmethod
    def of(
        cls, kind: str, scenario: str, case: str, side: str, unit: str, values: Sequence[float]
    ) -> Record:
        """The record of some measured values."""
        low, median, high = values[0], values[0], values[0]
        if len(values) > 1:
            low, median, high = statistics.quantiles(values, n=4, method="inclusive")
        return cls(kind, scenario, case, side, unit, median, low, high, len(values))

    @property
    def group(self) -> tuple[str, str, str]:
        """What its sides share."""
        return self.kind, self.scenario, self.case


class Run(NamedTuple):
    """The records of one run of the program, and what they were measured on."""

    machine: Mapping[str, Any]
    records: Sequence[Record]

    def save(self, path: Path) -> None:
        """Write it as JSON."""
        path.parent.mkdir(parents=True, exist_ok=True)
        content = {**self.machine, "records": [record._asdict() for record in self.records]}
        path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> Run:
        """Read what :meth:`save` wrote."""
        content = json.loads(path.read_text(encoding="utf-8"))
        records = [Record(**record) for record in content.pop("records")]
        return cls(content, records)


def describe_machine(device: torch.device) -> dict[str, Any]:
    """The machine, the versions and the command of this process."""
    gpu = torch.cuda.get_device_name(device) if device.type == "cuda" else None
    return {
        "date": datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
        "command": shlex.join(["python", "-m", "benchmarks", *sys.argv[1:]]),
        "device": device.type,
        "gpu": gpu,
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "iqn_blocks": iqn_blocks.__version__,
    }


def table(records: Iterable[Record]) -> str:
    """A text table: one block a comparison, with ratios to the literal side."""
    blocks = []
    for group, members in groupby(records, key=lambda record: record.group):
        sides = list(members)
        lines = [" · ".join(part for part in group if part)]
        for record in sides:
            spread = f"{format_value(record.low, record.unit)} … " + format_value(
                record.high, record.unit
            )
            lines.append(
                f"  {record.side:<24}{format_value(record.median, record.unit):>12}"
                f"   {spread:<26}{_ratio(record, sides)}".rstrip()
            )
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks)


def find(sides: Iterable[Record], side: str) -> Record | None:
    """The record of that side."""
    return next((record for record in sides if record.side == side), None)


def format_value(value: float, unit: str) -> str:
    """A number with three digits and a prefix that fits: ``1.23 ms``."""
    if unit == SHARE:
        return f"{100 * value:.3g} %"
    if unit == SECONDS:
        scales = ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs"))
    elif unit == BYTES:
        scales = ((2.0**30, "GiB"), (2.0**20, "MiB"), (2.0**10, "KiB"))
    else:
        scales = ((1e12, f"T{unit}"), (1e9, f"G{unit}"), (1e6, f"M{unit}"))
    size, name = next((scale for scale in scales if value >= scale[0]), scales[-1])
    digits = max(0, 2 - len(str(int(value / size))) + 1)
    return f"{value / size:.{digits}f} {name}"


def _ratio(record: Record, sides: Sequence[Record]) -> str:
    literal = find(sides, "literal")
    if literal and record is not literal and record.median:
        if record.unit == SECONDS:
            return f"{literal.median / record.median:5.2f}× as fast as literal"
        if record.unit == BYTES:
            return f"{record.median / literal.median:5.2f} of literal"
    return ""


def _cpu_model() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
