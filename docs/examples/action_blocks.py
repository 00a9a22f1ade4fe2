"""Blocks of three actions against the exact optimum, in a small Markov decision process.

A block pays the sum of what each offset pays for its action; the last one decides the next state.

python docs/examples/action_blocks.py --help
"""

from __future__ import annotations

import copy
import itertools
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import matplotlib.pyplot as plt
import torch
from torch import Tensor

import iqn_blocks
from iqn_blocks.functional import split_quantiles
from iqn_blocks.losses import double_dqn_target, quantile_huber_loss, take
from iqn_blocks.target import polyak_update_

STATES, A, N = 8, 4, 3
CONFIG = {
    "n_actions": A,
    "n_actions_per_block": N,
    "float_input_dim": STATES,
    "nn": {
        "vis": {"no_image": True},
        "float": {"mlp": {"hidden_dim": 64}},
        "iqn": {"embedding_dimension": 32, "k": 16},
        "decoder": {"dense_hidden_dimension": 128},
    },
}
SEEDS, GAMMA, BATCH, K, UPDATES = (0, 1, 2), 0.8, 128, 8, 2000
EVERYWHERE = torch.eye(STATES)  # what the network sees of all states

_task = torch.Generator().manual_seed(0)
# What an action pays, of state, offset and action: 0 to 3 units, and later states have larger ones.
UNIT = torch.linspace(0.1, 0.5, STATES)[:, None, None]
PAY = torch.rand(STATES, N, A, generator=_task).argsort(-1) * UNIT
NEXT = torch.randint(STATES, (STATES, A), generator=_task)  # of state and last action
BLOCKS = torch.tensor(list(itertools.product(range(A), repeat=N)))  # all A^N of them


class Result(NamedTuple):
    """What a run learned."""

    policy: Tensor  # (STATES, N), the greedy blocks
    predicted: Tensor  # (STATES,) what the network takes them to be worth
    curve: list[tuple[int, float]]  # mean value of the greedy policy after so many updates


def pay(state: Tensor, block: Tensor) -> Tensor:
    """What blocks ``(B, N)`` pay in states ``(B,)``."""
    return PAY[state].gather(2, block[:, :, None]).sum((1, 2))


def exact_optimum() -> tuple[Tensor, Tensor]:
    """Values and best blocks of all states, by value iteration over every block."""
    values = torch.zeros(STATES)
    state, block = torch.arange(STATES).repeat_interleave(len(BLOCKS)), BLOCKS.repeat(STATES, 1)
    for _ in range(200):
        worth = pay(state, block) + GAMMA * values[NEXT[state, block[:, 2]]]
        values, best = worth.view(STATES, -1).max(1)
    return values, BLOCKS[best]


def value_of(policy: Tensor, random_offset: int | None = None) -> Tensor:
    """Exact values of choosing ``policy (STATES, N)``, with one offset left to chance if named."""
    chances = torch.nn.functional.one_hot(policy, A).float()
    if random_offset is not None:
        chances[:, random_offset] = 1 / A
    moves = (chances[:, 2, :, None] * EVERYWHERE[NEXT]).sum(1)
    return torch.linalg.solve(EVERYWHERE - GAMMA * moves, (chances * PAY).sum((1, 2)))


def train(seed: int) -> Result:
    """Learn from random blocks in random states, with noise on what they pay."""
    torch.manual_seed(seed)
    online = iqn_blocks.build(CONFIG)
    target = copy.deepcopy(online)
    optimizer, curve = torch.optim.Adam(online.parameters(), lr=2e-3), []
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.01, UPDATES)
    for update in range(1, UPDATES + 1):
        state, block = torch.randint(STATES, (BATCH,)), torch.randint(A, (BATCH, N))
        reward = pay(state, block) + 0.1 * torch.randn(BATCH)
        following = EVERYWHERE[NEXT[state, block[:, 2]]]
        with torch.no_grad():
            values = (split_quantiles(net(None, following, K)[0], K) for net in (target, online))
            goal = double_dqn_target(reward, torch.full((BATCH,), GAMMA), *values)
        q, tau = online(None, EVERYWHERE[state], K)
        pred = take(split_quantiles(q, K), block)  # (B, K), summed over the offsets
        loss = quantile_huber_loss(pred, goal, split_quantiles(tau, K), kappa=0.1).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        polyak_update_(target, online, 0.02)
        if update % 25 == 0:
            with torch.no_grad():
                mean, policy = online.q_values(None, EVERYWHERE).max(-1)  # (STATES, N) each
            curve.append((update, value_of(policy).mean().item()))
    return Result(policy, mean.sum(-1), curve)


def draw(results: Sequence[Result], figure: str | Path) -> None:
    """Learning curves, policies beside the first learned one, and values of the states."""
    optimum, best = exact_optimum()
    learned, greedy = value_of(results[0].policy), value_of(PAY.argmax(-1))
    policies = {"optimum": optimum, "learned": learned, "best pay": greedy}
    policies |= {f"offset {n + 1}\nrandom": value_of(best, n) for n in range(N)}
    _, (left, middle, right) = plt.subplots(1, 3, figsize=(12, 3.6), layout="constrained")
    means = [values.mean().item() for values in policies.values()]
    middle.bar(list(policies), means, color=["black", "C0", *["gray"] * 4])
    middle.tick_params("x", labelsize=8)
    middle.set(ylabel="value", title="Policies")
    left.axhline(optimum.mean(), color="black", linestyle="--")
    right.axline((optimum.min().item(),) * 2, slope=1, color="black", linewidth=1)
    for _, predicted, curve in results:
        left.plot(*zip(*curve, strict=True))
        right.scatter(optimum, predicted)
    left.set(xlabel="update", xscale="log", ylabel="mean value", title="Greedy; dashed: optimum")
    right.set(xlabel="exact value", ylabel="predicted value", title="The eight states")
    plt.savefig(figure, dpi=90)
    plt.close()


def main(figure: str | Path, seeds: Sequence[int] = SEEDS) -> list[Result]:
    """Train with each seed, print how far from the optimum it ended, draw it."""
    (optimum, best), results = exact_optimum(), []
    for seed in seeds:
        start = time.process_time()
        results.append(train(seed))
        right = (results[-1].policy == best).all(1).sum()
        error = (results[-1].predicted / optimum - 1).abs().max()
        seconds = time.process_time() - start
        print(f"seed {seed}: {right} blocks optimal, value error {error:.1%}, {seconds:.0f} s")
    draw(results, figure)
    return results


if __name__ == "__main__":
    from arguments import read  # beside this file

    arguments = read(__doc__, SEEDS, "action_blocks.png")
    torch.set_num_threads(1)  # the networks are far too small for more
    main(arguments.figure, arguments.seeds)
