"""Our networks in stable-baselines3: a features extractor, and a policy for sb3-contrib's QRDQN."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from sb3_contrib.qrdqn.policies import QRDQNPolicy, QuantileNetwork
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.preprocessing import (
    get_flattened_obs_dim,
    is_image_space,
    preprocess_obs,
)
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor, CombinedExtractor
from torch import Tensor, nn

from iqn_blocks.blocks import SpectralNormConv2d
from iqn_blocks.build import build
from iqn_blocks.errors import ConfigError
from iqn_blocks.functional import midpoints
from iqn_blocks.interop.gymnasium import config_from_spaces
from iqn_blocks.network import IQN
from iqn_blocks.recurrent import RecurrentIQN

Observation = Tensor | dict[str, Tensor]


class IQNExtractor(CombinedExtractor):
    """State encoder of a network as a features extractor, for any algorithm: ``(B, …) -> (B, D)``.

    The observation space gives the sizes of the inputs: an image ``(C, H, W)`` or ``(H, W)``, such
    as a frame stack, and all other entries, joined as floats. Images of a uint8 space are scaled as
    ``nn.vis.uint8_scaling`` says, whether or not sb3 has divided them by 255; images of a floating
    space must be scaled already, to about [−1, 1].

    Args:
        observation_space: a Box, or a Dict with at most one image.
        normalized_image: sb3 sets it where the policy has ``normalize_images=False``.
        keys: keys of the configuration that the space does not decide, such as ``nn={…}``.

    Warns:
        UserWarning: an image of floating numbers that are never negative, such as 0 to 1.

    Raises:
        ConfigError: a space with several images or one of floating numbers up to 255, a key that is
            not valid.
    """

    # sb3 passes normalized_image to a CombinedExtractor alone.
    def __init__(
        self, observation_space: spaces.Space[Any], normalized_image: bool = False, **keys: Any
    ) -> None:
        net = _build(observation_space, spaces.Discrete(2), keys)
        _warn_of_range(observation_space)
        BaseFeaturesExtractor.__init__(self, observation_space, net.state_dim)
        self.encoder = net.encoder
        self.reader = _Reader(observation_space, divided=not normalized_image)

    def forward(self, observations: Observation) -> Tensor:
        state: Tensor = self.encoder(*self.reader(observations))
        return state


class IQNPolicy(QRDQNPolicy):
    """The policy of sb3-contrib's ``QRDQN`` with a network of ours at fixed midpoints of τ.

    Noise of noisy layers is drawn at each update, in the online and the target network, and at each
    step that explores; ``predict(deterministic=True)`` is without noise. ``quantile_net.net`` is
    the network, to save or to export without sb3.

    Args:
        observation_space: as for :class:`IQNExtractor`.
        action_space: ``Discrete``.
        lr_schedule: sb3's.
        n_quantiles: number of midpoints ``K``.
        config: keys of the configuration that the spaces do not decide, such as ``{"nn": {…}}``.
        normalize_images: sb3's; it does not change what the network sees.
        optimizer_class: sb3's.
        optimizer_kwargs: sb3's.

    Warns:
        UserWarning: as :class:`IQNExtractor`.

    Raises:
        ConfigError: spaces or keys that do not fit, or a network with memory or with proposed
            fractions.
    """

    action_space: spaces.Discrete
    quantile_net: IQNQuantileNetwork
    quantile_net_target: IQNQuantileNetwork

    def __init__(
        self,
        observation_space: spaces.Space[Any],
        action_space: spaces.Discrete,
        lr_schedule: Any,
        n_quantiles: int = 32,
        config: Mapping[str, Any] | None = None,
        normalize_images: bool = True,
        optimizer_class: type[torch.optim.Optimizer] = torch.optim.Adam,
        optimizer_kwargs: dict[str, Any] | None = None,
    ) -> None:
        self.config = dict(config or {})
        super().__init__(
            observation_space,
            action_space,
            lr_schedule,
            n_quantiles,
            normalize_images=normalize_images,
            optimizer_class=optimizer_class,
            optimizer_kwargs=optimizer_kwargs,
        )
        _warn_of_range(observation_space)

    def make_quantile_net(self) -> IQNQuantileNetwork:
        """A new network."""
        net: IQNQuantileNetwork = IQNQuantileNetwork(
            self.observation_space,
            self.action_space,
            self.n_quantiles,
            self.config,
            self.normalize_images,
        ).to(self.device)
        return net

    def _build(self, lr_schedule: Any) -> None:
        super()._build(lr_schedule)
        self.quantile_net_target.noise_at_each_call = True
        for module in self.quantile_net_target.modules():
            # sb3 copies parameters to the target network, but no buffers.
            if isinstance(module, SpectralNormConv2d):
                module.iterate_in_eval = True

    def _predict(self, obs: Observation, deterministic: bool = True) -> Tensor:
        net = self.quantile_net.net
        if deterministic:
            net.disable_noise()
        else:
            net.reset_noise()
        action: Tensor = self.quantile_net._predict(obs, deterministic=deterministic)
        return action

    def _get_constructor_parameters(self) -> dict[str, Any]:
        values = {**super()._get_constructor_parameters(), "config": self.config}
        return {name: values[name] for name in inspect.signature(IQNPolicy).parameters}


class IQNQuantileNetwork(QuantileNetwork):
    """Online and target network of :class:`IQNPolicy`: observations to quantiles ``(B, K, A)``."""

    def __init__(
        self,
        observation_space: spaces.Space[Any],
        action_space: spaces.Discrete,
        n_quantiles: int,
        config: Mapping[str, Any],
        normalize_images: bool,
    ) -> None:
        BasePolicy.__init__(
            self, observation_space, action_space, normalize_images=normalize_images
        )
        self.n_quantiles = n_quantiles
        self.noise_at_each_call = False
        self.net = _build(observation_space, action_space, config)
        if self.net.fractions is not None:
            raise ConfigError(
                "nn.iqn.fractions: found 'fqf'; accepted: 'sampled', the default; QRDQN's loss has "
                "fixed midpoints and never trains the layer that proposes fractions; leave the key "
                "out, or train in a loop of your own with fraction_loss"
            )
        self.reader = _Reader(observation_space, divided=normalize_images)

    def forward(self, obs: Observation) -> Tensor:
        if self.training or self.noise_at_each_call:
            self.net.reset_noise()
        seen = preprocess_obs(obs, self.observation_space, self.normalize_images)
        img, floats = self.reader(seen)
        tau = midpoints(self.n_quantiles, device=self.net.device)
        quantiles, _ = self.net.quantiles(img, floats, self.n_quantiles, tau)
        return quantiles


class _Reader(nn.Module):
    """``(img, floats)`` of observations that went through sb3's preprocessing."""

    def __init__(self, space: spaces.Space[Any], *, divided: bool) -> None:
        super().__init__()
        entries, self.image_key = _entries(space)
        self.vector_keys = [key for key in entries if key != self.image_key]
        image = None if self.image_key is None else entries[self.image_key]
        self.is_uint8 = image is not None and image.dtype == np.uint8
        self.is_divided = divided and image is not None and is_image_space(image)

    def forward(self, observations: Observation) -> tuple[Tensor | None, Tensor | None]:
        given = observations if isinstance(observations, dict) else {"": observations}
        img = floats = None
        if self.image_key is not None:
            img = given[self.image_key]
            img = img.unsqueeze(1) if img.ndim == 3 else img
            if self.is_uint8:
                img = (255 * img if self.is_divided else img).round().to(torch.uint8)
        if self.vector_keys:
            floats = torch.cat([given[key].flatten(1) for key in self.vector_keys], dim=1)
        return img, floats


