"""The walk along the river: its rules, and what the network that ships with the demo knows."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import iqn_blocks
from demo.figure import draw, true_quantiles
from demo.run import TRAINED, WIND
from docs.examples import windy_river
from docs.examples.windy_river import ACTIONS, COLUMNS, GOAL, RIVER, SCALE, START, STEP
from iqn_blocks import risk
from iqn_blocks.functional import midpoints

ROOT = Path(__file__).parents[2]
UP, RIGHT, DOWN, LEFT = range(len(ACTIONS))
SHORT = [(2, column) for column in range(COLUMNS)]
DETOUR = [START, *((1, column) for column in range(COLUMNS)), GOAL]


def always_right(place: torch.Tensor, wind: torch.Tensor) -> torch.Tensor:
    return torch.full((len(place),), RIGHT)


def test_a_gust_pushes_into_the_river_and_spares_who_has_arrived() -> None:
    place = torch.tensor([[2, 0], [2, 0], [1, 0], [2, 4], [2, 0], [0, 0]])
    action = torch.tensor([RIGHT, RIGHT, RIGHT, RIGHT, DOWN, LEFT])
    gust = torch.tensor([False, True, True, True, False, False])
    moved = windy_river.move(place, action, gust)
    assert moved.place.tolist() == [[2, 1], [3, 1], [2, 1], [2, 5], [3, 0], [0, 0]]
    assert moved.reward.tolist() == [STEP, STEP + RIVER, STEP, STEP, STEP + RIVER, STEP]
    assert moved.ended.tolist() == [False, True, False, True, True, False]


def test_returns_of_the_short_way_are_those_of_its_gusts() -> None:
    torch.manual_seed(0)
    returns = windy_river.returns(always_right, 0.1, episodes=20_000)
    # Four steps of five can end in the river; the k-th does with 0.9^(k−1) · 0.1.
    for steps in range(1, 5):
        share = (returns == steps * STEP + RIVER).float().mean().item()
        assert share == pytest.approx(0.9 ** (steps - 1) * 0.1, abs=0.008)  # over 3 deviations
    assert (returns == 5 * STEP).float().mean().item() == pytest.approx(0.9**4, abs=0.011)


def test_what_the_network_sees() -> None:
    img, floats = windy_river.observe(torch.tensor([[1, 3]]), torch.tensor([0.2]))
    assert img.nonzero().tolist() == [
        [0, 0, 1, 3],
        [0, 1, *GOAL],
        *([0, 2, 3, column] for column in range(COLUMNS)),
    ]
    assert floats.tolist() == [[pytest.approx(0.2)]]


@pytest.fixture(scope="module")
def net() -> iqn_blocks.IQN:
    return iqn_blocks.from_pretrained(ROOT / TRAINED)


def test_the_network_that_ships_is_small_and_is_the_script_s(net: iqn_blocks.IQN) -> None:
    assert net.config == iqn_blocks.Config.model_validate(windy_river.CONFIG)
    assert sum(file.stat().st_size for file in (ROOT / TRAINED).iterdir()) < 300_000
    trained = windy_river.train(seed=0, updates=2)
    assert trained.config == net.config and not trained.training


def test_it_takes_the_short_way_and_when_cautious_the_detour(net: iqn_blocks.IQN) -> None:
    neutral, cautious = windy_river.greedy(net), windy_river.greedy(net, risk.cvar(0.25))
    assert windy_river.path(neutral, WIND) == SHORT
    assert windy_river.path(cautious, WIND) == DETOUR
    assert windy_river.path(neutral, windy_river.MOST_WIND) == DETOUR  # the wind is read
    torch.manual_seed(1)
    worst = {
        policy: windy_river.returns(policy, WIND).sort().values[:1250].mean()
        for policy in (neutral, cautious)
    }
    assert worst[cautious] > worst[neutral] + 1


def test_its_quantile_functions_are_near_the_true_ones(net: iqn_blocks.IQN) -> None:
    truth = true_quantiles(net, WIND)
    seen = windy_river.observe(torch.tensor([START]), torch.tensor([WIND]))
    with torch.no_grad():
        q, _ = net.quantiles(*seen, len(truth), midpoints(len(truth)))
    distance = (q[0] / SCALE - truth).abs().mean(0)
    assert (distance < 0.8).all(), distance  # returns range over 10
    backwards = (q[0].flip(0) / SCALE - truth).abs().mean(0)
    assert backwards[RIGHT] > 3 * distance[RIGHT]


def test_the_picture(net: iqn_blocks.IQN, tmp_path: Path) -> None:
    draw(tmp_path / "demo.png", net, WIND)
    assert (tmp_path / "demo.png").read_bytes().startswith(b"\x89PNG")
