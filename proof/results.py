"""One JSON file a run: what it learned, from which settings, on what."""

from __future__ import annotations

import json
import re
import shlex
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from benchmarks.results import describe_machine
from proof.settings import Settings

FOLDER = Path("proof/results")
POINTS = 25  # of a curve that is kept


class Result(NamedTuple):
    """A run of one row of a table."""

    table: str
    row: str
    seed: int
    metrics: dict[str, float]
    parameters: int
    wall_s: float
    cpu_s: float
    settings: dict[str, Any]
    machine: dict[str, Any]
    curve: list[list[float]]

    def save(self, folder: Path) -> Path:
        """Write it, a line a field."""
        path = path_of(folder, self.table, self.row, self.seed)
        path.parent.mkdir(parents=True, exist_ok=True)
        fields = (
            f'  "{name}": {json.dumps(value, ensure_ascii=False)}'
            for name, value in self._asdict().items()
        )
        path.write_text("{\n" + ",\n".join(fields) + "\n}\n", encoding="utf-8")
        return path


def path_of(folder: Path, table: str, row: str, seed: int) -> Path:
    """The file of a run."""
    return folder / table / f"{re.sub('[^0-9A-Za-z]+', '-', row)}-{seed}.json"


def load(folder: Path, table: str, row: str, seed: int, settings: Settings) -> Result | None:
    """The result of a run; None where there is none, or only one of other settings."""
    path = path_of(folder, table, row, seed)
    if not path.exists():
        return None
    result = Result(**json.loads(path.read_text(encoding="utf-8")))
    return result if result.settings == settings.to_dict() else None


def thin(curve: Sequence[tuple[int, float]]) -> list[list[float]]:
    """At most ``POINTS`` points: means of equally many neighbours, at the last one's step."""
    width = -(-len(curve) // POINTS)
    groups = [curve[i : i + width] for i in range(0, len(curve), width)]
    return [[group[-1][0], round(statistics.mean(y for _, y in group), 4)] for group in groups]


def describe() -> dict[str, Any]:
    """The machine, the versions and the command of this process."""
    command = shlex.join(["python", "-m", "proof", *sys.argv[1:]])
    return {**describe_machine(torch.device("cpu")), "command": command}
