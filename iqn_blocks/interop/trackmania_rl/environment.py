"""Float inputs of trackmania_rl, as its blocks ``environment`` and ``state_normalization`` say.

The observation is, in this order: the distance to the horizon in actions, the previous actions,
flags and gear of the car, its motion, the way-points ahead (zone centres), the distance to the
finish and one flag.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from typing import Any

from iqn_blocks.plain import PlainData, freeze, from_numpy, show

OFFSETS = "rl_action_offsets_ms"
OFFSET_STEP = 10  # ms
WAYPOINT_LISTS = ("waypoint_mean_40cp", "waypoint_std_40cp")
LISTED_WAYPOINTS = 40
MAX_COUNT = 65_536

# Keys of `environment` that are read, with the value that an absent one has.
DEFAULTS: Mapping[str, Any] = {
    "n_zone_centers_in_inputs": 40,
    "n_prev_actions_in_inputs": 5,
    "n_contact_material_physics_behavior_types": 4,
    "temporal_mini_race_duration_ms": 7000,
    "ms_per_tm_engine_step": 10,
    "tm_engine_step_per_action": 5,
    "margin_to_announce_finish_meters": 700,
    OFFSETS: [0],
}
_COUNTS = tuple(DEFAULTS)[:3]

Moments = list[tuple[float, float]]  # mean and standard deviation of each input


def environment_faults(given: Mapping[str, Any]) -> list[str]:
    """What is wrong with the keys of both blocks that the float inputs follow from."""
    faults = []
    for block in ("environment", "state_normalization"):
        found = given.get(block)
        if found is not None and not isinstance(found, Mapping):
            faults.append(f"{block}: found {show(found)}; accepted: a block of keys")
    if faults:
        return faults
    environment = given.get("environment") or {}
    faults = [*_misspelled(environment), *_faulty_values(environment)]
    if faults:
        return faults
    actions = _horizon(environment)
    if actions < 2:
        faults.append(
            f"environment.temporal_mini_race_duration_ms: found {actions} actions of "
            f"{_ms_per_action(environment)} ms in it; accepted: 2 or more"
        )
    n_waypoints = _values(environment)["n_zone_centers_in_inputs"]
    return [*faults, *_faulty_waypoints(given.get("state_normalization") or {}, n_waypoints)]


def lacks_waypoints(given: Mapping[str, Any]) -> bool:
    """Whether there are way-points whose statistics the file does not give."""
    n_waypoints = _values(given.get("environment") or {})["n_zone_centers_in_inputs"]
    return n_waypoints > 0 and not _given_lists(given.get("state_normalization") or {})


def float_inputs(given: Mapping[str, Any]) -> dict[str, Any]:
    """``float_input_dim``, ``float_inputs_mean``, ``float_inputs_std``, ``n_actions_per_block``.

    The blocks must be without :func:`environment_faults`. Way-points whose statistics are not given
    have mean 0 and standard deviation 1.
    """
    environment = given.get("environment") or {}
    moments = float_moments(environment, given.get("state_normalization") or {})
    return {
        "float_input_dim": len(moments),
        "float_inputs_mean": [mean for mean, _ in moments],
        "float_inputs_std": [std for _, std in moments],
        "n_actions_per_block": len(_values(environment)[OFFSETS]),
    }


def float_moments(environment: Mapping[str, Any], normalization: Mapping[str, Any]) -> Moments:
    """Mean and standard deviation of every float input, in order."""
    values = _values(environment)
    half_horizon = _horizon(environment) // 2
    margin = values["margin_to_announce_finish_meters"]
    previous_action = [(0.8, 0.5), (0.2, 0.5), (0.3, 0.5), (0.3, 0.5)]
    wheels = [(0.1, 0.5)] * 4 + [(0.9, 0.5)] * 4 + [(0.02, 0.5)] * 4
    gear = [(0.3, 1), (2.5, 2), (7000, 3000), (0.1, 10)]
    contacts = [(0.5, 0.5)] * (4 * values["n_contact_material_physics_behavior_types"])
    angular_velocity = [(0, 0.5), (0, 1), (0, 0.5)]
    velocity = [(0, 5), (0, 5), (55, 20)]
    up = [(0, 0.5), (1, 0.5), (0, 0.5)]
    return [
        (half_horizon, half_horizon),
        *previous_action * values["n_prev_actions_in_inputs"],
        *wheels,
        *gear,
        *contacts,
        *angular_velocity,
        *velocity,
        *up,
        *_waypoints(normalization, values["n_zone_centers_in_inputs"]),
        (margin, margin / 2),
        (0, 1),
    ]


def _waypoints(normalization: Mapping[str, Any], count: int) -> Moments:
    lists = _given_lists(normalization)
    if not lists:
        return [(0, 1)] * (3 * count)
    mean, std = lists
    further = [(mean[-3], 50), (0, 50), (0, 50)] * max(0, count - LISTED_WAYPOINTS)
    return [*zip(mean, std, strict=False)][: 3 * count] + further


def _given_lists(normalization: Mapping[str, Any]) -> list[Any]:
    """Mean and standard deviation as the file has them; nothing where it has neither."""
    lists = [freeze(normalization.get(key)) for key in WAYPOINT_LISTS]
    return [] if lists == [None, None] else lists


def _values(environment: Mapping[str, Any]) -> dict[str, Any]:
    return {key: from_numpy(environment.get(key, default)) for key, default in DEFAULTS.items()}


def _ms_per_action(environment: Mapping[str, Any]) -> int:
    """Duration of an action; with several offsets, of a block of actions."""
    values = _values(environment)
    offsets = len(values[OFFSETS])
    steps = offsets if offsets > 1 else values["tm_engine_step_per_action"]
    return int(steps * values["ms_per_tm_engine_step"])


def _horizon(environment: Mapping[str, Any]) -> int:
    """Actions, or blocks of actions, until the horizon."""
    duration = _values(environment)["temporal_mini_race_duration_ms"]
    return int(duration // _ms_per_action(environment))


def _faulty_values(environment: Mapping[str, Any]) -> Iterator[str]:
    for key, value in _values(environment).items():
        whole = isinstance(value, int) and not isinstance(value, bool)
        if key == OFFSETS:
            expected = [OFFSET_STEP * i for i in range(_length(value))]
            valid = expected != [] and list(value) == expected
            accepted = "a list of 0, 10, 20, …, as many as a block has actions"
        elif key in _COUNTS:
            valid, accepted = whole and 0 <= value <= MAX_COUNT, f"a whole number 0 … {MAX_COUNT}"
        elif key == "margin_to_announce_finish_meters":
            number = whole or isinstance(value, float)
            valid, accepted = number and 0 < value < float("inf"), "a number above 0"
        else:
            valid, accepted = whole and value >= 1, "a whole number >= 1"
        if not valid:
            yield f"environment.{key}: found {show(value)}; accepted: {accepted}"


def _length(value: object) -> int:
    return len(value) if isinstance(value, list | tuple) else 0


def _misspelled(environment: Mapping[str, Any]) -> Iterator[str]:
    """Keys that may be left out must not be lost to a slip; all other keys are the trainer's."""
    absent = [key for key in DEFAULTS if key not in environment]
    for key in environment:
        near = difflib.get_close_matches(str(key), absent, 1, cutoff=0.9)
        if near and key not in DEFAULTS:
            yield f"environment.{key}: unknown key; did you mean {near[0]}?"


