"""CartPole-v1 with sb3-contrib's QRDQN and a network of ours.

python docs/examples/cartpole_sb3.py --help
"""

from __future__ import annotations

import time

import gymnasium
import torch
from sb3_contrib import QRDQN
from stable_baselines3.common.evaluation import evaluate_policy

from iqn_blocks.interop.sb3 import IQNPolicy

SEEDS, STEPS = (0, 1), 50_000
CONFIG = {
    "float_inputs_std": [1.0, 1.0, 0.1, 1.0],  # cart position and speed, pole angle and speed
    "nn": {
        "float": {"mlp": {"hidden_dim": 128}},
        "iqn": {"embedding_dimension": 32},
        "decoder": {"dense_hidden_dimension": 256},
    },
}


def make(seed: int) -> QRDQN:
    """The algorithm with settings of rl-baselines3-zoo, but for the policy and a falling rate."""
    return QRDQN(
        IQNPolicy,
        "CartPole-v1",
        learning_rate=lambda left: 2.3e-3 * left,
        buffer_size=100_000,
        learning_starts=1000,
        batch_size=64,
        gamma=0.99,
        train_freq=256,
        gradient_steps=128,
        target_update_interval=10,
        exploration_fraction=0.16,
        exploration_final_eps=0.04,
        policy_kwargs={"n_quantiles": 10, "config": CONFIG},
        seed=seed,
    )


def mean_return(model: QRDQN, episodes: int = 100) -> float:
    """Of greedy episodes from seeds that training has not seen."""
    env = gymnasium.make("CartPole-v1")
    env.reset(seed=20_000)
    return float(evaluate_policy(model, env, episodes, warn=False)[0])


if __name__ == "__main__":
    from arguments import read  # beside this file

    seeds = read(__doc__, SEEDS).seeds
    torch.set_num_threads(1)  # the networks are far too small for more
    for seed in seeds:
        start = time.process_time()
        model = make(seed).learn(STEPS)
        seconds = time.process_time() - start
        print(f"seed {seed}: mean return {mean_return(model):.1f}, {seconds:.0f} s", flush=True)
