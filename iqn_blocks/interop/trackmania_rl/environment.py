"""Float inputs of trackmania_rl, as its blocks ``environment`` and ``state_normalization`` say.

The observation is, in this order: the distance to the horizon in actions, the previous actions,
flags and gear of the car, its motion, the way-points ahead (zone centres), the distance to the
finish and one flag.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pydantic_core import PydanticCustomError

from iqn_blocks.kinds import MIN_POSITIVE, Kind, Plain, Real, Sequence, Whole, faults_of
from iqn_blocks.plain import from_numpy, nearest, show

Block = Mapping[str, Any]
Moments = list[tuple[float, float]]  # mean and standard deviation of each input

OFFSETS = "rl_action_offsets_ms"
OFFSET_STEP = 10  # ms
LISTED_WAYPOINTS = 40
# Both lists of statistics; of each way-point three numbers are read.
WAYPOINT_LISTS = {"waypoint_mean_40cp": Real(), "waypoint_std_40cp": Real(low=MIN_POSITIVE)}
# Further keys of that block, which that system makes itself and never reads.
MADE_LISTS = ("float_inputs_mean", "float_inputs_std")

_COUNT, _POSITIVE = Whole(low=0), Whole(high=2**31)
# Keys of `environment` that are read: the value of an absent one, and what is accepted.
KEYS: Mapping[str, tuple[Any, Kind]] = {
    "n_zone_centers_in_inputs": (40, _COUNT),
    "n_prev_actions_in_inputs": (5, _COUNT),
    "n_contact_material_physics_behavior_types": (4, _COUNT),
    "temporal_mini_race_duration_ms": (7000, _POSITIVE),
    "ms_per_tm_engine_step": (10, _POSITIVE),
    "tm_engine_step_per_action": (5, _POSITIVE),
    "margin_to_announce_finish_meters": (700, Real(low=MIN_POSITIVE)),
    OFFSETS: ([0], Plain()),
}


def environment_faults(given: Block) -> list[str]:
    """What is wrong with the keys of both blocks that the float inputs follow from."""
    blocks = {key: given.get(key) for key in ("environment", "state_normalization")}
    faults = [
        f"{key}: found {show(block)}; accepted: a block of keys"
        for key, block in blocks.items()
        if not isinstance(block, Mapping | None)
    ]
    if faults:
        return faults
    environment, normalization = (block or {} for block in blocks.values())
    faults = [
        *_misspelled(environment),
        *_faulty_values(_values(environment)),
        *_unknown_lists(normalization),
    ]
    if faults:
        return faults
    values = _values(environment)
    actions, duration = _horizon(values)
    if actions < 2:
        faults.append(
            f"environment.temporal_mini_race_duration_ms: found {actions} actions of {duration} ms "
            f"in it; accepted: 2 or more"
        )
    n_waypoints = values["n_zone_centers_in_inputs"]
    return [*faults, *_faulty_waypoints(normalization, n_waypoints)]


def lacks_waypoints(given: Block) -> bool:
    """Whether there are way-points whose statistics the file does not give."""
    n_waypoints = _values(given.get("environment") or {})["n_zone_centers_in_inputs"]
    return n_waypoints > 0 and not _waypoint_lists(given.get("state_normalization") or {})


def float_inputs(given: Block) -> dict[str, Any]:
    """``float_input_dim``, ``float_inputs_mean``, ``float_inputs_std``, ``n_actions_per_block``.

    The blocks must be without :func:`environment_faults`. Way-points whose statistics are not given
    have mean 0 and standard deviation 1.
    """
    values = _values(given.get("environment") or {})
    moments = _moments(values, given.get("state_normalization") or {})
    return {
        "float_input_dim": len(moments),
        "float_inputs_mean": [mean for mean, _ in moments],
        "float_inputs_std": [std for _, std in moments],
        "n_actions_per_block": len(values[OFFSETS]),
    }


def _moments(values: Block, normalization: Block) -> Moments:
    """Mean and standard deviation of every float input, in order."""
    half_horizon = _horizon(values)[0] // 2
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


def _waypoints(normalization: Block, count: int) -> Moments:
    lists = _waypoint_lists(normalization)
    if not lists:
        return [(0, 1)] * (3 * count)
    mean, std = lists
    further = [(mean[-3], 50), (0, 50), (0, 50)] * max(0, count - LISTED_WAYPOINTS)
    return [*zip(mean, std, strict=False)][: 3 * count] + further


def _waypoint_lists(normalization: Block) -> list[Any]:
    """Mean and standard deviation as the file has them; nothing where it has neither."""
    lists = [from_numpy(normalization.get(key)) for key in WAYPOINT_LISTS]
    return [] if lists == [None, None] else lists


def _values(environment: Block) -> dict[str, Any]:
    return {key: from_numpy(environment.get(key, default)) for key, (default, _) in KEYS.items()}


def _horizon(values: Block) -> tuple[int, int]:
    """Actions until the horizon and the duration of one; with several offsets, blocks of them."""
    offsets = len(values[OFFSETS])
    steps = offsets if offsets > 1 else values["tm_engine_step_per_action"]
    duration = steps * values["ms_per_tm_engine_step"]
    return values["temporal_mini_race_duration_ms"] // duration, duration


def _misspelled(environment: Block) -> Iterator[str]:
    """Misspelt keys that may be left out, which would be lost; all other keys are the trainer's."""
    absent = [key for key in KEYS if key not in environment]
    for key in environment:
        near = nearest(key, absent, cutoff=0.9)
        if near and key not in KEYS:
            yield f"environment.{key}: unknown key; did you mean {near}?"


