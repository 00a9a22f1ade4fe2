"""CartPole-v1 from its four numbers: a float-only network, ε-greedy, five-step targets.

python docs/examples/cartpole.py --help
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import gymnasium
import matplotlib.pyplot as plt
import torch
from torch import Tensor

import iqn_blocks
from iqn_blocks.functional import split_quantiles
from iqn_blocks.losses import double_dqn_target, quantile_huber_loss, take
from iqn_blocks.target import hard_update_

CONFIG: dict[str, Any] = {
    "n_actions": 2,
    "float_input_dim": 4,
    "float_inputs_std": [1.0, 1.0, 0.1, 1.0],  # cart position and speed, pole angle and speed
    "nn": {
        "vis": {"no_image": True},
        "float": {"mlp": {"hidden_dim": 64}},
        "iqn": {"embedding_dimension": 16, "k": 8},
        "decoder": {"dense_hidden_dimension": 128},
    },
}
# A round: 32 steps of 8 environments and 64 updates; after each 32 the target network becomes the
# online one.
ENVS, STEPS, UPDATES, SYNCHRONISE, BATCH, K, GAMMA = 8, 32, 64, 32, 64, 8, 0.99
# A cart that drifts leaves the track 150 steps later. A target network carries that back by HORIZON
# steps, and there are 240 of them.
HORIZON, ROUNDS, EXPLORING, EPSILON, LEARNING_RATE = 5, 120, 60, 0.04, 1e-3
EVALUATE_EVERY, REWARD_SCALE = 10, 0.02  # values below 2: where the loss is quadratic
SEEDS, EVALUATION_SEED, TEST_SEED = range(5), 10_000, 20_000  # no episode is in two of them


class Batch(NamedTuple):
    """Transitions, ``(B, 4)`` and ``(B,)``; ``discount`` is ``γⁿ · (1 − terminated)``."""

    now: Tensor
    action: Tensor
    reward: Tensor
    discount: Tensor
    following: Tensor


Explore = Callable[[iqn_blocks.IQN, Tensor, int], Tensor]
Targets = Callable[[iqn_blocks.IQN, Batch], Tensor]


def quantiles(net: iqn_blocks.IQN, floats: Tensor) -> Tensor:
    """Quantile values ``(B, K, A)`` at random levels."""
    return split_quantiles(net(None, floats, K)[0], K)


def epsilon_greedy(net: iqn_blocks.IQN, obs: Tensor, rounds: int) -> Tensor:
    """The greedy action, or with a chance that falls to 0.04 a random one."""
    random = torch.rand(len(obs)) < max(EPSILON, 1 - rounds / EXPLORING)
    return torch.where(random, torch.randint(2, (len(obs),)), net.q_values(None, obs).argmax(-1))


def best_mean(target: iqn_blocks.IQN, batch: Batch) -> Tensor:
    """Targets ``(B, K)``: the target network's own best action on average."""
    q = quantiles(target, batch.following)
    return double_dqn_target(batch.reward, batch.discount, q, q)


def multi_step(steps: Batch, over: Tensor) -> Batch:
    """Every ``HORIZON`` steps as one; fewer where the round or, ``over``, the episode ends before.

    All are ``(T, N, …)``: ``T`` steps of ``N`` environments.
    """
    reward, discount = steps.reward.clone(), steps.discount.clone()
    following, going = steps.following.clone(), ~over
    for i in range(1, min(HORIZON, len(over))):
        early = slice(len(over) - i)  # those with a step i later
        on = going[early]
        reward[early] += on * discount[early] * steps.reward[i:]
        discount[early] *= torch.where(on, steps.discount[i:], 1.0)
        following[early] = torch.where(on[..., None], steps.following[i:], following[early])
        going = on & ~over[i:]
    return steps._replace(reward=reward, discount=discount, following=following)


@torch.no_grad()
def evaluate(net: iqn_blocks.IQN, episodes: int, seed: int) -> float:
    """Mean return of the greedy policy, its noise turned off."""
    net.disable_noise()
    envs = gymnasium.make_vec("CartPole-v1", episodes, vectorization_mode="vector_entry_point")
    obs, _ = envs.reset(seed=seed)
    running, total = torch.ones(episodes, dtype=torch.bool), 0.0
    while running.any():
        action = net.q_values(None, torch.as_tensor(obs)).argmax(-1)
        obs, _, terminated, truncated, _ = envs.step(action.numpy())
        total += running.sum().item()
        running &= ~torch.as_tensor(terminated | truncated)
    return total / episodes


