"""Our networks in tianshou 2.x: its IQN algorithm, collectors, buffers and trainer."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import iqn_blocks
from iqn_blocks.blocks import NoisyLinear
from iqn_blocks.interop.gymnasium import config_from_spaces
from iqn_blocks.interop.tianshou import TianshouModel
from tests.configs import tiny_btr, tiny_float
from tests.spectral import copy_parameters, sigmas

pytestmark = [
    pytest.mark.peers,
    # These libraries warn on import, about themselves and what they import.
    pytest.mark.filterwarnings("default"),
]

ACTIONS = 3


def algorithm_of(model: nn.Module, *, actions: int = ACTIONS, **settings: Any) -> Any:
    import gymnasium
    from tianshou.algorithm.modelfree.iqn import IQN
    from tianshou.algorithm.optim import AdamOptimizerFactory

    from iqn_blocks.interop.tianshou import IQNPolicy

    policy = IQNPolicy(
        model=model,
        action_space=gymnasium.spaces.Discrete(actions),
        sample_size=16,
        online_sample_size=8,
        target_sample_size=4,
        eps_training=0.2,
    )
    keys = {"gamma": 0.9, "target_update_freq": 20, **settings}
    return IQN(policy=policy, optim=AdamOptimizerFactory(lr=1e-3), **keys)


def game(seed: int = 0, *, steps: int = 10, masked: bool = False) -> Any:
    """An environment of image and vector: the reward is 1 for the action that the vector names.

    With ``masked`` only the action that the vector names is allowed.
    """
    import gymnasium
    from gymnasium import spaces

    class Game(gymnasium.Env[Any, Any]):
        observation_space = spaces.Dict(
            {
                "image": spaces.Box(0, 255, (1, 34, 36), np.uint8),
                "vector": spaces.Box(-1, 1, (5,), np.float32),
            }
        )
        action_space = spaces.Discrete(ACTIONS)

        def observe(self) -> Any:
            self.right = int(self.np_random.integers(ACTIONS))
            image = self.np_random.integers(0, 256, (1, 34, 36)).astype(np.uint8)
            obs = {"image": image, "vector": np.eye(5, dtype=np.float32)[self.right]}
            return {"obs": obs, "mask": np.eye(ACTIONS, dtype=bool)[self.right]} if masked else obs

        def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
            super().reset(seed=seed)
            self.step_count = 0
            return self.observe(), {}

        def step(self, action: Any) -> Any:
            reward = float(action == self.right)
            self.step_count += 1
            return self.observe(), reward, False, self.step_count == steps, {}

    env = Game()
    env.reset(seed=seed)
    return env


def vector_envs(count: int, **settings: Any) -> Any:
    from tianshou.env import DummyVectorEnv

    envs = DummyVectorEnv([lambda i=i: game(i, **settings) for i in range(count)])
    envs.seed(0)
    return envs


def collectors(policy: Any, *, size: int = 1000, **settings: Any) -> tuple[Any, Any]:
    from tianshou.data import Collector, CollectStats, VectorReplayBuffer

    return (
        Collector[CollectStats](
            policy, vector_envs(2, **settings), VectorReplayBuffer(size, 2), exploration_noise=True
        ),
        Collector[CollectStats](policy, vector_envs(2, **settings)),
    )


def run(algorithm: Any, collector: Any, test_collector: Any, **settings: Any) -> Any:
    from tianshou.trainer import OffPolicyTrainerParams

    keys: dict[str, Any] = {
        "max_epochs": 1,
        "epoch_num_steps": 100,
        "collection_step_num_env_steps": 4,
        "update_step_num_gradient_steps_per_sample": 0.5,
        "batch_size": 16,
        "test_step_num_episodes": 2,
        "verbose": False,
        "show_progress": False,
        **settings,
    }
    return algorithm.run_training(
        OffPolicyTrainerParams(training_collector=collector, test_collector=test_collector, **keys)
    )


@pytest.mark.parametrize("config", [tiny_btr(), tiny_float()], ids=["image and floats", "floats"])
def test_a_short_training_run(config: dict[str, Any]) -> None:
    torch.manual_seed(0)
    np.random.seed(0)
    net = iqn_blocks.build(config)
    before = [p.detach().clone() for p in net.parameters()]
    algorithm = algorithm_of(TianshouModel(net), n_step_return_horizon=3)
    collector, test_collector = collectors(algorithm.policy)
    info = run(algorithm, collector, test_collector)
    assert (info.train_step, algorithm._iter) == (100, 50)
    assert info.best_reward >= 0
    assert collector.buffer.obs.image.dtype == np.uint8
    assert all(torch.isfinite(p).all() for p in net.parameters())
    changed = [not torch.equal(p, q) for p, q in zip(before, net.parameters(), strict=True)]
    assert all(changed)


def test_quantile_counts_of_collection_updates_and_targets() -> None:
    """Eval mode, training mode and the lagged network each have a sample size of their own."""
    from tianshou.data import Batch

    algorithm = algorithm_of(TianshouModel(iqn_blocks.build(tiny_float())))
    policy = algorithm.policy
    batch = Batch(obs=Batch(vector=np.zeros((2, 5), np.float32)), info=Batch())
    assert policy.eval()(batch).logits.shape == (2, ACTIONS, 16)
    assert policy.train()(batch).logits.shape == (2, ACTIONS, 8)
    lagged = policy(batch, model=algorithm.model_old)
    assert lagged.logits.shape == (2, ACTIONS, 4)
    assert lagged.taus.shape == (2, 4)


def test_forbidden_actions_are_never_taken() -> None:
    """The mask leaves one action, so whoever respects it earns every reward."""
    torch.manual_seed(0)
    algorithm = algorithm_of(TianshouModel(iqn_blocks.build(tiny_btr())))
    algorithm.policy.eps_training = 0.0
    collector, test_collector = collectors(algorithm.policy, masked=True)
    run(algorithm, collector, test_collector)
    mask = collector.buffer.obs.mask[: len(collector.buffer)]
    assert 0 < mask.mean() < 0.5
    assert collector.collect(n_episode=2, reset_before_collect=True).returns.tolist() == [10, 10]
    assert test_collector.collect(n_episode=2, reset_before_collect=True).returns.min() == 10


class NoiseRecorder(nn.Module):
    """Notes, at each call of a network, the noise of its first noisy layer."""

    def __init__(self, net: iqn_blocks.IQN) -> None:
        super().__init__()
        self.seen: list[torch.Tensor] = []
        layer = next(m for m in net.modules() if isinstance(m, NoisyLinear))
        layer.register_forward_pre_hook(lambda m, _: self.seen.append(m.epsilon_in.clone()))

    def drain(self) -> list[torch.Tensor]:
        seen, self.seen = self.seen, []
        return seen


def all_differ(draws: list[torch.Tensor]) -> bool:
    return len({tuple(x.tolist()) for x in draws}) == len(draws) > 1


def test_noise_is_new_in_collection_and_updates_and_silent_in_test_episodes() -> None:
    torch.manual_seed(0)
    net = iqn_blocks.build(tiny_btr())
    algorithm = algorithm_of(TianshouModel(net), target_update_freq=5)
    online, lagged = NoiseRecorder(net), NoiseRecorder(algorithm.model_old.module.net)
    collector, test_collector = collectors(algorithm.policy)
    draws: list[list[torch.Tensor]] = []

    def before_test(epoch: int, env_step: int | None) -> None:
        draws.append(online.drain())

    run(algorithm, collector, test_collector, test_fn=before_test)
    # A test comes first, of a policy that has not been trained; then training; then a test.
    untrained, training, test = *draws, online.drain()
    assert untrained == []
    assert all_differ([x for x in training if x.any()])
    silent = [x for x in training if not x.any()]
    assert len(silent) == 10  # the steps of the first test
    assert test and not any(x.any() for x in test)
    # 50 steps of two environments to collect, and two calls an update.
    assert len(training) - len(silent) == 50 + 2 * 50
    in_targets = lagged.drain()
    assert len(in_targets) == 50
    assert all(x.any() for x in in_targets) and all_differ(in_targets)


def test_bare_model_leaves_noise_alone() -> None:
    net = iqn_blocks.build(tiny_btr())
    net.reset_noise()
    layer = next(m for m in net.modules() if isinstance(m, NoisyLinear))
    noise = layer.epsilon_in.clone()
    obs = {"image": np.zeros((2, 1, 34, 36), np.uint8), "vector": np.zeros((2, 5), np.float32)}
    TianshouModel(net)(obs, sample_size=4)
    assert torch.equal(layer.epsilon_in, noise)


def test_spectral_norm_of_the_lagged_network() -> None:
    """Synchronised through parameters alone, it divides by the σ of the online network."""
    torch.manual_seed(0)
    np.random.seed(0)
    net = iqn_blocks.build(tiny_btr())
    stale = copy.deepcopy(net).eval()  # a copy of the bare network does not iterate
    algorithm = algorithm_of(TianshouModel(net), target_update_freq=1)
    collector, test_collector = collectors(algorithm.policy)
    run(algorithm, collector, test_collector, update_step_num_gradient_steps_per_sample=1.0)
    assert algorithm._iter == 100
    # What the next update does: both networks iterate once on the same weights.
    lagged = algorithm.model_old.module
    assert not lagged.training
    copy_parameters(net, lagged)
    copy_parameters(net, stale)
    obs = collector.buffer.obs[:4]
    for model in (lagged, TianshouModel(stale).eval(), algorithm.policy.model.train()):
        model(obs, sample_size=4)
    online_sigma, _ = sigmas(net)
    assert len(online_sigma) == 15
    np.testing.assert_allclose(sigmas(lagged)[0], online_sigma, rtol=0.01)
    assert (sigmas(stale)[0] / online_sigma).min() < 0.98


@pytest.mark.slow
def test_loss_falls_on_atari_frames_and_memory() -> None:
    """Pong from its frame (uint8) and its RAM (floats)."""
    import ale_py
    import gymnasium
    from gymnasium import spaces
    from tianshou.data import Collector, CollectStats, VectorReplayBuffer
    from tianshou.env import DummyVectorEnv
    from tianshou.utils.torch_utils import policy_within_training_step

    gymnasium.register_envs(ale_py)

    class FrameAndMemory(gymnasium.ObservationWrapper[Any, Any, Any]):
        def __init__(self) -> None:
            super().__init__(
                gymnasium.make("ALE/Pong-v5", obs_type="grayscale", max_episode_steps=200)
            )
            self.observation_space = spaces.Dict(
                {
                    "image": spaces.Box(0, 255, (84, 84), np.uint8),
                    "vector": spaces.Box(0, 255, (128,), np.float32),
                }
            )

        def observation(self, frame: Any) -> Any:
            pixels = torch.from_numpy(frame[None, None]).float()
            image = nn.functional.interpolate(pixels, (84, 84), mode="area")[0, 0]
            memory = self.unwrapped.ale.getRAM().astype(np.float32)
            return {"image": image.numpy().astype(np.uint8), "vector": memory}

    torch.manual_seed(0)
    np.random.seed(0)
    env = FrameAndMemory()
    config = config_from_spaces(
        env.observation_space,
        env.action_space,
        float_inputs_mean=[128.0] * 128,
        float_inputs_std=[64.0] * 128,
        nn={"float": {"mlp": {"hidden_dim": 64}}, "decoder": {"dense_hidden_dimension": 64}},
        btr={"use_noisy_linear": True},
    )
    model = TianshouModel(iqn_blocks.build(config))
    algorithm = algorithm_of(model, actions=config.n_actions, gamma=0.99, target_update_freq=100)
    envs = DummyVectorEnv([FrameAndMemory, FrameAndMemory])
    envs.seed(0)
    buffer = VectorReplayBuffer(1000, 2)
    collector = Collector[CollectStats](algorithm.policy, envs, buffer, exploration_noise=True)
    with policy_within_training_step(algorithm.policy):
        collector.collect(n_step=400, reset_before_collect=True)
        losses = [algorithm.update(buffer, 32).loss for _ in range(200)]
    assert buffer.obs.image.dtype == np.uint8
    assert np.mean(losses[-100:]) < 0.8 * np.mean(losses[:20])


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_cartpole_is_solved(seed: int) -> None:
    from docs.examples import cartpole_tianshou as example

    run = example.train(example.our_model, seed)
    assert run.seconds < 300
    assert run.steps_to_solve() is not None
    assert example.mean_return(run.best) >= example.SOLVED
