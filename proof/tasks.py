"""What networks learn: where transitions come from, and how well a network does."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

import iqn_blocks
from docs.examples import known_distribution as known
from docs.examples import pixels_and_floats as boards
from iqn_blocks.diagnostics import crossing_rate
from iqn_blocks.functional import split_quantiles
from iqn_blocks.recurrent import RecurrentIQN

Observation = tuple[Tensor | None, Tensor | None]  # img and floats, as a network takes them
Act = Callable[[Tensor], Tensor]  # observations of environments to actions
Metrics = dict[str, float]


class Batch(NamedTuple):
    """Transitions. Observations are ``(B, …)``, or ``(T, B, …)`` of sequences; the rest is flat.

    ``discount`` is ``γ · (1 − terminated)``. Without ``following``, each step of a sequence is
    followed by the next one, and the last by none.
    """

    now: Observation
    action: Tensor
    reward: Tensor
    discount: Tensor
    following: Observation | None


class Task(Protocol):
    """Transitions to learn from, and measures of what was learned; the first one is the score."""

    sizes: Mapping[str, Any]  # keys of the configuration that the task decides

    def step(self, net: iqn_blocks.IQN, epsilon: float) -> None:
        """One step of the environment, if there is one."""

    def batch(self, size: int) -> Batch:
        """Transitions for an update."""

    def evaluate(self, net: iqn_blocks.IQN, *, final: bool) -> Metrics:
        """What the network, without noise, has learned; more exactly at the end."""


class KnownDistribution:
    """The example of that name: distances to a return distribution that is known."""

    sizes: Mapping[str, Any] = {
        "n_actions": 2,
        "float_input_dim": 3,
        "nn": {"vis": {"no_image": True}},
    }

    def __init__(self, seed: int) -> None: ...

    def step(self, net: iqn_blocks.IQN, epsilon: float) -> None:
        """Transitions are drawn."""

    def batch(self, size: int) -> Batch:
        state, action, reward, discount, following = known.transitions()
        now, then = known.ONE_HOT[state], known.ONE_HOT[following]
        return Batch((None, now), action, reward, discount, (None, then))

    @torch.no_grad()
    def evaluate(self, net: iqn_blocks.IQN, *, final: bool) -> Metrics:
        start, levels = known.ONE_HOT[[known.START]], known.LEVELS
        learned, distances = known.measure(net)
        crossings = crossing_rate(learned[None], levels.T)
        # The staircase that acting averages over: K values, each for its slice of levels.
        edges = torch.linspace(0, 1, net.n + 1)
        if net.fractions is not None:
            edges = net.propose(net.encode(None, start)).tau[0]
        middles = ((edges[:-1] + edges[1:]) / 2)[:, None]
        values = split_quantiles(net(None, start, net.n, middles)[0], net.n)[0]
        stairs = values[torch.searchsorted(edges[1:-1].contiguous(), levels[:, 0])]
        off = (stairs - known.true_quantiles(levels)).abs().mean(0)
        return {
            "W1": distances.mean().item(),
            "W1 safe": distances[known.SAFE].item(),
            "W1 risky": distances[known.RISKY].item(),
            "W1 of K steps": off.mean().item(),
            "crossings at K": (values.diff(dim=0) < 0).float().mean().item(),
            "crossings": crossings.item(),
        }


class Boards:
    """The example with pixels and a number: the share of all boards that are solved."""

    sizes: Mapping[str, Any] = {
        "n_actions": len(boards.MOVES),
        "float_input_dim": 1,
        "nn": {"vis": {**boards.IMAGE}},
    }

    def __init__(self, seed: int) -> None:
        self._sees_both = iqn_blocks.build(boards.config(1, boards.IMAGE))

    def step(self, net: iqn_blocks.IQN, epsilon: float) -> None:
        """Transitions are drawn."""

    def batch(self, size: int) -> Batch:
        board = boards.BOARDS[torch.randint(len(boards.BOARDS), (size,))]
        action = torch.randint(len(boards.MOVES), (size,))
        after, reward, ended = boards.move(board, action)
        now, following = (boards.observe(b, self._sees_both) for b in (board, after))
        return Batch(now, action, reward, boards.GAMMA * (~ended).float(), following)

    def evaluate(self, net: iqn_blocks.IQN, *, final: bool) -> Metrics:
        return {"solved": boards.solved(net)}


class Recall:
    """A cue is shown once; ``delay`` steps of noise later the action of that name is rewarded.

    Floats: the cue (−1 or 1 at the first step, else 0), a signal to answer (1 at the last step) and
    noise. The right answer pays 1 and the wrong one −1, and what is done before does not matter. No
    network without memory can be right more often than half of the time.
    """

    sizes: Mapping[str, Any] = {
        "n_actions": 2,
        "float_input_dim": 3,
        "nn": {"vis": {"no_image": True}},
    }

    def __init__(self, seed: int, delay: int) -> None:
        self.delay = delay

    def step(self, net: iqn_blocks.IQN, epsilon: float) -> None:
        """Episodes are drawn."""

    def _episodes(self, size: int) -> tuple[Tensor, Tensor]:
        """Observations ``(T, B, 3)`` and cues ``(B,)``, 0 or 1."""
        cue = torch.randint(2, (size,))
        floats = torch.zeros(self.delay + 2, size, 3)
        floats[0, :, 0] = 2.0 * cue - 1
        floats[-1, :, 1] = 1
        floats[..., 2] = torch.randn(floats.shape[:2])
        return floats, cue

    def batch(self, size: int) -> Batch:
        floats, cue = self._episodes(size)
        action = torch.randint(2, floats.shape[:2])
        reward, discount = torch.zeros(action.shape), torch.ones(action.shape)
        reward[-1] = 2.0 * (action[-1] == cue) - 1
        discount[-1] = 0
        return Batch((None, floats), action.flatten(), reward.flatten(), discount.flatten(), None)

    @torch.no_grad()
    def evaluate(self, net: iqn_blocks.IQN, *, final: bool) -> Metrics:
        floats, cue = self._episodes(1000)
        if isinstance(net, RecurrentIQN):
            answer = net.q_values(None, floats).q[-1].argmax(-1)
        else:
            answer = net.q_values(None, floats[-1]).argmax(-1)
        return {"right": (answer == cue).float().mean().item()}


class Episodes:
    """Steps of gymnasium environments with ε-greedy actions, kept in a replay buffer.

    An observation of three dimensions is an image, channels last; one of one dimension is floats.
    """

    def __init__(self, seed: int, env: str, buffer: int, gamma: float, envs: int = 1) -> None:
        self.env, self.gamma = env, gamma
        self._envs = make_envs(env, envs)
        space = self._envs.single_observation_space
        shape = space.shape
        self.is_image = len(shape) == 3
        vis: dict[str, Any] = {"no_image": True}
        if self.is_image:
            height, width, channels = shape
            vis = {"in_channels": channels, "image_size": {"width": width, "height": height}}
        self.sizes: Mapping[str, Any] = {
            "n_actions": int(self._envs.single_action_space.n),
            "float_input_dim": 0 if self.is_image else shape[0],
            "nn": {"vis": vis},
        }
        self._obs = self._envs.reset(seed=seed)[0]
        self._now, self._following = (np.zeros((buffer, *shape), space.dtype) for _ in range(2))
        self._action = np.zeros(buffer, np.int64)
        self._reward, self._discount = (np.zeros(buffer, np.float32) for _ in range(2))
        self._count = 0

    def observe(self, obs: Any) -> Observation:
        """As a network takes them."""
        seen = torch.from_numpy(obs).float()
        return (seen.permute(0, 3, 1, 2), None) if self.is_image else (None, seen)

    @torch.no_grad()
    def step(self, net: iqn_blocks.IQN, epsilon: float) -> None:
        net.reset_noise()
        random = torch.rand(len(self._obs)) < epsilon
        action = torch.randint(net.n_actions, (len(self._obs),))
        if not random.all():
            action = torch.where(random, action, net.q_values(*self.observe(self._obs)).argmax(-1))
        obs, reward, terminated, truncated, info = self._envs.step(action.numpy())
        following = obs.copy()
        for i in np.flatnonzero(terminated | truncated):
            following[i] = info["final_obs"][i]
        # A time limit does not end the future: it is no part of what is observed.
        index = np.arange(self._count, self._count + len(obs)) % len(self._action)
        self._now[index], self._following[index] = self._obs, following
        self._action[index], self._reward[index] = action, reward
        self._discount[index] = self.gamma * ~terminated
        self._count += len(obs)
        self._obs = obs.copy()

    def batch(self, size: int) -> Batch:
        index = torch.randint(min(self._count, len(self._action)), (size,)).numpy()
        action, reward, discount = (
            torch.from_numpy(x[index]) for x in (self._action, self._reward, self._discount)
        )
        now, following = self.observe(self._now[index]), self.observe(self._following[index])
        return Batch(now, action, reward, discount, following)

    @torch.no_grad()
    def evaluate(self, net: iqn_blocks.IQN, *, final: bool) -> Metrics:
        net.disable_noise()

        def act(obs: Any) -> Any:
            return net.q_values(*self.observe(obs)).argmax(-1).numpy()

        return {"return": mean_return(self.env, act, final=final)}


def make_envs(env: str, count: int) -> Any:
    """Environments that are reset in the step that ends an episode."""
    import gymnasium

    if env.startswith("MinAtar/") and env not in gymnasium.registry:
        from minatar.gym import register_envs

        register_envs()
    mode = gymnasium.vector.AutoresetMode.SAME_STEP
    return gymnasium.make_vec(
        env, count, vectorization_mode="sync", vector_kwargs={"autoreset_mode": mode}
    )


def mean_return(env: str, act: Callable[[Any], Any], *, final: bool) -> float:
    """Of 150 episodes at the end, of 20 on the way; no seed of one is one of the other's."""
    count, seed = (150, 20_000) if final else (20, 10_000)
    envs = make_envs(env, count)
    obs = envs.reset(seed=seed)[0]
    running, total = np.ones(count, bool), 0.0
    while running.any():
        obs, reward, terminated, truncated, _ = envs.step(act(obs))
        total += float(reward[running].sum())
        running &= ~(terminated | truncated)
    envs.close()
    return total / count


TASKS: dict[str, Callable[..., Task]] = {
    "known_distribution": KnownDistribution,
    "boards": Boards,
    "recall": Recall,
    "episodes": Episodes,
}
