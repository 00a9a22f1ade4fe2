"""Time of the import beyond its dependencies, and of building a network."""

from __future__ import annotations

import os
import subprocess
import sys

import iqn_blocks
from benchmarks.results import SECONDS, Record
from benchmarks.scenarios import Scenario
from benchmarks.timing import Clock, time_sides

IMPORT = """
import einops, numpy, pydantic, safetensors.torch, sys, time, torch, yaml

class Model(pydantic.BaseModel):  # the first model makes pydantic import the rest of itself
    x: int

start = time.perf_counter()
import iqn_blocks
print(time.perf_counter() - start)
assert "transformers" not in sys.modules, "import iqn_blocks imported transformers"
"""


def measure_import(repetitions: int) -> list[Record]:
    """Fresh interpreters that have imported the dependencies already.

    With compiled bytecode, as pip leaves it: the first import, which may compile, does not count.
    """
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    command = [sys.executable, "-c", IMPORT]
    seconds = [
        float(
            subprocess.run(
                command, env=environment, check=True, capture_output=True, text=True
            ).stdout
        )
        for _ in range(repetitions + 1)
    ][1:]
    return [Record.of("startup", "", "import iqn_blocks", "ours", SECONDS, seconds)]


def measure_build(scenario: Scenario, clock: Clock, repetitions: int) -> list[Record]:
    """``iqn_blocks.build`` from a mapping."""
    samples = time_sides({"ours": lambda: iqn_blocks.build(scenario.config)}, clock, repetitions)
    return [Record.of("startup", scenario.name, "build", "ours", SECONDS, samples["ours"])]
