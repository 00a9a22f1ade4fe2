"""One description laid over another: a preset and what a user changes of it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from iqn_blocks.config.keys import Keys, child
from iqn_blocks.kinds import Kind

PRESETS = Path(__file__).parents[1] / "presets"


def list_presets() -> list[str]:
    """Names of the presets, for ``preset: NAME`` in a configuration.

    >>> "btr" in list_presets()
    True
    """
    return sorted(path.stem for path in PRESETS.glob("*.yaml"))


def merge(block: type[Keys], base: Mapping[Any, Any], own: object) -> Any:
    """``own`` laid over ``base``, key by key: two descriptions of one ``block``.

    A part that ``own`` chooses takes the place of another in ``base``; options of the same part are
    merged. What is no mapping is given back as it is, for the schema to name.
    """
    own = block.as_keys(own)
    if not isinstance(own, Mapping):
        return own
    merged, choices = dict(base), block.choices()
    if any(key in choices and value is not None for key, value in own.items()):
        merged = {k: v for k, v in base.items() if k not in choices or k in own}
    own = {key: block.in_our_names(key, value) for key, value in own.items()}
    for key, value in own.items():
        field = block.model_fields.get(key)
        inner = None if field is None else child(block, key)
        below = merged.get(key)
        if inner is not None and isinstance(below, Mapping):
            nullable = field is not None and field.annotation is not inner
            value = None if value is None and nullable else merge(inner, below, value)
        elif isinstance(below, Mapping) and isinstance(value, Mapping):
            kinds = [] if field is None else [m for m in field.metadata if isinstance(m, Kind)]
            one_part = any(kind.holds_part for kind in kinds)
            if not one_part or set(below) == set(value):
                value = _plain(below, value)
        merged[key] = value
    return merged


def _plain(base: object, own: object) -> object:
    if not (isinstance(base, Mapping) and isinstance(own, Mapping)):
        return own
    return {**base, **{key: _plain(base.get(key), value) for key, value in own.items()}}
