"""CartPole-v1 with tianshou's own IQN, from our float-only network and from tianshou's beside it.

python docs/examples/cartpole_tianshou.py --help
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import gymnasium
import numpy as np
import torch
from gymnasium.wrappers import TransformReward
from tianshou.algorithm.modelfree.iqn import IQN
from tianshou.algorithm.optim import AdamOptimizerFactory, LRSchedulerFactoryLinear
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
ENVS, ROUND, UPDATES = 32, 256, 32  # so many steps and updates, then a new target network
MAX_EPOCHS, EPOCH_STEPS, TEST_EPISODES = 50, 2048, 30
REWARD_SCALE = 0.02  # in training: values below 2, where the loss is quadratic
EVALUATION_SEED, TEST_SEED = 10_000, 20_000  # episodes that no training run sees
SOLVED, ENOUGH = 475, 495
INPUTS_STD = [1.0, 1.0, 0.1, 1.0]  # cart position and speed, pole angle and speed


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
        float_inputs_std=INPUTS_STD,
        nn={
            "float": {"mlp": {"hidden_dim": 128}},
            "iqn": {"embedding_dimension": 32},
            "decoder": {"dense_hidden_dimension": 256},
        },
    )
    return TianshouModel(iqn_blocks.build(config))


def their_model() -> nn.Module:
    """Its own network in place of ours: as many parameters; ours has 128 units in each head."""
    features = Net(state_shape=4, action_shape=128, hidden_sizes=[128])
    return ImplicitQuantileNetwork(
        preprocess_net=features, action_shape=2, hidden_sizes=[256], num_cosines=32
    )


class Scaled(nn.Module):
    """Its own network with inputs scaled as ours are, so that the rest is compared."""

    def __init__(self) -> None:
        super().__init__()
        self.model = their_model()

    def forward(self, obs: Any, **settings: Any) -> Any:
        return self.model(torch.as_tensor(obs) / torch.tensor(INPUTS_STD), **settings)


MODELS: dict[str, Callable[[], nn.Module]] = {
    "ours": our_model,
    "tianshou's": their_model,
    "tianshou's, inputs scaled": Scaled,
}


def algorithm_of(model: nn.Module) -> IQN:
    """The algorithm of tianshou; our policy differs from its own in noise alone."""
    policy = IQNPolicy(
        model=model,
        action_space=gymnasium.spaces.Discrete(2),
        sample_size=32,
        online_sample_size=8,
        target_sample_size=8,
    )
    # The schedule counts its steps at each update.
    decay = LRSchedulerFactoryLinear(MAX_EPOCHS, EPOCH_STEPS, ROUND // UPDATES)
    return IQN(
        policy=policy,
        optim=AdamOptimizerFactory(lr=1e-3).with_lr_scheduler_factory(decay),
        gamma=0.99,
        target_update_freq=UPDATES,
    )


def cartpoles(count: int, seed: int, *, reward_scale: float = 1.0) -> DummyVectorEnv:
    """Environments that start from ``seed`` on."""

    def cartpole() -> gymnasium.Env[Any, Any]:
        return TransformReward(gymnasium.make("CartPole-v1"), lambda reward: reward * reward_scale)

    envs = DummyVectorEnv([cartpole] * count)
    envs.seed(seed)
    return envs


def train(make_model: Callable[[], nn.Module], seed: int) -> Run:
    """Until a test scores 495, or the epochs are over."""
    torch.manual_seed(seed)
    np.random.seed(seed)
    algorithm = algorithm_of(make_model())
    policy = algorithm.policy
    collector = Collector[CollectStats](
        policy,
        cartpoles(ENVS, seed, reward_scale=REWARD_SCALE),
        VectorReplayBuffer(MAX_EPOCHS * EPOCH_STEPS, ENVS),
        exploration_noise=True,
    )
    test_collector = Collector[CollectStats](policy, cartpoles(TEST_EPISODES, EVALUATION_SEED))
    curve: list[tuple[int, float]] = []
    tested_at, best = 0, copy.deepcopy(policy)

    def explore(epoch: int, env_step: int) -> None:
        policy.set_eps_training(max(0.04, 1 - env_step / 10_000))

    def note_steps(epoch: int, env_step: int | None) -> None:
        nonlocal tested_at
        # Each test starts from the same states, so that scores differ through the policy alone.
        test_collector.env.seed(EVALUATION_SEED)
        tested_at = env_step or 0

    def score(stats: CollectStats) -> float:
        curve.append((tested_at, float(stats.returns.mean())))
        return curve[-1][1]

    def keep(algorithm: Any) -> None:
        nonlocal best
        best = copy.deepcopy(algorithm.policy)

    start = time.process_time()
    algorithm.run_training(
        OffPolicyTrainerParams(
            training_collector=collector,
            test_collector=test_collector,
            max_epochs=MAX_EPOCHS,
            epoch_num_steps=EPOCH_STEPS,
            collection_step_num_env_steps=ROUND,
            update_step_num_gradient_steps_per_sample=UPDATES / ROUND,
            batch_size=64,
            test_step_num_episodes=TEST_EPISODES,
            training_fn=explore,
            test_fn=note_steps,
            compute_score_fn=score,
            save_best_fn=keep,
            stop_fn=lambda score: score >= ENOUGH,
            verbose=False,
            show_progress=False,
        )
    )
    return Run(curve, best, time.process_time() - start)


def mean_return(policy: IQNPolicy, episodes: int = 100, seed: int = TEST_SEED) -> float:
    """Of greedy episodes that neither training nor the choice of the best policy has seen."""
    collector = Collector[CollectStats](policy, cartpoles(episodes, seed))
    return float(collector.collect(n_episode=episodes, reset_before_collect=True).returns.mean())


if __name__ == "__main__":
    from arguments import read  # beside this file

    seeds = read(__doc__, SEEDS).seeds
    torch.set_num_threads(1)  # the networks are far too small for more
    for seed in seeds:
        for name, make in MODELS.items():
            run = train(make, seed)
            print(
                f"seed {seed}, {name}: {run.steps_to_solve()} steps to {SOLVED}, mean return "
                f"{mean_return(run.best):.1f} on other seeds, {run.seconds:.0f} s",
                flush=True,
            )
