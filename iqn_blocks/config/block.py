"""The base of every block of the configuration: frozen, strict, with our own messages."""

from __future__ import annotations

from collections.abc import Iterator
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import ConfigDict, ValidationError, model_serializer, model_validator

from iqn_blocks.config.keys import Keys
from iqn_blocks.config.merge import merge
from iqn_blocks.config.messages import config_error
from iqn_blocks.kinds import Json, Kind

if TYPE_CHECKING:
    from pydantic import GetJsonSchemaHandler
    from pydantic_core.core_schema import CoreSchema

AnyBlock = TypeVar("AnyBlock", bound="Block")

# Where reads of keys are noted while somebody watches: a block's identity and the key.
WATCHED: ContextVar[set[tuple[int, str]] | None] = ContextVar("WATCHED", default=None)


class Block(Keys):
    """A frozen block of keys; raises ConfigError, with every fault in it."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

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

    @model_validator(mode="before")
    @classmethod
    def _read_block(cls, data: Any) -> Any:
        keys = cls.as_keys(data)
        return cls.fill(keys) if isinstance(keys, dict) else keys

    @classmethod
    def fill(cls, keys: dict[Any, Any]) -> dict[Any, Any]:
        """``keys`` with the defaults that depend on which keys are given."""
        return keys

    @classmethod
    def __get_pydantic_json_schema__(cls, core: CoreSchema, handler: GetJsonSchemaHandler) -> Json:
        reference = handler(core)
        keys = handler.resolve_ref_schema(reference)["properties"]
        keys |= {alias: keys[name] for alias, name in cls.aliases.items()}
        return reference

    def __repr_args__(self) -> Iterator[tuple[str, Any]]:
        """The keys that differ from their default: enough to paste back."""
        for name, field in type(self).model_fields.items():
            value = getattr(self, name)
            if field.is_required() or value != field.get_default(call_default_factory=True):
                yield name, value

    def __str__(self) -> str:
        """What can be pasted back, for print() too."""
        return repr(self)

    @model_serializer
    def _serialize(self) -> dict[str, Any]:
        return self.to_dict()

    def replace(self: AnyBlock, **keys: Any) -> AnyBlock:
        """A copy in which ``keys`` are changed, block by block: ``config.replace(nn={"iqn": …})``.

        A part that is chosen takes the place of the one that was there.

        Raises:
            ConfigError: the keys are not valid, or do not go together.
        """
        return type(self).model_validate(merge(type(self), self.to_dict(), keys))

    def to_dict(self) -> dict[str, Any]:
        """Plain data (dict, list, str, int, float, bool, None) that parses to an equal block."""
        plain: dict[str, Any] = {}
        for name, field in type(self).model_fields.items():
            value = getattr(self, name)
            if value is None and name in self.branches:
                continue
            kind = next((extra for extra in field.metadata if isinstance(extra, Kind)), Kind())
            plain[name] = value.to_dict() if isinstance(value, Block) else kind.plain(value)
        return plain
