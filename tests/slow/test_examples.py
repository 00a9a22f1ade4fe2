"""What the examples claim to learn, they learn."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from docs.examples import action_blocks, known_distribution, pixels_and_floats, windy_river
from iqn_blocks import risk

pytestmark = pytest.mark.slow


def is_a_small_png(figure: Path) -> bool:
    return figure.read_bytes().startswith(b"\x89PNG") and figure.stat().st_size <= 80_000


def test_known_distribution(tmp_path: Path) -> None:
    results = known_distribution.main(tmp_path / "figure.png")
    assert is_a_small_png(tmp_path / "figure.png")
    assert len(results) == 3
    for run in results:
        assert (run.distances < known_distribution.BOUND).all()
        assert run.values["neutral"].argmax() == known_distribution.RISKY
        assert run.values["cvar(0.25)"].argmax() == known_distribution.SAFE
        # γ times the mean of each room, and γ times the mean of its worst quarter: of u on
        # [0, 0.25], 0.5 + u has the mean 0.625, and −2.5 + u / 0.3 has −2.0833.
        for name, means in {"neutral": (1.0, 1.5), "cvar(0.25)": (0.625, -2.0833)}.items():
            torch.testing.assert_close(
                run.values[name], 0.9 * torch.tensor(means), atol=0.1, rtol=0
            )


def test_a_reversed_quantile_function_is_far_from_the_true_one() -> None:
    learned = known_distribution.true_quantiles(1 - known_distribution.LEVELS)
    truth = known_distribution.true_quantiles(known_distribution.LEVELS)
    assert ((learned - truth).abs().mean(0) > 4 * known_distribution.BOUND).all()


def test_action_blocks(tmp_path: Path) -> None:
    results = action_blocks.main(tmp_path / "figure.png")
    assert is_a_small_png(tmp_path / "figure.png")
    assert len(results) == 3
    optimum, best = action_blocks.exact_optimum()
    for run in results:
        assert torch.equal(run.policy, best)
        torch.testing.assert_close(run.predicted, optimum, atol=0, rtol=0.03)


def test_each_offset_of_a_block_matters() -> None:
    optimum, best = action_blocks.exact_optimum()
    torch.testing.assert_close(action_blocks.value_of(best), optimum)
    others = [action_blocks.value_of(best, offset) for offset in range(action_blocks.N)]
    others.append(action_blocks.value_of(action_blocks.PAY.argmax(-1)))
    assert all(values.mean() < 0.9 * optimum.mean() for values in others)


def test_pixels_and_floats(tmp_path: Path) -> None:
    curves = pixels_and_floats.main(tmp_path / "figure.png")
    assert is_a_small_png(tmp_path / "figure.png")
    solved = {name: [curve[-1][1] for curve in runs] for name, runs in curves.items()}
    assert min(solved["image and number"]) >= 0.95
    assert max(solved["image alone"]) <= 0.5  # whatever it learned
    assert max(solved["number alone"]) <= 0.25


def test_windy_river() -> None:
    net = windy_river.train(seed=0)
    short = [(2, column) for column in range(windy_river.COLUMNS)]
    detour = [(2, 0), *((1, column) for column in range(windy_river.COLUMNS)), windy_river.GOAL]
    cautious = windy_river.greedy(net, risk.cvar(0.25))
    assert windy_river.path(windy_river.greedy(net), 0.06) == short
    assert windy_river.path(cautious, 0.06) == detour
    torch.manual_seed(0)
    # The quarter of worst cases that the way along the river has ends in it, at −10 or less.
    assert windy_river.returns(cautious, 0.06).sort().values[:1250].mean() > -9
