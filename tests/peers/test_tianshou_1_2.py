"""The adapter in tianshou 1.2, whose IQNPolicy makes the same model call."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import iqn_blocks
from iqn_blocks.interop.tianshou import TianshouModel
from tests.configs import tiny, tiny_float

pytestmark = [
    pytest.mark.tianshou_1,
    # These libraries warn on import, about themselves and what they import.
    pytest.mark.filterwarnings("default"),
]

B, A = 8, 3


def policy_of(config: dict[str, Any]) -> Any:
    import gymnasium
    from tianshou.policy import IQNPolicy

    torch.manual_seed(0)
    model = TianshouModel(iqn_blocks.build(config))
    return IQNPolicy(
        model=model,
        optim=torch.optim.Adam(model.parameters(), lr=3e-3),
        action_space=gymnasium.spaces.Discrete(A),
        discount_factor=0.99,
        sample_size=32,
        online_sample_size=8,
        target_sample_size=4,
        num_quantiles=200,
        estimation_step=1,
        target_update_freq=10,
    )


def observation(rng: np.random.Generator, *lead: int) -> Any:
    from tianshou.data import Batch

    image = rng.integers(0, 256, (*lead, 1, 34, 36), dtype=np.uint8)
    return Batch(image=image, vector=rng.normal(size=(*lead, 5)).astype(np.float32))


@pytest.mark.parametrize("config", [tiny(), tiny_float()], ids=["image and floats", "floats"])
def test_sample_sizes_and_masks(config: dict[str, Any]) -> None:
    from tianshou.data import Batch

    policy, rng = policy_of(config), np.random.default_rng(0)
    allowed = rng.integers(A, size=B)
    obs = Batch(obs=observation(rng, B), mask=np.eye(A, dtype=bool)[allowed])
    batch = Batch(obs=obs, info=Batch())
    for train, model, samples in [
        (False, "model", 32),
        (True, "model", 8),
        (True, "model_old", 4),
        (False, "model_old", 4),
    ]:
        policy.train(train)
        result = policy(batch, model=model)
        assert result.logits.shape == (B, A, samples)
        assert result.taus.shape == (B, samples)
        assert result.act.tolist() == allowed.tolist()


@pytest.mark.parametrize("config", [tiny(), tiny_float()], ids=["image and floats", "floats"])
def test_learn(config: dict[str, Any]) -> None:
    from tianshou.data import Batch, ReplayBuffer
    from tianshou.utils.torch_utils import policy_within_training_step

    policy, rng = policy_of(config), np.random.default_rng(0)
    np.random.seed(0)
    buffer = ReplayBuffer(64)
    for _ in range(64):
        action = int(rng.integers(A))
        buffer.add(
            Batch(
                obs=observation(rng), act=action, rew=float(action), obs_next=observation(rng),
                terminated=True, truncated=False, info={},
            )
        )  # fmt: skip
    policy.train()
    with policy_within_training_step(policy):
        losses = [policy.update(32, buffer).loss for _ in range(100)]
    assert buffer.obs.image.dtype == np.uint8
    assert np.mean(losses[-10:]) < 0.5 * np.mean(losses[:10])
    old, new = policy.model_old.state_dict(), policy.model.state_dict()
    assert old.keys() == new.keys()
    assert not policy.model_old.training
