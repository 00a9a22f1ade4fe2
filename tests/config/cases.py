"""Every key of the configuration, found by walking the schema."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest

from iqn_blocks import ConfigError, check
from iqn_blocks.config import Config
from iqn_blocks.config.block import Block
from iqn_blocks.config.part import SHARED, OptionsOf, PartsOf
from iqn_blocks.kinds import Kind
from iqn_blocks.registry import Slot, find_part, list_parts, options_of

REQUIRED = {"n_actions": 3, "float_input_dim": 2}


class Key(NamedTuple):
    """One key that holds a value: where it is, and what reads it.

    An option of a part stands ``inside`` the key that holds the part.
    """

    path: str
    block: type[Block]
    name: str
    kind: Kind
    default: Any
    required: bool
    meaning: str
    inside: str = ""

    def build(self, value: object) -> Any:
        """What the block makes of the value, without the rules of the whole configuration."""
        given = REQUIRED if self.block is Config else {}
        if self.inside:
            return getattr(
                getattr(self.block(**{self.inside: {self.name: value}}), self.inside), self.name
            )
        return getattr(self.block(**{**given, self.name: value}), self.name)


def walk(block: type[Block] = Config, above: str = "") -> Iterator[Key]:
    for name, field in block.model_fields.items():
        inner = block.child(name)
        if inner is not None:
            yield from walk(inner, f"{above}{name}.")
            continue
        (kind,) = (m for m in field.metadata if isinstance(m, Kind))
        if isinstance(kind, OptionsOf):
            yield from options(block, kind.slot, kind.name, f"{above}{name}.", name)
        elif isinstance(kind, PartsOf):
            for part in [part for part in list_parts(kind.slot) if part not in block.model_fields]:
                yield from options(block, kind.slot, part, f"{above}{part}.", part)
        else:
            default = None if field.is_required() else field.get_default(call_default_factory=True)
            meaning = field.description or ""
            yield Key(f"{above}{name}", block, name, kind, default, field.is_required(), meaning)


def options(block: type[Block], slot: Slot, part: str, above: str, inside: str) -> Iterator[Key]:
    for name, option in options_of(find_part(slot, part), slot).items():
        if option.kind is not None and name not in SHARED:
            path, default = f"{above}{name}", option.default
            yield Key(path, block, name, option.kind, default, False, option.meaning, inside)


KEYS = {key.path: key for key in walk()}


def of_kind(*kinds: type[Kind]) -> list[str]:
    """Paths of the keys that such kinds read."""
    return [path for path, key in KEYS.items() if isinstance(key.kind, kinds)]


def nested(path: str, value: object) -> dict[str, Any]:
    """A mapping with the required keys and that one."""
    config: dict[str, Any] = dict(REQUIRED)
    block = config
    *blocks, last = path.split(".")
    for name in blocks:
        block = block.setdefault(name, {})
    block[last] = value
    return config


def faults(config: object) -> list[str]:
    """The lines with which a configuration is refused."""
    with pytest.raises(ConfigError) as error:
        check(config)  # type: ignore[arg-type]
    lines = str(error.value).splitlines()
    return lines if len(lines) == 1 else [line.removeprefix("- ") for line in lines[1:]]
