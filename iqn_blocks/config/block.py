"""The base of every block of the configuration: frozen, strict, with our own messages."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar, get_args

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    model_serializer,
    model_validator,
)

from iqn_blocks.config.merge import merge, rename
from iqn_blocks.config.messages import config_error
from iqn_blocks.kinds import Json, Kind

if TYPE_CHECKING:
    from pydantic import GetJsonSchemaHandler
    from pydantic_core.core_schema import CoreSchema

AnyBlock = TypeVar("AnyBlock", bound="Block")

# Where reads of keys are noted while somebody watches: a block's identity and the key.
WATCHED: ContextVar[set[tuple[int, str]] | None] = ContextVar("WATCHED", default=None)


def key(default: Any, meaning: str) -> Any:
    """A key of a block, with its meaning; a callable ``default`` makes one for each block."""
    if callable(default):
        return Field(default_factory=default, description=meaning)
    return Field(default=default, description=meaning)


class Block(BaseModel):
    """A frozen block of keys; raises ConfigError, with every fault in it."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    # Other names of keys.
    aliases: ClassVar[Mapping[str, str]] = {}
    # Whether a bare name stands for the block with that one key.
    takes_names: ClassVar[bool] = False
    # Branches of which one is active: left out of :meth:`to_dict` when null.
    branches: ClassVar[tuple[str, ...]] = ()

    def __init__(self, /, **keys: Any) -> None:
        try:
            super().__init__(**keys)
        except ValidationError as error:
            raise config_error(type(self), error) from None

    # Pydantic would otherwise build nested blocks through __init__, and each would raise on its own
    # before the faults of its neighbours are known.
    __init__.__pydantic_base_init__ = True  # type: ignore[attr-defined]

    def __getattribute__(self, name: str) -> Any:
        reads = WATCHED.get()
        if reads is not None:
            reads.add((id(self), name))
        return super().__getattribute__(name)

    @classmethod
    def model_validate(cls: type[AnyBlock], obj: Any, **options: Any) -> AnyBlock:
        """The block that ``obj`` describes; raises ConfigError."""
        try:
            return super().model_validate(obj, **options)
        except ValidationError as error:
            raise config_error(cls, error) from None

    @classmethod
    def names(cls) -> list[str]:
        """The keys of the block."""
        return list(cls.model_fields)

    @classmethod
    def choices(cls) -> set[str]:
        """Keys of which one takes the place of another."""
        return set(cls.branches)

    @classmethod
    def kind(cls, name: str) -> Kind | None:
        """What reads the key; None where a block stands under it."""
        metadata = cls.model_fields[name].metadata
        return next((extra for extra in metadata if isinstance(extra, Kind)), None)

    @classmethod
    def child(cls, name: str) -> type[Block] | None:
        """The block under the key; None where a value stands under it."""
        field = cls.model_fields.get(name)
        options = () if field is None else (field.annotation, *get_args(field.annotation))
        blocks = (one for one in options if isinstance(one, type) and issubclass(one, Block))
        return next(blocks, None)

    @classmethod
    def block_at(cls, path: Sequence[str | int]) -> type[Block]:
        """The block at a path that is known to exist."""
        block: type[Block] | None = cls
        for name in path:
            block = block and block.child(str(name))
        assert block is not None, path
        return block

    @classmethod
    def all_keys(cls, above: str = "") -> Iterator[tuple[str, str]]:
        """Name and dotted path of every key, from the top down."""
        for name in cls.names():
            yield name, f"{above}{name}"
            inner = cls.child(name)
            if inner is not None:
                yield from inner.all_keys(f"{above}{name}.")

    @classmethod
    def as_keys(cls, data: Any) -> Any:
        """``data`` as a dict of the block's own names; anything but a mapping stays as it is.

        Any type of mapping will do, and null is an empty block.
        """
        if data is None:
            return {}
        if isinstance(data, str) and cls.takes_names:
            return {data: {}}
        return rename(data, cls.aliases) if isinstance(data, Mapping) else data

    @classmethod
    def rename_options(cls, name: str, options: Any) -> Any:
        """The value of the key ``name``, with other names of its options replaced."""
        return options

    @classmethod
    def fill(cls, keys: dict[Any, Any]) -> dict[Any, Any]:
        """``keys`` with the defaults that depend on which keys are given."""
        return keys

    @model_validator(mode="before")
    @classmethod
    def _read_block(cls, data: Any) -> Any:
        keys = cls.as_keys(data)
        return cls.fill(keys) if isinstance(keys, dict) else keys

    @classmethod
    def __get_pydantic_json_schema__(cls, core: CoreSchema, handler: GetJsonSchemaHandler) -> Json:
        reference = handler(core)
        keys = handler.resolve_ref_schema(reference)["properties"]
        keys |= {alias: keys[name] for alias, name in cls.aliases.items()}
        return reference

    def changed_keys(self) -> Iterator[tuple[str, Any]]:
        """The keys that differ from their default, with their values."""
        for name, field in type(self).model_fields.items():
            value = getattr(self, name)
            if field.is_required() or value != field.get_default(call_default_factory=True):
                yield name, value

    def __repr_args__(self) -> Iterator[tuple[str, Any]]:
        """Enough to paste back."""
        return self.changed_keys()

    __str__ = BaseModel.__repr__

    def replace(self: AnyBlock, **keys: Any) -> AnyBlock:
        """A copy in which ``keys`` are changed, block by block: ``config.replace(nn={"iqn": …})``.

        A part that is chosen takes the place of the one that was there.

        Raises:
            ConfigError: the keys are not valid, or do not go together.
        """
        return type(self).model_validate(merge(type(self), self.to_dict(), keys))

    @model_serializer
    def to_dict(self) -> dict[str, Any]:
        """Plain data (dict, list, str, int, float, bool, None) that parses to an equal block."""
        plain: dict[str, Any] = {}
        for name in type(self).model_fields:
            value, kind = getattr(self, name), type(self).kind(name)
            if kind is not None:
                plain[name] = kind.plain(value)
            elif value is not None:
                plain[name] = value.to_dict()
            elif name not in self.branches:
                plain[name] = None
        return plain
