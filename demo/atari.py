"""An Atari game as (image, floats): the grayscale frame at 64×64 and the 128 bytes of RAM."""

from __future__ import annotations

from typing import NamedTuple

import ale_py
import gymnasium
import numpy as np
import torch
from ale_py.env import AtariEnv
from torch import Tensor
from torch.nn import functional as F


class Observation(NamedTuple):
    """What a network reads, as a batch of one, and the frame as the console drew it."""

    img: Tensor  # (1, 1, 64, 64) uint8
    floats: Tensor  # (1, 128) float32, raw bytes
    screen: np.ndarray  # (210, 160) uint8


class Atari:
    """One game, started again whenever an episode ends."""

    def __init__(self, game: str, seed: int) -> None:
        gymnasium.register_envs(ale_py)
        self.env = gymnasium.make(f"ALE/{game}-v5", obs_type="grayscale")
        self.env.action_space.seed(seed)
        console = self.env.unwrapped
        assert isinstance(console, AtariEnv)
        self.console = console
        self.actions = console.get_action_meanings()
        self.seed = seed

    def reset(self) -> Observation:
        """Start the first episode, the same at each call."""
        screen, _ = self.env.reset(seed=self.seed)
        return self._observe(screen)

    def step(self, action: int) -> Observation:
        """Play one action; the observation after the end of an episode starts the next."""
        screen, _, terminated, truncated, _ = self.env.step(action)
        if terminated or truncated:
            screen, _ = self.env.reset()
        return self._observe(screen)

    def random_step(self) -> Observation:
        """Play a random action."""
        return self.step(int(self.env.action_space.sample()))

    def _observe(self, screen: np.ndarray) -> Observation:
        pixels = torch.from_numpy(screen)[None, None].float()
        img = F.interpolate(pixels, size=(64, 64), mode="bilinear", antialias=True)
        ram = torch.from_numpy(self.console.ale.getRAM())[None].float()
        return Observation(img.round().to(torch.uint8), ram, screen)


def measure_float_stats(game: Atari, steps: int) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation (F,) of the RAM over random play; a constant byte gets 1."""
    game.reset()
    ram = torch.cat([game.random_step().floats for _ in range(steps)])
    std = ram.std(dim=0)
    return ram.mean(dim=0), torch.where(std > 0, std, torch.ones_like(std))
