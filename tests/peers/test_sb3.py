"""Our networks in stable-baselines3: QRDQN learns with them, images arrive as they should."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import iqn_blocks
from iqn_blocks.blocks import NoisyLinear
from tests.spectral import sigmas

pytestmark = [
    pytest.mark.peers,
    # These libraries warn on import, about themselves and what they import.
    pytest.mark.filterwarnings("default"),
]
# The environment of the timm tests has none of them.
gymnasium = pytest.importorskip("gymnasium")
pytest.importorskip("stable_baselines3")
pytest.importorskip("sb3_contrib")
spaces = gymnasium.spaces

IMAGE = spaces.Box(0, 255, (2, 36, 36), np.uint8)
VECTOR = spaces.Box(-1, 1, (3,))
SMALL: dict[str, Any] = {"nn": {"decoder": {"dense_hidden_dimension": 32}}}
NOISY = {**SMALL, "btr": {"use_noisy_linear": True}}


class Signal(gymnasium.Env[Any, int]):
    """One step an episode: a bright half of the image and a number name the rewarded action."""

    observation_space = spaces.Dict(
        camera=spaces.Box(0, 255, (36, 36, 1), np.uint8),  # channels last: sb3 moves them
        number=spaces.Box(-1, 1, (1,)),
        phase=spaces.Discrete(2),
    )
    action_space = spaces.Discrete(4)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.right = int(self.np_random.integers(4))
        camera = np.zeros((36, 36, 1), np.uint8)
        camera[:, 18 * (self.right % 2) :][:, :18] = 255
        number = np.array([1.0 if self.right > 1 else -1.0], np.float32)
        return {"camera": camera, "number": number, "phase": 0}, {}

    def step(self, action: int) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        reward = float(action == self.right)
        return self.reset()[0], reward, True, False, {}


def make(env: Any = None, config: Any = SMALL, **settings: Any) -> Any:
    from sb3_contrib import QRDQN

    from iqn_blocks.interop.sb3 import IQNPolicy

    torch.set_num_threads(1)
    policy = {"n_quantiles": 8, "config": config, **settings.pop("policy_kwargs", {})}
    defaults: dict[str, Any] = {
        "learning_rate": 1e-3,
        "buffer_size": 2000,
        "learning_starts": 64,
        "batch_size": 64,
        "target_update_interval": 50,
        "exploration_fraction": 0.5,
        "seed": 0,
    }
    return QRDQN(IQNPolicy, env or Signal(), policy_kwargs=policy, **{**defaults, **settings})


@pytest.mark.slow
def test_it_learns_from_image_and_number() -> None:
    model = make(train_freq=2, batch_size=32)
    assert _rewards(model) < 0.6
    model.learn(1000)
    assert _rewards(model) > 0.9


def _rewards(model: Any, episodes: int = 100) -> float:
    env, rewards = Signal(), []
    observation, _ = env.reset(seed=1)
    for _ in range(episodes):
        action, _ = model.predict(observation, deterministic=True)
        observation, reward, *_ = env.step(int(action))
        rewards.append(reward)
    return float(np.mean(rewards))


@pytest.mark.parametrize("scaling", ["signed", "unit"])
@pytest.mark.parametrize("normalize_images", [True, False])
def test_quantiles_are_those_of_the_network_on_uint8(scaling: str, normalize_images: bool) -> None:
    from iqn_blocks.interop.sb3 import IQNPolicy

    config = {"nn": {"vis": {"uint8_scaling": scaling}, "decoder": {"dense_hidden_dimension": 8}}}
    space = spaces.Dict(camera=IMAGE, speed=VECTOR)
    policy = IQNPolicy(
        space,
        spaces.Discrete(5),
        lambda _: 1e-3,
        n_quantiles=6,
        config=config,
        normalize_images=normalize_images,
    )
    generator = torch.Generator().manual_seed(0)
    img = torch.randint(256, (4, 2, 36, 36), generator=generator, dtype=torch.uint8)
    img[0] = torch.arange(256, dtype=torch.uint8).repeat(11)[: 2 * 36 * 36].view(2, 36, 36)
    floats = torch.randn(4, 3, generator=generator)
    tau = (torch.arange(6) + 0.5)[:, None] / 6
    expected, _ = policy.quantile_net.net.quantiles(img, floats, 6, tau)
    found = policy.quantile_net({"camera": img, "speed": floats})
    torch.testing.assert_close(found, expected, atol=0, rtol=0)
    assert found.shape == (4, 6, 5)


@pytest.mark.parametrize(
    ("space", "image", "floats"),
    [
        (VECTOR, None, 3),
        (IMAGE, (2, 36, 36), 0),
        (spaces.Box(0, 255, (36, 40), np.uint8), (1, 36, 40), 0),
        (spaces.Box(-1.0, 1.0, (2, 36, 36)), (2, 36, 36), 0),
        (spaces.Dict(a=VECTOR, b=spaces.Discrete(4), c=IMAGE), (2, 36, 36), 7),
    ],
)
@pytest.mark.parametrize("normalized", [True, False])
def test_the_extractor_gives_the_state(
    space: Any, image: Any, floats: int, normalized: bool
) -> None:
    from stable_baselines3.common.preprocessing import preprocess_obs

    from iqn_blocks.interop.sb3 import IQNExtractor

    extractor = IQNExtractor(space, normalized_image=normalized, **SMALL)
    sample = [space.sample() for _ in range(3)]
    raw = (
        {key: torch.tensor(np.stack([s[key] for s in sample])) for key in space.spaces}
        if isinstance(space, spaces.Dict)
        else torch.tensor(np.stack(sample))
    )
    seen = preprocess_obs(raw, space, normalize_images=not normalized)
    img, numbers = extractor.reader(seen)
    assert (None if img is None else tuple(img.shape[1:])) == image
    assert (0 if numbers is None else numbers.shape[1]) == floats
    original = raw.get("c") if isinstance(raw, dict) else raw
    if image is not None:
        assert torch.equal(img.view_as(original), original)
    assert extractor(seen).shape == (3, extractor.features_dim)


def test_sb3_tells_the_extractor_about_normalize_images() -> None:
    from stable_baselines3 import DQN

    from iqn_blocks.interop.sb3 import IQNExtractor

    for normalize in (True, False):
        kwargs = {
            "features_extractor_class": IQNExtractor,
            "features_extractor_kwargs": dict(SMALL),
            "normalize_images": normalize,
        }
        model = DQN("MultiInputPolicy", Signal(), policy_kwargs=kwargs, buffer_size=10)
        extractor = model.policy.q_net.features_extractor
        assert extractor.reader.is_divided == normalize
        assert extractor.reader.is_uint8
        observation, _ = Signal().reset(seed=0)
        model.predict(observation)


def _noise(net: iqn_blocks.IQN) -> torch.Tensor:
    return torch.cat([m.epsilon_in for m in net.modules() if isinstance(m, NoisyLinear)])


def test_noise_explores_and_trains_but_is_silent_when_deterministic() -> None:
    model = make(config=NOISY)
    net, target = model.quantile_net.net, model.quantile_net_target.net
    observation, _ = Signal().reset(seed=0)
    model.predict(observation, deterministic=True)
    assert not _noise(net).any()
    model.exploration_rate = 0.0
    model.predict(observation, deterministic=False)
    first = _noise(net).clone()
    assert first.any()
    model.predict(observation, deterministic=False)
    assert not torch.equal(first, _noise(net))
    model.learn(100)
    seen = [_noise(net).clone(), _noise(target).clone()]
    model.train(1, 16)
    assert _noise(target).any()
    assert not torch.equal(seen[0], _noise(net)) and not torch.equal(seen[1], _noise(target))
    assert not torch.equal(_noise(net), _noise(target))
    actions = {int(model.predict(observation, deterministic=True)[0]) for _ in range(20)}
    assert len(actions) == 1


def test_a_saved_model_and_its_network_come_back(tmp_path: Path) -> None:
    from sb3_contrib import QRDQN

    from iqn_blocks.interop.sb3 import IQNPolicy

    model = make(config=NOISY)
    model.learn(100)
    observations = [Signal().reset(seed=seed)[0] for seed in range(8)]
    for observation in observations:
        observation["camera"] = observation["camera"].transpose(2, 0, 1)

    def values(policy: Any) -> torch.Tensor:
        policy.set_training_mode(False)
        policy.quantile_net.net.disable_noise()
        rows = [policy.obs_to_tensor(observation)[0] for observation in observations]
        with torch.no_grad():
            return torch.cat([policy.quantile_net(row) for row in rows])

    before = values(model.policy)
    model.save(tmp_path / "model.zip")
    assert torch.equal(values(QRDQN.load(tmp_path / "model.zip").policy), before)
    model.policy.save(tmp_path / "policy.pt")
    assert torch.equal(values(IQNPolicy.load(tmp_path / "policy.pt")), before)

    net = model.quantile_net.net
    net.save_pretrained(tmp_path / "net")
    twin = iqn_blocks.from_pretrained(tmp_path / "net")
    inputs = net.example_inputs(4)
    assert torch.equal(twin.q_values(*inputs), net.q_values(*inputs))


def test_the_target_follows_spectral_norm() -> None:
    vis = {"cnn": {"use_impala_cnn": True, "impala_model_size": 1, "use_spectral_norm": True}}
    model = make(config={"nn": {"vis": vis, "decoder": {"dense_hidden_dimension": 8}}})
    model.learn(70)
    online, target = model.quantile_net.net, model.quantile_net_target.net
    for parameter in online.parameters():  # as if updates had moved them
        parameter.data.mul_(1 + torch.rand_like(parameter))
    model.target_update_interval = 1
    model._on_step()  # hands the parameters over, and no u and v
    img, floats = target.example_inputs(2)
    with torch.no_grad():
        for _ in range(60):
            target(img, floats, 2)
    computed, largest = sigmas(target)
    np.testing.assert_allclose(computed, largest, rtol=0.02)


@pytest.mark.parametrize("high", [1.0, np.inf])
def test_floating_images_that_are_never_negative(high: float) -> None:
    from iqn_blocks.interop.sb3 import IQNExtractor, IQNPolicy

    space = spaces.Box(0.0, high, (2, 36, 36))
    message = r"float32 from 0 to (1|inf), taken as it is; .* expects -1 for black .* dtype uint8"
    for make_one in (
        lambda: IQNPolicy(space, spaces.Discrete(2), lambda _: 1e-3, config=SMALL),
        lambda: IQNExtractor(space, **SMALL),
    ):
        with pytest.warns(UserWarning, match=message) as found:
            make_one()
        assert len(found) == 1


@pytest.mark.parametrize(
    ("space", "config", "message"),
    [
        (spaces.Dict(a=IMAGE, b=IMAGE), {}, "found the images 'a', 'b'; accepted: one image"),
        (
            spaces.Box(0, 255, (2, 36, 36)),
            {},
            r"image of float32 from 0 to 255; accepted: uint8, or .* about \[-1, 1\]; .* wrapper",
        ),
        (VECTOR, {"nn": {"core": "gru"}}, "nn.core: found a core; accepted: null"),
        (VECTOR, {"n_actions": 3}, "n_actions: found 3 in the overrides, but the spaces give 2"),
        (VECTOR, {"nnn": {}}, "nnn: unknown key"),
        (
            VECTOR,
            {"nn": {"iqn": {"fractions": "fqf"}}},
            r"nn\.iqn\.fractions: found 'fqf'; .*leave the key out, or train in a loop of your own",
        ),
    ],
)
def test_what_does_not_fit(space: Any, config: Any, message: str) -> None:
    from iqn_blocks.interop.sb3 import IQNPolicy

    with pytest.raises(iqn_blocks.ConfigError, match=message):
        IQNPolicy(space, spaces.Discrete(2), lambda _: 1e-3, config=config)
