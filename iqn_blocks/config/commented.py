"""A configuration as YAML with a comment to each key."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import yaml

from iqn_blocks.config.block import Block


def commented(block: type[Block], keys: Mapping[str, Any], indent: str = "") -> Iterator[str]:
    """The lines of a ``block``'s plain data, each with the meaning of its key."""
    for key in sorted(keys, key=lambda key: [*block.model_fields, key].index(key)):
        value, field = keys[key], block.model_fields.get(key)
        inner = block.child(key)
        about = "" if field is None else f"  # {field.description}"
        if inner is not None and isinstance(value, Mapping) and value:
            yield f"{indent}{key}:{about}"
            yield from commented(inner, value, indent + "  ")
        else:
            text = yaml.safe_dump({key: value}, default_flow_style=True, width=10_000)
            yield f"{indent}{text.strip()[1:-1]}{about}"