def _faulty_waypoints(normalization: Mapping[str, Any], count: int) -> Iterator[str]:
    """What is wrong with the two lists, of which the first three numbers a way-point are read."""
    if all(normalization.get(key) is None for key in WAYPOINT_LISTS) or count == 0:
        return
    needed = 3 * min(count, LISTED_WAYPOINTS)
    for key in WAYPOINT_LISTS:
        path, given = f"state_normalization.{key}", normalization.get(key)
        try:
            numbers = freeze(given)
        except PlainData as error:
            yield f"{path}: {error}"
            continue
        if not isinstance(numbers, tuple):
            yield f"{path}: found {show(numbers)}; accepted: a list of {needed} numbers or more"
        elif len(numbers) < needed or (count > LISTED_WAYPOINTS and len(numbers) != needed):
            or_more = "" if count > LISTED_WAYPOINTS else " or more"
            yield (
                f"{path}: found {len(numbers)} numbers; accepted: {needed}{or_more}, with "
                f"environment.n_zone_centers_in_inputs = {count}; correct the list"
            )
        else:
            yield from _faulty_numbers(path, numbers[:needed], above_zero="std" in key)


def _faulty_numbers(path: str, numbers: tuple[Any, ...], *, above_zero: bool) -> Iterator[str]:
    for i, number in enumerate(numbers):
        is_number = isinstance(number, int | float) and not isinstance(number, bool)
        if not is_number or (above_zero and number <= 0):
            accepted = "a number above 0" if above_zero else "a number"
            yield f"{path}[{i}]: found {show(number)}; accepted: {accepted}"
