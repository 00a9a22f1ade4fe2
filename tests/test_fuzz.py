"""The campaign of damaged inputs: a short one finds nothing, and it would see what goes wrong."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from iqn_blocks import ConfigError
from tests import fuzz

ROOT = Path(__file__).parents[1]


def python(*arguments: str) -> str:
    run = subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    return run.stdout


@pytest.mark.slow
def test_a_short_campaign() -> None:
    lines = python("-m", "tests.fuzz", "--cases", "8").splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]
    found = {kind: tuple(map(int, counts)) for kind, *counts, _ in rows}
    assert found.keys() == {*fuzz.KINDS, "all"}
    for kind, (tried, worked, refused, failed) in found.items():
        slow = fuzz.KINDS.get(kind) in fuzz.SAVES
        assert kind == "all" or tried == (2 if slow else 8)
        assert (worked + refused, failed) == (tried, 0)
        assert not slow or refused == 0


FAULTS = {
    "endless": ("while True: pass", "the process ended with SIGXCPU"),
    "large": ("bytes(2**40)", "MemoryError"),
    "killed": ("os.kill(os.getpid(), 9)", "the process ended with SIGKILL"),
    "other error": ("{}['x']", "KeyError: 'x'"),
    "process": ("os.system('true')", "a case caused os.system"),
    "connection": (
        "import socket; socket.create_connection(('127.0.0.1', 9))",
        "a case caused socket.connect",
    ),
    "wrong": ("fuzz.same(fuzz.build(fuzz.tiny()), fuzz.build(fuzz.tiny(), 1))", "other values in "),
}


@pytest.mark.slow
def test_faults_are_seen(tmp_path: Path) -> None:
    lines = ["import os, pathlib", "from tests import fuzz", "fuzz.CPU_SECONDS = 1"]
    for name, (code, _) in FAULTS.items():
        lines.append(f"fuzz.KINDS[{name!r}] = lambda *_: exec({code!r})".replace("exec(", "run("))
        lines.append(f"print(fuzz.run(None, {name!r}, 0, 0, pathlib.Path({str(tmp_path)!r}))[0])")
        lines.append("print('=' * 9)")
    lines.insert(3, "def run(code): exec(code, globals())")
    printed = python("-c", "\n".join(lines)).split("=" * 9)
    for (_, says), text in zip(FAULTS.values(), printed, strict=False):
        assert says in text


def refuse(message: str) -> str:
    def case() -> None:
        raise ConfigError(message)

    return fuzz.outcome(case, may_refuse=True)


def test_outcomes() -> None:
    assert fuzz.outcome(lambda: None, may_refuse=False) == "worked"
    assert refuse("nn: found 3; accepted: a block") == "refused"
    assert "has 0 characters" in refuse("")

    def saves() -> None:
        raise ConfigError("nn: found 3")

    assert "found 3" in fuzz.outcome(saves, may_refuse=False)


def test_damage_is_drawn_from_the_seed() -> None:
    raw = {"a": {"b": [1, 2, 3]}, "c": 0.5}
    texts = {repr(fuzz.damage(raw, fuzz.Draw(seed))) for seed in range(30)}
    again = {repr(fuzz.damage(raw, fuzz.Draw(seed))) for seed in range(30)}
    assert texts == again
    assert len(texts) > 20
    assert raw == {"a": {"b": [1, 2, 3]}, "c": 0.5}
    content = bytes(range(200))
    assert len({fuzz.damage_bytes(content, fuzz.Draw(seed)) for seed in range(30)} - {content}) > 25
