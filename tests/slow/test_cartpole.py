"""The CartPole examples: the last policy solves it, within five minutes of one core."""

from __future__ import annotations

import importlib
import time
from pathlib import Path
from types import ModuleType

import pytest
import torch

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


def test_steps_are_summed_to_the_end_of_the_episode(
    loop: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Six steps of one environment, rewards 1, 2, 4, …; a fall ends the third, the limit the fifth.

    With γ = ½ and three steps, from the first: 1 + 2/2 + 4/4 = 3, and nothing follows the fall;
    from the fourth: 8 + 16/2 = 16, then γ² of the state behind the fifth.
    """
    monkeypatch.setattr(loop, "HORIZON", 3)
    fell = torch.tensor([0, 0, 1, 0, 0, 0]).bool()[:, None]
    late = torch.tensor([0, 0, 0, 0, 1, 0]).bool()[:, None]
    states = torch.arange(6.0).view(6, 1, 1).expand(6, 1, 4)
    reward = 2.0 ** torch.arange(6)[:, None]
    steps = loop.Batch(states, fell.long(), reward, 0.5 * ~fell, states)
    found = loop.multi_step(steps, fell | late)
    assert found.reward[:, 0].tolist() == [3, 4, 4, 16, 16, 32]
    assert found.discount[:, 0].tolist() == [0, 0, 0, 0.25, 0.5, 0.5]
    assert found.following[3:, 0, 0].tolist() == [4, 4, 5]


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_cartpole_is_solved(loop: ModuleType, seed: int) -> None:
    solve(loop, seed, loop.CONFIG, loop.epsilon_greedy, loop.best_mean)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_cartpole_is_solved_by_noise_and_munchausen_targets(loop: ModuleType, seed: int) -> None:
    btr = importlib.import_module("cartpole_btr")
    used = btr.BTR_CONFIG["btr"]
    assert used["use_layer_norm"] and used["use_noisy_linear"]
    solve(loop, seed, btr.BTR_CONFIG, btr.noise, btr.munchausen, btr.ROUNDS)
