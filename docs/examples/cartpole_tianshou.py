"""CartPole-v1 with tianshou's own IQN, from our float-only network or from tianshou's.

python docs/examples/cartpole_tianshou.py [seed ...]
"""

from __future__ import annotations

import copy
import sys
import time
from typing import Any, NamedTuple

import gymnasium
import numpy as np
import torch
from tianshou.algorithm.modelfree.iqn import IQN
from tianshou.algorithm.optim import AdamOptimizerFactory
from tianshou.data import Collector, CollectStats, VectorReplayBuffer
from tianshou.env import DummyVectorEnv
from tianshou.trainer import OffPolicyTrainerParams
from tianshou.utils.net.common import Net
from tianshou.utils.net.discrete import ImplicitQuantileNetwork
from torch import nn

import iqn_blocks
from iqn_blocks.interop.gymnasium import config_from_spaces
from iqn_blocks.interop.tianshou import IQNPolicy, TianshouModel

SEEDS = (0, 1, 2)
ENVS, TEST_EPISODES, EPOCH_STEPS = 10, 20, 2000
EVALUATION_SEED, TEST_SEED = 10_000, 20_000  # episodes that no training run sees
SOLVED = 475


class Run(NamedTuple):
    """``curve`` is (environment steps, mean return of test episodes); ``best`` its best policy."""

    curve: list[tuple[int, float]]
    best: IQNPolicy
    seconds: float

    def steps_to_solve(self) -> int | None:
        """Environment steps to the first test whose mean return is at least 475."""
        return next((steps for steps, score in self.curve if score >= SOLVED), None)


def our_model() -> nn.Module:
    """The float-only network, from the environment's spaces."""
    env = gymnasium.make("CartPole-v1")
    config = config_from_spaces(
        env.observation_space,
        env.action_space,
        float_inputs_std=[1.0, 1.0, 0.1, 1.0],  # cart position and speed, pole angle and speed
        nn={
            "float": {"mlp": {"hidden_dim": 64}},
            "iqn": {"embedding_dimension": 64},
            "decoder": {"dense_hidden_dimension": 128},
        },
    )
    return TianshouModel(iqn_blocks.build(config))


def their_model() -> nn.Module:
    """Its own network in place of ours: as many parameters; ours has 64 units in each head."""
    features = Net(state_shape=4, action_shape=64, hidden_sizes=[64])
    return ImplicitQuantileNetwork(
        preprocess_net=features, action_shape=2, hidden_sizes=[128], num_cosines=64
    )


def algorithm_of(model: nn.Module) -> IQN:
    """The algorithm of tianshou; our policy differs from its own in noise alone."""
    policy = IQNPolicy(
        model=model,
        action_space=gymnasium.spaces.Discrete(2),
        sample_size=32,
        online_sample_size=8,
        target_sample_size=8,
    )
    return IQN(
        policy=policy,
        optim=AdamOptimizerFactory(lr=1e-3),
        gamma=0.99,
        n_step_return_horizon=3,
        target_update_freq=100,
    )


def cartpoles(count: int, seed: int) -> DummyVectorEnv:
    """Environments that start from ``seed`` on."""
    envs = DummyVectorEnv([lambda: gymnasium.make("CartPole-v1") for _ in range(count)])
    envs.seed(seed)
    return envs


def train(model: nn.Module, seed: int, *, max_epochs: int = 30) -> Run:
    """Until a test scores 495, or ``max_epochs`` of 2 000 environment steps are over."""
    algorithm = algorithm_of(model)
    policy = algorithm.policy
    buffer = VectorReplayBuffer(50_000, ENVS)
    collector = Collector[CollectStats](
        policy, cartpoles(ENVS, seed), buffer, exploration_noise=True
    )
    test_collector = Collector[CollectStats](policy, cartpoles(TEST_EPISODES, EVALUATION_SEED))
    curve: list[tuple[int, float]] = []
    tested_at, best = 0, copy.deepcopy(policy)

    def explore(epoch: int, env_step: int) -> None:
        policy.set_eps_training(max(0.02, 1 - env_step / 3000))

    def note_steps(epoch: int, env_step: int | None) -> None:
        nonlocal tested_at
        tested_at = env_step or 0

    def score(stats: CollectStats) -> float:
        curve.append((tested_at, float(stats.returns.mean())))
        return curve[-1][1]

    def keep(algorithm: Any) -> None:
        nonlocal best
        best = copy.deepcopy(algorithm.policy)

    collector.reset()
    collector.collect(n_step=1000, random=True)
    start = time.perf_counter()
    algorithm.run_training(
        OffPolicyTrainerParams(
            training_collector=collector,
            test_collector=test_collector,
            max_epochs=max_epochs,
            epoch_num_steps=EPOCH_STEPS,
            collection_step_num_env_steps=ENVS,
            update_step_num_gradient_steps_per_sample=0.5,
            batch_size=64,
            test_step_num_episodes=TEST_EPISODES,
            training_fn=explore,
            test_fn=note_steps,
            compute_score_fn=score,
            save_best_fn=keep,
            stop_fn=lambda score: score >= 495,
            verbose=False,
            show_progress=False,
        )
    )
    return Run(curve, best, time.perf_counter() - start)


def mean_return(policy: IQNPolicy, episodes: int = 50, seed: int = TEST_SEED) -> float:
    """Of greedy episodes that neither training nor the choice of the best policy has seen."""
    collector = Collector[CollectStats](policy, cartpoles(episodes, seed))
    return float(collector.collect(n_episode=episodes, reset_before_collect=True).returns.mean())


if __name__ == "__main__":
    for seed in [int(word) for word in sys.argv[1:]] or SEEDS:
        for name, make in {"ours": our_model, "tianshou's": their_model}.items():
            torch.manual_seed(seed)
            np.random.seed(seed)
            run = train(make(), seed)
            print(
                f"seed {seed}, {name}: {run.steps_to_solve()} steps to {SOLVED}, mean return "
                f"{mean_return(run.best):.1f} on other seeds, {run.seconds:.0f} s",
                flush=True,
            )
