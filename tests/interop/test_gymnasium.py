from __future__ import annotations

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

import iqn_blocks
from iqn_blocks.interop.gymnasium import config_from_env, config_from_spaces

VECTOR = spaces.Box(-1, 1, (5,))
IMAGE = spaces.Box(0, 255, (2, 40, 36), np.uint8)
FRAME = spaces.Box(0, 255, (40, 36), np.uint8)


@pytest.mark.parametrize(
    ("observations", "floats", "image"),
    [
        (VECTOR, 5, None),
        (IMAGE, 0, (2, 40, 36)),
        (FRAME, 0, (1, 40, 36)),
        (spaces.Dict({"camera": IMAGE, "speed": VECTOR}), 5, (2, 40, 36)),
        (spaces.Dict({"speed": VECTOR}), 5, None),
    ],
)
def test_observations(observations, floats, image):
    config = config_from_spaces(observations, spaces.Discrete(4))
    assert (config.n_actions, config.float_input_dim) == (4, floats)
    vis = config.nn.vis
    assert vis.no_image == (image is None)
    if image:
        assert (vis.in_channels, vis.image_size.height, vis.image_size.width) == image
    net = iqn_blocks.build(config)
    assert net.q_values(*net.example_inputs(2)).shape == (2, 4)


def test_actions_and_overrides():
    config = config_from_spaces(
        VECTOR,
        spaces.MultiDiscrete([3, 3]),
        nn={"decoder": {"dense_hidden_dimension": 32}},
        btr={"use_noisy_linear": True},
    )
    assert (config.n_actions, config.n_actions_per_block) == (3, 2)
    assert config == iqn_blocks.Config(
        n_actions=3,
        n_actions_per_block=2,
        float_input_dim=5,
        nn={"vis": {"no_image": True}, "decoder": {"dense_hidden_dimension": 32}},
        btr={"use_noisy_linear": True},
    )
    assert config.nn.vis.no_image
    assert config.nn.decoder.dense_hidden_dimension == 32
    assert config.btr.use_noisy_linear


def test_offsets_of_unequal_sizes():
    space = spaces.MultiDiscrete([3, 2, 4])
    config = config_from_spaces(VECTOR, space)
    assert (config.n_actions, config.n_actions_per_block) == ((3, 2, 4), 3)
    net = iqn_blocks.build(config)
    for action in net.q_values(*net.example_inputs(50)).argmax(-1).numpy():
        assert space.contains(action)


@pytest.mark.parametrize(
    ("observations", "actions", "message"),
    [
        (
            VECTOR,
            spaces.MultiDiscrete([[3, 4]]),
            r"action_space: found Multi.* with one axis; wrap",
        ),
        (VECTOR, VECTOR, "action_space: found Box.* accepted are Discrete"),
        (spaces.Discrete(3), spaces.Discrete(3), "observation_space: found Discrete"),
        (spaces.Dict({"a": VECTOR, "b": VECTOR}), spaces.Discrete(3), "a Dict of one of each"),
        (
            spaces.Box(0, 255, (40, 36, 3), np.uint8),
            spaces.Discrete(3),
            r"\(40, 36, 3\), which looks like \(H, W, C\)",
        ),
    ],
)
def test_other_spaces_are_refused(observations, actions, message):
    with pytest.raises(iqn_blocks.ConfigError, match=message):
        config_from_spaces(observations, actions)


def test_overrides_may_not_contradict_the_spaces():
    with pytest.raises(iqn_blocks.ConfigError, match=r"nn\.vis\.in_channels: found 1 .*give 2"):
        config_from_spaces(IMAGE, spaces.Discrete(3), nn={"vis": {"in_channels": 1}})


@pytest.mark.parametrize("name", ["CartPole-v1", "MountainCar-v0", "Acrobot-v1"])
@pytest.mark.parametrize("actions", ["action_space", "single_action_space"])
def test_spaces_of_vectorised_environments_are_refused(name, actions):
    envs = gymnasium.make_vec(name, 5)
    with pytest.raises(iqn_blocks.ConfigError, match=r"take env\.single_observation_space"):
        config_from_spaces(envs.observation_space, getattr(envs, actions))
    assert config_from_env(envs) == config_from_env(gymnasium.make(name))
    single = config_from_spaces(envs.single_observation_space, envs.single_action_space)
    assert config_from_env(envs) == single


@pytest.mark.parametrize(
    ("observations", "actions"),
    [
        (spaces.Box(-1, 1, (64, 40)), spaces.MultiDiscrete([3] * 64)),
        (spaces.Box(0, 255, (64, 40, 36), np.uint8), spaces.MultiDiscrete([3] * 64)),
        (spaces.Box(0, 255, (8, 2, 40, 36), np.uint8), spaces.Discrete(3)),
        (
            spaces.Dict(
                camera=spaces.Box(0, 255, (8, 2, 40, 36), np.uint8), speed=spaces.Box(-1, 1, (8, 5))
            ),
            spaces.MultiDiscrete([3] * 8),
        ),
        (spaces.Box(-1, 1, (1, 40)), spaces.MultiDiscrete([3])),
        (spaces.Box(-np.inf, np.inf, (64, 40)), spaces.Discrete(3)),
        (spaces.Box(np.float32(-3.4e38), np.float32(3.4e38), (64, 40)), spaces.Discrete(3)),
    ],
)
def test_batched_spaces_are_refused(observations, actions):
    with pytest.raises(iqn_blocks.ConfigError, match=r"found .*Box.*vectorised.*config_from_env"):
        config_from_spaces(observations, actions)


@pytest.mark.parametrize(
    ("observations", "actions"),
    [
        (spaces.Box(0, 255, (4, 40, 36), np.uint8), spaces.MultiDiscrete([3] * 4)),
        (spaces.Box(0, 255, (1, 40, 36), np.uint8), spaces.MultiDiscrete([3])),
        (spaces.Box(0.0, 1.0, (40, 36)), spaces.Discrete(3)),
        (spaces.Box(-1, 1, (5,)), spaces.MultiDiscrete([3] * 5)),
    ],
)
def test_spaces_of_one_environment_are_not_taken_for_batched(observations, actions):
    assert config_from_spaces(observations, actions).n_actions == 3
