"""What a block of the configuration is made of: its keys, their other names, the blocks below."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, get_args

from pydantic import BaseModel


class Keys(BaseModel):
    """Names of keys; the base of :class:`~iqn_blocks.config.block.Block`."""

    # Other names of keys.
    aliases: ClassVar[Mapping[str, str]] = {}
    # Whether a bare name stands for the block with that one key.
    takes_names: ClassVar[bool] = False
    # Branches of which one is active: left out of :meth:`to_dict` when null.
    branches: ClassVar[tuple[str, ...]] = ()

    @classmethod
    def names(cls) -> list[str]:
        """The keys of the block."""
        return list(cls.model_fields)

    @classmethod
    def choices(cls) -> set[str]:
        """Keys of which one takes the place of another."""
        return set(cls.branches)

    @classmethod
    def in_our_names(cls, name: str, given: Any) -> Any:
        """What is given for the key ``name``, with other names of options replaced."""
        return given

    @classmethod
    def as_keys(cls, data: Any) -> Any:
        """``data`` as a dict of the block's own names; what is no mapping as it is.

        Any mapping is welcome, and an empty block may be written as nothing at all.
        """
        if data is None:
            data = {}
        if isinstance(data, str) and cls.takes_names:
            data = {data: {}}
        if not isinstance(data, Mapping):
            return data
        keys: dict[Any, Any] = {}
        for key, value in data.items():
            name = cls.aliases.get(key, key) if isinstance(key, str) else key
            # An alias beside its name stays, to be reported as a key too many.
            keys[key if name in data else name] = value
        return keys


def wanted(block: type[Keys], key: str) -> str:
    """What the key of a block accepts, in words."""
    for extra in block.model_fields[key].metadata:
        if hasattr(extra, "accepts"):
            return str(extra.accepts)
    return "a block of keys"


def child(block: type[Keys], key: str) -> type[Keys] | None:
    """The block under a key, if it is one."""
    annotation = block.model_fields[key].annotation
    for option in (annotation, *get_args(annotation)):
        if isinstance(option, type) and issubclass(option, Keys):
            return option
    return None


def block_at(block: type[Keys], loc: Sequence[str | int]) -> type[Keys]:
    """The block at a path that is known to exist."""
    for part in loc:
        inner = child(block, str(part))
        assert inner is not None, loc
        block = inner
    return block


def all_keys(block: type[Keys], above: str = "") -> Iterator[tuple[str, str]]:
    """Name and dotted path of every key, from the top down."""
    for key in block.names():
        path = f"{above}{key}"
        yield key, path
        inner = child(block, key) if key in block.model_fields else None
        if inner is not None:
            yield from all_keys(inner, f"{path}.")
