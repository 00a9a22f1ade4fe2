"""A part from its name and options: looked up, given what it shares with the network, called."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from iqn_blocks.config.part import Part
from iqn_blocks.errors import ConfigError
from iqn_blocks.registry import ARGUMENTS, Slot, find_part, options_of

# Values for options that a part may take and that were not given; what was found so far comes in.
Shared = Mapping[str, Callable[[Mapping[str, Any]], object]]


def make_part(
    slot: Slot,
    choice: Part | str,
    *arguments: Any,
    path: str,
    shared: Shared | None = None,
    keys: Mapping[str, str] | None = None,
) -> Any:
    """The module of a part.

    Args:
        slot: its slot.
        choice: its name, or its name with options.
        arguments: what its slot calls it with, see :data:`iqn_blocks.registry.ARGUMENTS`.
        path: the key under which the part and its options stand, for messages.
        shared: what fills options that the part has and nobody set.
        keys: the keys behind its arguments, for messages.

    Raises:
        ConfigError: the part refuses its arguments; named by the key.
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
    if not isinstance(made, nn.Module):
        raise ConfigError(
            f"{path}: the {slot} registered as {choice.name!r} gave {type(made).__name__}; "
            f"accepted: an nn.Module"
        )
    return made
