"""One description laid over another: a preset and what a user changes of it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from iqn_blocks.config.block import Block

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


def merge(block: type[Block], base: Mapping[Any, Any], own: object) -> Any:
    """``own`` laid over ``base``, key by key: two descriptions of one ``block``.

    A part that ``own`` chooses takes the place of another in ``base``; options of the same part are
    merged. Anything but a mapping is returned as it is, and the schema then refuses it.
    """
    own = block.as_keys(own)
    if not isinstance(own, Mapping):
        return own
    merged, choices = dict(base), block.choices()
    if any(key in choices and value is not None for key, value in own.items()):
        merged = {key: base[key] for key in base if key not in choices or key in own}
    for key, given in own.items():
        value, below = block.rename_options(key, given), merged.get(key)
        inner = block.child(key)
        if isinstance(below, Mapping):
            if inner is not None:
                is_optional = block.model_fields[key].annotation is not inner
                value = None if value is None and is_optional else merge(inner, below, value)
            elif isinstance(value, Mapping):
                kind = block.kind(key) if key in block.model_fields else None
                holds_part = kind is not None and kind.holds_part
                if not holds_part or set(below) == set(value):
                    value = _merge_data(below, value)
        merged[key] = value
    return merged


def _merge_data(base: object, own: object) -> object:
    if not (isinstance(base, Mapping) and isinstance(own, Mapping)):
        return own
    return {**base, **{key: _merge_data(base.get(key), value) for key, value in own.items()}}
