"""A walk along a river in the wind: what a network of pixels and a number knows of its risks.

Five steps lead along the water to the goal, and at each a gust may push the agent one row down,
into the river. A second row is safer and costs two steps more. The image says where the agent is,
the number how often gusts come. A step costs 1, the river 10 more. Trains for some minutes and
saves networks; `make demo` shows that of seed 0.

python docs/examples/windy_river.py --help
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

import iqn_blocks
from iqn_blocks.functional import split_quantiles
from iqn_blocks.losses import double_dqn_target, quantile_huber_loss, take
from iqn_blocks.target import polyak_update_

ROWS, COLUMNS = 4, 6  # row 3 is the river
ACTIONS = ("up", "right", "down", "left")
MOVES = torch.tensor([[-1, 0], [0, 1], [1, 0], [0, -1]])
START, GOAL = (2, 0), (2, COLUMNS - 1)
STEP, RIVER, SCALE = -1.0, -10.0, 0.1  # SCALE is that of the values while learning
MOST_WIND, STEPS = 0.2, 100  # no episode of a sensible policy is so long
K, BATCH, UPDATES = 8, 128, 12000

CONFIG: dict[str, Any] = {
    "n_actions": len(ACTIONS),
    "float_input_dim": 1,
    "float_inputs_mean": [MOST_WIND / 2],
    "float_inputs_std": [MOST_WIND / 4],
    "nn": {
        "vis": {
            "minatar": {},  # one convolution: a cell is a pixel
            "in_channels": 3,
            "uint8_scaling": "unit",
            "image_size": {"width": COLUMNS, "height": ROWS},
        },
        "float": {"mlp": {"hidden_dim": 32}},
        "iqn": {"embedding_dimension": 64},
        # Two layers: where the value jumps depends on level and wind together.
        "decoder": {
            "advantage": {"mlp": {"hidden_dim": 96, "n_hidden_layers": 2}},
            "dueling": "none",
        },
    },
}
Policy = Callable[[Tensor, Tensor], Tensor]


class Moved(NamedTuple):
    """Next places ``(B, 2)``, what the step paid ``(B,)``, and where the episode ended ``(B,)``."""

    place: Tensor
    reward: Tensor
    ended: Tensor


def observe(place: Tensor, wind: Tensor) -> tuple[Tensor, Tensor]:
    """What the network sees: ``img (B, 3, 4, 6)`` uint8, red agent, green goal, blue river; wind.

    ``place`` is ``(B, 2)``, row and column, ``wind (B,)`` the chance of a gust.
    """
    img = torch.zeros(len(place), 3, ROWS, COLUMNS, dtype=torch.uint8)
    img[torch.arange(len(place)), 0, place[:, 0], place[:, 1]] = 255
    img[:, 1, GOAL[0], GOAL[1]] = 255
    img[:, 2, ROWS - 1] = 255
    return img, wind[:, None]


def move(place: Tensor, action: Tensor, gust: Tensor) -> Moved:
    """A step, and then the gust ``(B,)``, which spares who has arrived."""
    row, column = (place + MOVES[action]).T
    row, column = row.clamp(0, ROWS - 1), column.clamp(0, COLUMNS - 1)
    arrived = (row == GOAL[0]) & (column == GOAL[1])
    row = torch.where(gust & ~arrived, (row + 1).clamp(max=ROWS - 1), row)
    fell = row == ROWS - 1
    return Moved(torch.stack([row, column], 1), STEP + RIVER * fell, arrived | fell)


def train(seed: int, updates: int = UPDATES) -> iqn_blocks.IQN:
    """Learn from random steps at random places in random wind."""
    torch.manual_seed(seed)
    net = iqn_blocks.build(CONFIG)
    target = copy.deepcopy(net)
    optimizer = torch.optim.Adam(net.parameters(), lr=2e-3)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.01, updates)
    for _ in range(updates):
        place = torch.stack([torch.randint(n, (BATCH,)) for n in (ROWS - 1, COLUMNS)], 1)
        action = torch.randint(len(ACTIONS), (BATCH,))
        wind = MOST_WIND * torch.rand(BATCH)
        moved = move(place, action, torch.rand(BATCH) < wind)
        with torch.no_grad():
            seen = observe(moved.place, wind)
            values = (split_quantiles(n(*seen, K)[0], K) for n in (target, net))
            goal = double_dqn_target(SCALE * moved.reward, (~moved.ended).float(), *values)
        q, tau = net.quantiles(*observe(place, wind), K)
        # A small κ: a Huber loss that is round over a wide range learns expectiles, not quantiles.
        loss = quantile_huber_loss(take(q, action), goal, tau, kappa=0.01).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        polyak_update_(target, net, 0.02)
    return net.eval()


def greedy(net: iqn_blocks.IQN, risk: Callable[[Tensor], Tensor] | None = None) -> Policy:
    """The action of the highest value under a taste for risk: places and wind to ``(B,)``."""

    def act(place: Tensor, wind: Tensor) -> Tensor:
        with torch.no_grad():
            return net.q_values(*observe(place, wind), risk=risk).argmax(-1)

    return act


def returns(policy: Policy, wind: float, first: int | None = None, episodes: int = 5000) -> Tensor:
    """What so many episodes from the start pay, ``(episodes,)``; ``first`` is their first action.

    Draws come from torch's global generator.
    """
    places = torch.cartesian_prod(torch.arange(ROWS), torch.arange(COLUMNS))
    chosen = policy(places, torch.full((len(places),), wind)).view(ROWS, COLUMNS)
    place = torch.tensor(START).repeat(episodes, 1)
    total, running = torch.zeros(episodes), torch.arange(episodes)
    for step in range(STEPS):
        now = place[running]
        action = chosen[now[:, 0], now[:, 1]]
        if step == 0 and first is not None:
            action = torch.full_like(action, first)
        moved = move(now, action, torch.rand(len(running)) < wind)
        place[running], total[running] = moved.place, total[running] + moved.reward
        running = running[~moved.ended]
        if not len(running):
            break
    return total


def path(policy: Policy, wind: float) -> list[tuple[int, int]]:
    """The places of an episode in which no gust happens to come, from the start on."""
    place, places = torch.tensor([START]), [START]
    for _ in range(ROWS * COLUMNS):
        place, _, ended = move(place, policy(place, torch.tensor([wind])), torch.tensor([False]))
        places.append((int(place[0, 0]), int(place[0, 1])))
        if ended:
            break
    return places


if __name__ == "__main__":
    import time

    from arguments import read  # beside this file

    arguments = read(__doc__, (0,), folder="windy_river")
    torch.set_num_threads(1)  # the network is far too small for more
    for seed in arguments.seeds:
        start = time.process_time()
        folder = arguments.output / f"seed-{seed}"
        train(seed).save_pretrained(folder)
        seconds = time.process_time() - start
        print(f"seed {seed}: wrote {folder}, {seconds:.0f} s of processor time", flush=True)