def _build(space: spaces.Space[Any], actions: spaces.Space[Any], keys: Mapping[str, Any]) -> IQN:
    """The network for the inputs that :class:`_Reader` gives."""
    entries, key = _entries(space)
    if key is not None:
        _check_range(entries[key])
    inputs = {} if key is None else {"image": entries[key]}
    n_floats = sum(get_flattened_obs_dim(box) for name, box in entries.items() if name != key)
    if n_floats:
        inputs["floats"] = spaces.Box(-np.inf, np.inf, (n_floats,))
    net = build(config_from_spaces(spaces.Dict(inputs), actions, **keys))
    if isinstance(net, RecurrentIQN):
        raise ConfigError(
            "nn.core: found a core; accepted: null; sb3 keeps no memory for it, use frame stacks"
        )
    return net


def _warn_of_range(space: spaces.Space[Any]) -> None:
    """Say that black is -1 for the network where floating images are never negative."""
    entries, key = _entries(space)
    image = None if key is None else entries[key]
    if not isinstance(image, spaces.Box) or image.dtype == np.uint8 or image.low.min() < 0:
        return
    warnings.warn(
        f"observation_space: found an image of {image.dtype} from {image.low.min():g} to "
        f"{image.high.max():g}, taken as it is; the network expects -1 for black and 1 for white; "
        "give the space and the image the dtype uint8, or the range -1 … 1, in a wrapper of the "
        "environment",
        UserWarning,
        stacklevel=3,
    )


def _check_range(image: spaces.Space[Any]) -> None:
    """Refuse floating images up to 255: sb3 scales only uint8 ones."""
    assert isinstance(image, spaces.Box)
    low, high = image.low.min(), image.high.max()
    if image.dtype != np.uint8 and np.isfinite([low, high]).all() and max(-low, high) > 16:
        raise ConfigError(
            f"observation_space: found an image of {image.dtype} from {low:g} to {high:g}; "
            f"accepted: uint8, or floating numbers scaled to about [-1, 1]; where they are 0 … 255 "
            f"give the space and the image the dtype uint8 in a wrapper of the environment"
        )


def _entries(space: spaces.Space[Any]) -> tuple[Mapping[str, spaces.Space[Any]], str | None]:
    """The entries of an observation space, and the key of its image."""
    entries = space.spaces if isinstance(space, spaces.Dict) else {"": space}
    keys = [
        key for key, box in entries.items() if isinstance(box, spaces.Box) and len(box.shape) > 1
    ]
    if len(keys) > 1:
        raise ConfigError(
            f"observation_space: found the images {', '.join(map(repr, keys))}; accepted: one "
            f"image beside floats; stack them as channels in a wrapper of the environment"
        )
    return entries, keys[0] if keys else None
