"""Making a part from its name, its options and what it shares with the network."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from iqn_blocks.config.part import Part
from iqn_blocks.errors import ConfigError, UnsupportedTopologyError
from iqn_blocks.registry import ARGUMENTS, WIDTHS, Slot, find_part, options_of

# Values for options that were not given, as functions of the options that are known so far.
Shared = Mapping[str, Callable[[Mapping[str, Any]], object]]


def make_part(
    slot: Slot,
    choice: Part | str,
    *arguments: Any,
    path: str,
    shared: Shared | None = None,
    keys: Mapping[str, str] | None = None,
) -> nn.Module:
    """The module of a part.

    Args:
        slot: its slot.
        choice: its name, or its name with options.
        arguments: those of its slot, see :data:`iqn_blocks.registry.ARGUMENTS`.
        path: the key under which the part and its options stand, for messages.
        shared: values for options that the part has and that were not given.
        keys: the keys that its arguments come from, for messages.

    Raises:
        ConfigError: the part refuses its arguments, named by the key, or lacks a width.
    """
    choice = Part(choice) if isinstance(choice, str) else choice
    part, options = find_part(slot, choice.name), dict(choice.options)
    known = options_of(part, slot)
    for name, fill in (shared or {}).items():
        if name in known and options.get(name) is None:
            options[name] = fill(options)
    try:
        made = part(*arguments, **options)
    except ConfigError:
        raise
    except ValueError as error:  # "argument: what is wrong"
        name, colon, _ = str(error).partition(":")
        if colon and name in ARGUMENTS[slot]:
            raise ConfigError(str(error).replace(name, (keys or {}).get(name, path), 1)) from None
        where = f"{path}.{choice.name}." if colon and name in known else f"{path}: "
        raise ConfigError(f"{where}{error}") from None
    widths = {name: getattr(made, name, None) for name in WIDTHS.get(slot, ())}
    if not (isinstance(made, nn.Module) and all(map(_is_width, widths.values()))):
        wanted = f" with an integer {' and '.join(widths)} >= 1" if widths else ""
        got = "".join(f", {name} = {width!r}" for name, width in widths.items())
        error_type = UnsupportedTopologyError if slot == "topology" else ConfigError
        raise error_type(
            f"{path}: the {slot} registered as {choice.name!r} must be an nn.Module{wanted}, got "
            f"{type(made).__name__}{got}; set what is missing in its __init__"
        )
    return made


def _is_width(value: object) -> bool:
    return isinstance(value, int) and value >= 1