def train(
    seed: int,
    config: dict[str, Any],
    explore: Explore,
    targets: Targets,
    total: int = ROUNDS,
) -> tuple[list[tuple[int, float]], iqn_blocks.IQN]:
    """Mean returns after so many environment steps, and the last target network."""
    torch.manual_seed(seed)
    online = iqn_blocks.build(config)
    target = copy.deepcopy(online)
    optimizer = torch.optim.Adam(online.parameters(), lr=LEARNING_RATE)
    envs = gymnasium.make_vec("CartPole-v1", ENVS, vectorization_mode="vector_entry_point")
    now = torch.as_tensor(envs.reset(seed=seed)[0])
    resetting = torch.zeros(ENVS, dtype=torch.bool)
    replay: list[Batch] = []
    curve: list[tuple[int, float]] = []
    for rounds in range(1, total + 1):
        seen, ends, resets = [], [], []
        for _ in range(STEPS):
            with torch.no_grad():
                action = explore(online, now, rounds)
            following, reward, fell, late = map(torch.as_tensor, envs.step(action.numpy())[:4])
            # A fall ends the future; the limit of 500 steps does not, and is no part of the state.
            seen.append(Batch(now, action, REWARD_SCALE * reward, GAMMA * ~fell, following))
            ends.append(fell | late)
            resets.append(resetting)
            now, resetting = following, fell | late
        steps = Batch(*(torch.stack(x) for x in zip(*seen, strict=True)))
        kept = ~torch.stack(resets)  # a reset is no transition
        replay.append(Batch(*(x[kept] for x in multi_step(steps, torch.stack(ends)))))
        replay = [Batch(*(torch.cat(x) for x in zip(*replay, strict=True)))]
        for update, index in enumerate(torch.randint(len(replay[0].now), (UPDATES, BATCH)), 1):
            batch = Batch(*(x[index] for x in replay[0]))
            online.reset_noise()
            target.reset_noise()
            with torch.no_grad():
                goal = targets(target, batch)
            q, tau = (split_quantiles(x, K) for x in online(None, batch.now, K))
            loss = quantile_huber_loss(take(q, batch.action), goal, tau).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            if update % SYNCHRONISE == 0:
                hard_update_(target, online)
        # At a rate that does not fall the policy goes on changing from round to round.
        optimizer.param_groups[0]["lr"] -= LEARNING_RATE / total
        if rounds % EVALUATE_EVERY == 0:
            curve.append((rounds * STEPS * ENVS, evaluate(target, 20, EVALUATION_SEED)))
    return curve, target


def run(
    config: dict[str, Any],
    explore: Explore,
    targets: Targets,
    about: str,
    name: str,
    total: int = ROUNDS,
) -> None:
    """Print the mean return of 100 test episodes for each seed, and draw the curves."""
    from arguments import read  # beside this file

    arguments = read(about, SEEDS, f"{name}.png")
    torch.set_num_threads(1)  # the networks are far too small for more
    for seed in arguments.seeds:
        start = time.process_time()
        curve, last = train(seed, config, explore, targets, total)
        score, seconds = evaluate(last, 100, TEST_SEED), time.process_time() - start
        print(f"seed {seed}: {score:.1f}, {curve[-1][0]} steps, {seconds:.0f} s", flush=True)
        plt.plot(*zip(*curve, strict=True), marker=".", label=f"seed {seed}: {score:.1f} in test")
    plt.axhline(475, color="black", linewidth=1, linestyle="--")
    plt.gca().set(title="CartPole-v1", xlabel="environment steps", ylabel="mean return")
    plt.legend(loc="upper left", bbox_to_anchor=(1, 1))  # beside the curves
    plt.savefig(arguments.figure, dpi=80, bbox_inches="tight")


if __name__ == "__main__":
    run(CONFIG, epsilon_greedy, best_mean, __doc__ or "", "cartpole")
