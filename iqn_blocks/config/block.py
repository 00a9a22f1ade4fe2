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

from iqn_blocks.config.merge import merge_data, rename
from iqn_blocks.config.messages import ELSEWHERE, dotted, join
from iqn_blocks.errors import ConfigError
from iqn_blocks.kinds import Json, Kind
from iqn_blocks.plain import MAX_LINES, nearest, show

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

    @classmethod
    def merge(cls, base: Mapping[Any, Any], own: object) -> Any:
        """``own`` laid over ``base``, key by key: two descriptions of a block of this class.

        A part that ``own`` chooses takes the place of another in ``base``; options of the same part
        are merged. Anything but a mapping is returned as it is, and the schema then refuses it.
        """
        own = cls.as_keys(own)
        if not isinstance(own, Mapping):
            return own
        merged, choices = dict(base), cls.choices()
        if any(key in choices and value is not None for key, value in own.items()):
            merged = {key: base[key] for key in base if key not in choices or key in own}
        for key, given in own.items():
            value, below = cls.rename_options(key, given), merged.get(key)
            inner = cls.child(key)
            if isinstance(below, Mapping):
                if inner is not None:
                    is_optional = cls.model_fields[key].annotation is not inner
                    value = None if value is None and is_optional else inner.merge(below, value)
                elif isinstance(value, Mapping):
                    kind = cls.kind(key) if key in cls.model_fields else None
                    holds_part = kind is not None and kind.holds_part
                    if not holds_part or set(below) == set(value):
                        value = merge_data(below, value)
            merged[key] = value
        return merged

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
        return self.model_validate(self.merge(self.to_dict(), keys))

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


def config_error(block: type[Block], error: ValidationError) -> ConfigError:
    """The error to raise for what pydantic found in a ``block``."""
    entries = error.errors(include_url=False)
    for entry in entries:
        inner = entry.get("ctx", {}).get("error")
        if isinstance(inner, ConfigError):
            return inner
    shown, rest = entries[:MAX_LINES], entries[MAX_LINES:]  # looking for near names takes time
    lines = [line for entry in shown for line in _lines(block, entry)]
    return ConfigError(join(lines, len(rest)))


def _lines(block: type[Block], entry: Any) -> list[str]:
    if entry["type"] != "part":
        return [_line(block, entry)]
    path = dotted(entry["loc"]).removesuffix(".parts")
    return [
        f"{path}.{below}".strip(".").replace(".[", "[") + f": {text}"
        for below, text in entry["ctx"]["faults"]
    ]


def _line(block: type[Block], entry: Any) -> str:
    loc, kind = entry["loc"], entry["type"]
    path = dotted(loc) or "top level"
    if kind == "extra_forbidden":
        return f"{path}: {_unknown(block, loc)}"
    if kind == "invalid_key":
        where = dotted(loc[:-1]) or "top level"
        return f"{where}: found the key {show(entry['input'])}; accepted: strings; put it in quotes"
    if kind == "missing":
        accepts = getattr(block.block_at(loc[:-1]).kind(str(loc[-1])), "accepts", "a block of keys")
        return f"{path}: missing; accepted: {accepts}; add this key"
    if kind == "model_type":
        names = block.block_at(loc).names()
        way_out = f"; write {{{': …, '.join(names)}: …}}" if len(names) <= 3 else ""
        accepts = f"a block with the keys {', '.join(names)}"
        return f"{path}: found {show(entry['input'])}; accepted: {accepts}{way_out}"
    return f"{path}: {entry['msg']}"


def _unknown(root: type[Block], loc: Sequence[str | int]) -> str:
    key, block = str(loc[-1]), root.block_at(loc[:-1])
    if key in block.aliases:
        return f"given beside {block.aliases[key]}, which means the same; keep one of them"
    if key in ELSEWHERE:
        return f"unknown key; {ELSEWHERE[key]}"
    valid = [*block.names(), *block.aliases]
    near = nearest(key, valid)
    if near:
        return f"unknown key; did you mean {near}?"
    elsewhere = [path for name, path in root.all_keys() if name == key]
    if elsewhere:
        return f"unknown key; did you mean {' or '.join(elsewhere[:3])}?"
    near = nearest(key, valid, cutoff=0.0)
    return f"unknown key; the nearest is {near}; valid here: {', '.join(block.names())}"