def _unknown_lists(normalization: Block) -> Iterator[str]:
    for key in normalization:
        if key not in WAYPOINT_LISTS and key not in MADE_LISTS:
            near = nearest(key, WAYPOINT_LISTS)
            hint = f"did you mean {near}?" if near else f"known are {', '.join(WAYPOINT_LISTS)}"
            yield f"state_normalization.{key}: unknown key; {hint}"


def _faulty_values(values: Block) -> Iterator[str]:
    for key, (_, kind) in KEYS.items():
        yield from _fault(f"environment.{key}", kind, values[key])
    offsets = values[OFFSETS]
    items = [from_numpy(item) for item in offsets] if isinstance(offsets, list | tuple) else []
    # Python takes False and 0.0 for equal to 0.
    is_whole = bool(items) and all(type(item) is int for item in items)
    if not is_whole or items != [OFFSET_STEP * i for i in range(len(items))]:
        yield (
            f"environment.{OFFSETS}: found {show(offsets)}; accepted: a list of 0, 10, 20, …, as "
            f"many as a block has actions"
        )


def _faulty_waypoints(normalization: Block, count: int) -> Iterator[str]:
    lists = _waypoint_lists(normalization) if count else []
    needed = 3 * min(count, LISTED_WAYPOINTS)
    for (key, number), numbers in zip(WAYPOINT_LISTS.items(), lists, strict=False):
        path = f"state_normalization.{key}"
        if not isinstance(numbers, list | tuple):
            yield f"{path}: found {show(numbers)}; accepted: a list of {needed} numbers or more"
        elif len(numbers) < needed or (count > LISTED_WAYPOINTS and len(numbers) != needed):
            or_more = "" if count > LISTED_WAYPOINTS else " or more"
            yield (
                f"{path}: found {len(numbers)} numbers; accepted: {needed}{or_more}, with "
                f"environment.n_zone_centers_in_inputs = {count}; correct the list"
            )
        else:
            yield from _fault(path, Sequence(item=number), numbers[:needed])


def _fault(path: str, kind: Kind, value: object) -> Iterator[str]:
    try:
        kind.read(value)
    except PydanticCustomError as error:
        yield from (f"{path}{below}: {text}" for below, text in faults_of(error))
