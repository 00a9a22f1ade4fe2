"""Every key of the configuration, found by walking the schema."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest

from iqn_blocks import ConfigError
from iqn_blocks.config import Config, parse
from iqn_blocks.config.block import Block
from iqn_blocks.config.messages import child
from iqn_blocks.kinds import Kind

REQUIRED = {"n_actions": 3, "float_input_dim": 2}


class Key(NamedTuple):
    """One key that holds a value: where it is, and what reads it."""

    path: str
    block: type[Block]
    name: str
    kind: Kind
    default: Any
    required: bool

    def build(self, value: object) -> Any:
        """What the block makes of the value, without the rules of the whole configuration."""
        given = REQUIRED if self.block is Config else {}
        return getattr(self.block(**{**given, self.name: value}), self.name)


def walk(block: type[Block] = Config, above: str = "") -> Iterator[Key]:
    for name, field in block.model_fields.items():
        inner = child(block, name)
        if inner is not None:
            yield from walk(inner, f"{above}{name}.")
        else:
            (kind,) = (m for m in field.metadata if isinstance(m, Kind))
            default = None if field.is_required() else field.get_default()
            yield Key(f"{above}{name}", block, name, kind, default, field.is_required())


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
        parse(config)  # type: ignore[arg-type]
    lines = str(error.value).splitlines()
    return lines if len(lines) == 1 else [line.removeprefix("- ") for line in lines[1:]]
