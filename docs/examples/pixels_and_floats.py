"""A grid seen as pixels and a number: the answer needs both.

On a 3×3 board are an agent and, in two corners, goals: red, green and blue. The image says where,
the number which goal pays; either ends the episode. Without the image a network cannot find a goal;
without the number it takes the same goal whichever pays, and solves half of the boards at most.

python docs/examples/pixels_and_floats.py --help
"""

from __future__ import annotations

import copy
import itertools
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import torch
from torch import Tensor

import iqn_blocks
from iqn_blocks.functional import split_quantiles
from iqn_blocks.losses import double_dqn_target, quantile_huber_loss, take
from iqn_blocks.target import polyak_update_

SIDE, CELL = 3, 12  # a board of 3×3 cells of 12×12 pixels
MOVES = torch.tensor([[0, 1], [1, 0], [0, -1], [-1, 0]])
GAMMA, STEPS = 0.7, 6  # no goal is further than four moves
SEEDS, BATCH, K, UPDATES = (0,), 64, 8, 2000

IMAGE = {
    "in_channels": 3,
    "uint8_scaling": "unit",  # black is 0
    "image_size": {"width": SIDE * CELL, "height": SIDE * CELL},
}
VARIANTS: dict[str, dict[str, Any]] = {
    "image and number": {"float_input_dim": 1, "vis": IMAGE},
    "image alone": {"float_input_dim": 0, "vis": IMAGE},
    "number alone": {"float_input_dim": 1, "vis": {"no_image": True}},
}
Curve = list[tuple[int, float]]  # the share of boards solved after so many updates

# Every board: cells of the agent and the goals, all different, and the goal that pays.
CORNERS = {0, SIDE - 1, SIDE * (SIDE - 1), SIDE**2 - 1}
CELLS = [c for c in itertools.permutations(range(SIDE**2), 3) if CORNERS.issuperset(c[1:])]
BOARDS = torch.tensor([(*cells, goal) for cells in CELLS for goal in (0, 1)])


def config(float_input_dim: int, vis: dict[str, Any]) -> dict[str, Any]:
    """A classic network on those inputs."""
    iqn, decoder = {"embedding_dimension": 32, "k": 8}, {"dense_hidden_dimension": 128}
    network = {"vis": vis, "iqn": iqn, "decoder": decoder}
    return {"n_actions": len(MOVES), "float_input_dim": float_input_dim, "nn": network}


def observe(board: Tensor, net: iqn_blocks.IQN) -> tuple[Tensor | None, Tensor | None]:
    """What a network sees of the boards: ``img (B, 3, 36, 36)`` uint8 and ``floats (B, 1)``."""
    cells = 255 * torch.nn.functional.one_hot(board[:, :3], SIDE**2).to(torch.uint8)
    img = cells.unflatten(2, (SIDE, SIDE)).repeat_interleave(CELL, 2).repeat_interleave(CELL, 3)
    floats = 2.0 * board[:, 3:] - 1
    no_image, no_floats = net.config.nn.vis.no_image, net.config.float_input_dim == 0
    return None if no_image else img, None if no_floats else floats


def move(board: Tensor, action: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Next boards, rewards (1 on the goal that pays, −1 on the other) and ends of episodes."""
    place = torch.stack([board[:, 0] // SIDE, board[:, 0] % SIDE], 1)
    row, column = (place + MOVES[action]).clamp(0, SIDE - 1).T
    agent = (row * SIDE + column)[:, None]
    reached = agent == board[:, 1:3]  # (B, 2)
    paid = reached.gather(1, board[:, 3:])[:, 0]
    reward = 2.0 * paid - reached.any(1).float()
    return torch.cat([agent, board[:, 1:]], 1), reward, reached.any(1)


@torch.no_grad()
def solved(net: iqn_blocks.IQN) -> float:
    """The share of all boards from which the greedy policy reaches the goal that pays."""
    board, won = BOARDS, 0
    for _ in range(STEPS):
        board, reward, ended = move(board, net.q_values(*observe(board, net)).argmax(-1))
        won += int((reward > 0).sum())
        board = board[~ended]
    return won / len(BOARDS)


def train(variant: str, seed: int) -> Curve:
    """Learn from random moves on random boards."""
    torch.manual_seed(seed)
    net = iqn_blocks.build(config(**VARIANTS[variant]))
    target, curve = copy.deepcopy(net), [(0, solved(net))]
    optimizer = torch.optim.Adam(net.parameters(), lr=2e-3)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.1, UPDATES)
    for update in range(1, UPDATES + 1):
        board = BOARDS[torch.randint(len(BOARDS), (BATCH,))]
        action = torch.randint(len(MOVES), (BATCH,))
        following, reward, ended = move(board, action)
        with torch.no_grad():
            values = split_quantiles(target(*observe(following, net), K)[0], K)
            goal = double_dqn_target(reward, GAMMA * (~ended).float(), values, values)
        q, tau = net(*observe(board, net), K)
        pred = take(split_quantiles(q, K), action)
        loss = quantile_huber_loss(pred, goal, split_quantiles(tau, K)).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        polyak_update_(target, net, 0.05)
        if update % 100 == 0:
            curve.append((update, solved(net)))
    return curve


def draw(curves: dict[str, list[Curve]], figure: str | Path) -> None:
    """A board, and the learning curves."""
    _, (left, right) = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    img, floats = observe(BOARDS[41:42], iqn_blocks.build(config(**VARIANTS["image and number"])))
    assert img is not None and floats is not None
    left.imshow(img[0].permute(1, 2, 0).numpy())
    paying = "blue" if floats.item() > 0 else "green"
    title = f"Agent red; number {floats.item():+.0f}: {paying} pays"
    left.set(title=title, xticks=[], yticks=[])
    for (name, runs), colour in zip(curves.items(), ("C0", "C1", "C2"), strict=True):
        for run, curve in enumerate(runs):
            right.plot(*zip(*curve, strict=True), color=colour, label="" if run else name)
    right.axhline(0.5, color="black", linewidth=1, linestyle="--")
    right.set(xlabel="update", ylabel="share", title=f"Solved, of all {len(BOARDS)} boards")
    right.legend(loc="center right")
    plt.savefig(figure, dpi=90)
    plt.close()


def main(figure: str | Path, seeds: Sequence[int] = SEEDS) -> dict[str, list[Curve]]:
    """Train each variant with each seed, print what it solves, draw the curves."""
    curves: dict[str, list[Curve]] = {name: [] for name in VARIANTS}
    for seed, name in itertools.product(seeds, VARIANTS):
        start = time.process_time()
        curves[name].append(train(name, seed))
        seconds = time.process_time() - start
        print(f"seed {seed}, {name}: {curves[name][-1][-1][1]:.1%}, {seconds:.0f} s", flush=True)
    draw(curves, figure)
    return curves


if __name__ == "__main__":
    from arguments import read  # beside this file

    arguments = read(__doc__, SEEDS, "pixels_and_floats.png")
    torch.set_num_threads(1)  # the networks are far too small for more
    main(arguments.figure, arguments.seeds)
