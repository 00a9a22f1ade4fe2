"""The presets, and plain data laid over other plain data."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

PRESETS = Path(__file__).parents[1] / "presets"


def list_presets() -> list[str]:
    """Names of the presets, for ``preset: NAME`` in a configuration.

    >>> "btr" in list_presets()
    True
    """
    return sorted(path.stem for path in PRESETS.glob("*.yaml"))


def rename(data: Mapping[Any, Any], names: Mapping[str, str]) -> dict[Any, Any]:
    """``data`` with other ``names`` of its keys replaced.

    One that stands beside the name itself stays, to be reported as a key too many.
    """
    new = {key: names.get(key, key) if isinstance(key, str) else key for key in data}
    return {key if new[key] in data else new[key]: value for key, value in data.items()}


def merge_data(base: object, own: object) -> object:
    """``own`` laid over ``base``, mapping by mapping."""
    if not (isinstance(base, Mapping) and isinstance(own, Mapping)):
        return own
    return {**base, **{key: merge_data(base.get(key), value) for key, value in own.items()}}
