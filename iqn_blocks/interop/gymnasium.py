"""From gymnasium spaces to a configuration."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from iqn_blocks.config import Config, parse
from iqn_blocks.errors import ConfigError
from iqn_blocks.plain import show

_UNBOUNDED = 1e30  # floats without bounds have infinite ones, or the dtype's largest number


def config_from_env(env: Any, **overrides: Any) -> Config:
    """A configuration whose inputs and actions fit an environment, vectorised or not.

    A vectorised one has these spaces as ``single_observation_space`` and ``single_action_space``.
    ``overrides`` and errors are those of :func:`config_from_spaces`.
    """
    observations = getattr(env, "single_observation_space", env.observation_space)
    actions = getattr(env, "single_action_space", env.action_space)
    return config_from_spaces(observations, actions, **overrides)


def config_from_spaces(observation_space: Any, action_space: Any, **overrides: Any) -> Config:
    """A configuration whose inputs and actions fit two gymnasium spaces of one environment.

    Observations: ``Box`` of rank 1, the float vector; ``Box`` of rank 3 ``(C, H, W)`` or rank 2
    ``(H, W)``, the image; or a ``Dict`` of one of each under any keys. Actions: ``Discrete(A)``, or
    ``MultiDiscrete`` of one axis, whose sizes are a list in ``n_actions``.

    ``overrides`` are further top-level keys (``nn={…}``, ``btr={…}``), laid over the derived ones
    block by block.

    Raises:
        ConfigError: a space of another kind or shape, the spaces of a vectorised environment, or an
            override of what the spaces decide.
    """
    _refuse_vectorised(observation_space, action_space)
    derived = {**_actions(action_space), **_observations(observation_space)}
    return parse(_merge(derived, overrides, ""))


def _refuse_vectorised(observation_space: Any, action_space: Any) -> None:
    """Refuse spaces that look as if they held a row for each of several environments.

    All pixels of an image have the same finite bounds; the entries of a vector often have not. With
    as many rows as actions, an observation may come from ``N`` environments, or be an image of
    ``N`` rows beside blocks of ``N`` actions. An image of up to four channels counts as a frame
    stack.
    """
    from gymnasium import spaces

    boxes = [box for box in _entries(observation_space) if isinstance(box, spaces.Box)]
    rows = {box.shape[0] if len(box.shape) > 1 else 0 for box in boxes}
    sizes: Any = action_space.nvec if isinstance(action_space, spaces.MultiDiscrete) else []
    is_stack = len(boxes) == 1 and len(boxes[0].shape) == 3 and len(sizes) <= 4
    as_many = len(sizes) > 0 and rows == {len(sizes)} and not is_stack
    vectors = [box for box in boxes if len(box.shape) == 2 and not _looks_like_pixels(box)]
    if as_many or vectors or any(len(box.shape) > 3 for box in boxes):
        raise ConfigError(
            f"observation_space: found {show(observation_space)} with {show(action_space)}, which "
            f"looks like the spaces of a vectorised environment; accepted: those of one "
            f"environment; take env.single_observation_space and env.single_action_space, or "
            f"config_from_env(env); if it is an image all the same, write nn.vis yourself"
        )


def _looks_like_pixels(box: Any) -> bool:
    low, high = box.low.min(), box.high.max()
    is_bounded = abs(low) < _UNBOUNDED and high < _UNBOUNDED
    return bool(is_bounded and (box.low == low).all() and (box.high == high).all())


def _entries(space: Any) -> list[Any]:
    from gymnasium import spaces

    return list(space.spaces.values()) if isinstance(space, spaces.Dict) else [space]


def _actions(space: Any) -> dict[str, Any]:
    from gymnasium import spaces

    if isinstance(space, spaces.Discrete):
        return {"n_actions": int(space.n)}
    if isinstance(space, spaces.MultiDiscrete) and space.nvec.ndim == 1:
        return {"n_actions": space.nvec.tolist()}
    raise ConfigError(
        f"action_space: found {space!r}; accepted are Discrete, and MultiDiscrete with one axis; "
        f"wrap the environment to have one"
    )


def _observations(space: Any) -> dict[str, Any]:
    from gymnasium import spaces

    entries = _entries(space)
    boxes = [box for box in entries if isinstance(box, spaces.Box)]
    vectors = [box for box in boxes if len(box.shape) == 1]
    images = [box for box in boxes if len(box.shape) in (2, 3)]
    if len(vectors) > 1 or len(images) > 1 or len(vectors) + len(images) != len(entries):
        raise ConfigError(
            f"observation_space: found {space!r}; accepted are a Box of rank 1 (floats), of rank 2 "
            f"or 3 (an image), or a Dict of one of each; wrap the environment to give these"
        )
    vis = _image(images[0]) if images else {"no_image": True}
    return {"float_input_dim": vectors[0].shape[0] if vectors else 0, "nn": {"vis": vis}}


def _image(box: Any) -> dict[str, Any]:
    channels, height, width = box.shape if len(box.shape) == 3 else (1, *box.shape)
    if width <= 4 < channels:
        raise ConfigError(
            f"observation_space: found an image of shape {box.shape}, which looks like (H, W, C); "
            f"accepted is (C, H, W); transpose it in a wrapper of the environment"
        )
    return {"in_channels": channels, "image_size": {"width": width, "height": height}}


def _merge(derived: dict[str, Any], overrides: Mapping[str, Any], above: str) -> dict[str, Any]:
    merged = dict(derived)
    for key, value in overrides.items():
        own = derived.get(key)
        if isinstance(own, dict) and isinstance(value, Mapping):
            merged[key] = _merge(own, value, f"{above}{key}.")
        elif own is not None and own != value:
            raise ConfigError(
                f"{above}{key}: found {value!r} in the overrides, but the spaces give {own!r}; "
                f"leave the key out"
            )
        else:
            merged[key] = value
    return merged
