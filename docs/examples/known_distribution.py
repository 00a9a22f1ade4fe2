"""A return whose distribution is known: the learned quantile function beside the true one.

From a start state an agent enters the safe room or the risky one; what the room pays, a step later,
is random. The risky one pays more on average and sometimes takes a lot: its return has two modes.

python docs/examples/known_distribution.py --help
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import matplotlib.pyplot as plt
import torch
from torch import Tensor

import iqn_blocks
from iqn_blocks import risk
from iqn_blocks.functional import midpoints, split_quantiles
from iqn_blocks.losses import double_dqn_target, quantile_huber_loss, take
from iqn_blocks.target import polyak_update_

CONFIG = {
    "n_actions": 2,
    "float_input_dim": 3,
    "nn": {
        "vis": {"no_image": True},
        "float": {"mlp": {"hidden_dim": 32}},
        "decoder": {"dense_hidden_dimension": 64},
    },
}
START, SAFE_ROOM, RISKY_ROOM = range(3)
ONE_HOT = torch.eye(3)  # what the network sees of a state
SAFE, RISKY = range(2)  # actions, and the columns of what is learned
Taste = Callable[[Tensor], Tensor]
TASTES: dict[str, Taste] = {"neutral": risk.neutral, "cvar(0.25)": risk.cvar(0.25)}
SEEDS, GAMMA, BATCH, K, UPDATES = (0, 1, 2), 0.9, 128, 16, 3000
LEVELS = midpoints(1000)  # where two quantile functions are compared
BOUND = 0.1  # of the distance to the true one; the risky return ranges over 5.4


class Result(NamedTuple):
    """What a run learned about both actions at the start."""

    quantiles: Tensor  # (1000, 2)
    distances: Tensor  # (2,) to the true quantiles
    values: dict[str, Tensor]  # (2,) for each taste
    curve: list[tuple[int, Tensor]]  # distances after so many updates


def payment(room: Tensor, u: Tensor) -> Tensor:
    """Inverse CDF of what a room pays, at levels ``u``; at uniform levels it is a draw."""
    safe = 0.5 + u  # uniform on [0.5, 1.5], mean 1
    # 30 % uniform on [−2.5, −1.5], 70 % on [2.5, 3.5], mean 1.5
    risky = torch.where(u < 0.3, -2.5 + u / 0.3, 2.5 + (u - 0.3) / 0.7)
    return torch.where(room == SAFE_ROOM, safe, risky)


def true_quantiles(tau: Tensor) -> Tensor:
    """Inverse CDF of the return of each action at the start: ``(K, 1) -> (K, 2)``."""
    return GAMMA * payment(torch.tensor([SAFE_ROOM, RISKY_ROOM]), tau)


def transitions() -> tuple[Tensor, ...]:
    """``BATCH`` random ones: state, action, reward, discount, next state."""
    state, action = torch.randint(3, (BATCH,)), torch.randint(2, (BATCH,))
    reward = torch.where(state == START, 0, payment(state, torch.rand(BATCH)))
    return state, action, reward, GAMMA * (state == START).float(), action + SAFE_ROOM


def measure(net: iqn_blocks.IQN) -> tuple[Tensor, Tensor]:
    """Quantiles ``(1000, 2)`` at the start, and ``∫ |q(τ) − F⁻¹(τ)| dτ`` of each action."""
    # Where q is monotone this is the Wasserstein-1 distance, elsewhere it is more.
    with torch.no_grad():
        learned, _ = net(None, ONE_HOT[[START]], len(LEVELS), LEVELS)
    return learned, (learned - true_quantiles(LEVELS)).abs().mean(0)


def train(seed: int) -> Result:
    """Learn from random transitions."""
    torch.manual_seed(seed)
    online = iqn_blocks.build(CONFIG)
    target = copy.deepcopy(online)
    optimizer = torch.optim.Adam(online.parameters(), lr=3e-3)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.01, UPDATES)
    curve = [(0, measure(online)[1])]
    for update in range(1, UPDATES + 1):
        state, action, reward, discount, following = transitions()
        with torch.no_grad():
            seen = (net(None, ONE_HOT[following], K)[0] for net in (target, online))
            goal = double_dqn_target(reward, discount, *(split_quantiles(q, K) for q in seen))
        q, tau = online(None, ONE_HOT[state], K)
        pred = take(split_quantiles(q, K), action)
        # A small κ: a Huber loss that is round over a wide range learns expectiles, not quantiles.
        loss = quantile_huber_loss(pred, goal, split_quantiles(tau, K), kappa=0.01).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        polyak_update_(target, online, 0.02)
        if update % 100 == 0:
            curve.append((update, measure(online)[1]))
    with torch.no_grad():
        values = {n: online.q_values(None, ONE_HOT[[START]], risk=b)[0] for n, b in TASTES.items()}
    return Result(*measure(online), values, curve)


def draw(results: Sequence[Result], figure: str | Path) -> None:
    """Quantile functions and values of the first run; distances while learning of all."""
    _, (left, middle, right) = plt.subplots(1, 3, figsize=(12, 3.6), layout="constrained")
    truth = [true_quantiles(beta(LEVELS)).mean(0) for beta in TASTES.values()]
    for action, name, colour in ((SAFE, "safe", "tab:blue"), (RISKY, "risky", "tab:orange")):
        left.plot(LEVELS, true_quantiles(LEVELS)[:, action], color="black", linewidth=4, alpha=0.3)
        left.plot(LEVELS, results[0].quantiles[:, action], color=colour, label=name)
        for run in results:
            middle.plot([u for u, _ in run.curve], [d[action] for _, d in run.curve], color=colour)
        places = [place + 0.4 * action for place in range(len(TASTES))]
        heights = [v[action].item() for v in results[0].values.values()]
        right.bar(places, heights, 0.36, color=colour)
        right.plot(places, [v[action] for v in truth], "k_", markersize=24)
    left.legend(title="grey: true")
    left.set(xlabel="level τ", ylabel="return", title="Quantile functions at the start")
    middle.axhline(BOUND, color="black", linestyle="--")
    middle.set(xlabel="update", yscale="log", title=f"Distance to the truth, {len(results)} seeds")
    right.set_xticks([0.2, 1.2], list(TASTES))
    right.set(ylabel="value", title="Learned values; black lines: true ones")
    plt.savefig(figure, dpi=90)
    plt.close()


def main(figure: str | Path, seeds: Sequence[int] = SEEDS) -> list[Result]:
    """Train with each seed, print what came out, draw it."""
    results = []
    for seed in seeds:
        start = time.process_time()
        results.append(train(seed))
        seconds = time.process_time() - start
        print(f"seed {seed}: {results[-1][1:3]}, {seconds:.0f} s", flush=True)
    draw(results, figure)
    return results


if __name__ == "__main__":
    from arguments import read  # beside this file

    arguments = read(__doc__, SEEDS, "known_distribution.png")
    torch.set_num_threads(1)  # the networks are far too small for more
    main(arguments.figure, arguments.seeds)
