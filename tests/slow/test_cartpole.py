"""The CartPole examples learn; the last policy of the ε-greedy one solves it."""

from __future__ import annotations

import importlib
import time
from pathlib import Path
from types import ModuleType

import pytest

pytestmark = pytest.mark.slow

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"
SOLVED, SECONDS = 475, 300


@pytest.fixture
def loop(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script with the loop; the other one imports it from its own folder."""
    monkeypatch.syspath_prepend(EXAMPLES)
    return importlib.import_module("cartpole")


def solve(loop: ModuleType, seed: int, *recipe: object) -> None:
    """Trains, and asks for the mean return of test episodes that training has not seen."""
    start = time.process_time()
    _, last = loop.train(seed, *recipe)
    assert time.process_time() - start < SECONDS
    assert loop.evaluate(last, 100, loop.TEST_SEED) >= SOLVED


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_cartpole_is_solved(loop: ModuleType, seed: int) -> None:
    solve(loop, seed, loop.CONFIG, loop.epsilon_greedy, loop.best_mean)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_cartpole_is_solved_by_noise_and_munchausen_targets(loop: ModuleType, seed: int) -> None:
    btr = importlib.import_module("cartpole_btr")
    used = btr.BTR_CONFIG["btr"]
    assert used["use_layer_norm"] and used["use_noisy_linear"]
    solve(loop, seed, btr.BTR_CONFIG, btr.noise, btr.munchausen)
