"""The choice of a part in the configuration: its name, and the options it is called with."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, cast

from pydantic_core import PydanticCustomError

from iqn_blocks.config.block import Block
from iqn_blocks.config.merge import rename
from iqn_blocks.kinds import Json, Kind, fault
from iqn_blocks.plain import FrozenMapping, show, thaw
from iqn_blocks.registry import Slot, find_part, list_parts, options_of, read_options

if TYPE_CHECKING:
    from pydantic import GetJsonSchemaHandler
    from pydantic_core.core_schema import CoreSchema

# Options that keys of the whole network fill, where a part takes them and they are not given.
SHARED = ("activation", "layer_norm", "noisy", "noisy_readout", "sigma0")


@dataclass(frozen=True)
class Part:
    """A part by name, with its options: defaults filled in, but for those that a network shares."""

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "options", FrozenMapping(self.options))

    def __getattr__(self, name: str) -> Any:
        options = self.__dict__.get("options", {})  # not there yet while a copy is made
        if name in options:
            return options[name]
        raise AttributeError(f"{name!r} is no option of the part {self.__dict__.get('name')!r}")

    def changed_options(self, slot: Slot) -> dict[str, Any]:
        """The options that differ from their defaults."""
        defaults = _defaults(slot, self.name)
        own = {k: v for k, v in self.options.items() if k not in defaults or v != defaults[k]}
        return {key: thaw(value) for key, value in own.items()}


def _defaults(slot: Slot, name: str) -> dict[str, Any]:
    options = options_of(find_part(slot, name), slot)
    settable = {k: o for k, o in options.items() if o.kind is not None and not o.is_required}
    return {k: o.default for k, o in settable.items() if k not in SHARED}


def read_part(slot: Slot, name: str, given: object, path: str = "") -> Part:
    """The part ``name`` with options as a configuration gives them, below ``path``.

    Raises:
        PydanticCustomError: there is no such part, or its options have faults.
    """
    try:
        part = find_part(slot, name)
    except LookupError as error:
        raise _part_error([("", str(error.args[0]))]) from None
    given = given.options if isinstance(given, Part) else {} if given is None else given
    if not isinstance(given, Mapping):
        raise _part_error([(path, fault(given, f"a block of options of {name}").message())])
    values, faults = read_options(part, slot, given)
    if faults:
        raise _part_error([(f"{path}.{option}".strip("."), text) for option, text in faults])
    return Part(name, {**_defaults(slot, name), **values})


def part_schema(slot: Slot, name: str) -> Json:
    """The JSON Schema of a part's options."""
    part = find_part(slot, name)
    options = {k: o for k, o in options_of(part, slot).items() if o.kind is not None}
    properties = {
        key: cast(Kind, option.kind).schema_or_null() | {"description": option.meaning}
        for key, option in options.items()
    }
    summary = (part.__doc__ or "").strip().partition("\n")[0]
    return {
        "type": ["object", "null"],
        "description": summary,
        "properties": properties,
        "required": [key for key, option in options.items() if option.is_required],
        "additionalProperties": False,
    }


def _part_error(faults: list[tuple[str, str]]) -> PydanticCustomError:
    return PydanticCustomError("part", "faults in a part", {"faults": faults})


@dataclass(frozen=True)
class PartOf(Kind):
    """A part of ``slot``: its bare name, or its name over its options."""

    holds_part: ClassVar[bool] = True
    slot: Slot = "trunk"

    @property
    def wants(self) -> str:
        return f"one of {', '.join(list_parts(self.slot))}, or one of these over its options"

    def convert(self, value: Any) -> object:
        if isinstance(value, Part):
            value = {value.name: value}
        if isinstance(value, str):
            value = {value: {}}
        if isinstance(value, Mapping) and len(value) == 1:
            ((name, options),) = value.items()
            part = read_part(self.slot, str(name), options, str(name))
            return part if part.changed_options(self.slot) else part.name
        raise fault(value, self.accepts, "give one name, or one name over its options")

    def plain(self, value: Any) -> Any:
        return {value.name: thaw(value.options)} if isinstance(value, Part) else value

    def schema(self) -> Json:
        names = list_parts(self.slot)
        over_options = {
            "type": "object",
            "properties": {name: part_schema(self.slot, name) for name in names},
            "additionalProperties": False,
            "minProperties": 1,
            "maxProperties": 1,
        }
        return {"anyOf": [{"enum": names}, over_options]}


@dataclass(frozen=True)
class OptionsOf(Kind):
    """The options of one part of ``slot``, under a key of its own."""

    wants = "a block"
    slot: Slot = "trunk"
    name: str = ""

    def read(self, value: object) -> object:
        return read_part(self.slot, self.name, value)

    def plain(self, value: Any) -> Any:
        return thaw(value.options)

    def schema(self) -> Json:
        return part_schema(self.slot, self.name)


@dataclass(frozen=True)
class PartsOf(Kind):
    """What a :class:`Chooser` collects: parts by name.

    ``refused`` are options that are known elsewhere, with the reason why they are not accepted.
    """

    slot: Slot = "head"
    refused: Mapping[str, str] = field(default_factory=dict)

    @property
    def wants(self) -> str:
        return f"one of {', '.join(list_parts(self.slot))}"

    def convert(self, value: Any) -> object:
        if isinstance(value, tuple):
            return value
        parts, faults = [], []
        for name, given in value.items():
            try:
                parts.append(read_part(self.slot, name, given, name))
            except PydanticCustomError as error:
                for path, text in (error.context or {})["faults"]:
                    option = path.removeprefix(f"{name}.")
                    if option in self.refused:
                        options = given.options if isinstance(given, Part) else given
                        text = f"found {show(options[option])}; {self.refused[option]}"
                    faults.append((path, text))
        if faults:
            raise _part_error(faults)
        return tuple(parts)

    def plain(self, value: Any) -> Any:
        return {part.name: thaw(part.options) for part in value}


class Chooser(Block):
    """A block in which a part of ``slot`` is chosen by its name as a key: ``{impala: {width: 2}}``.

    A bare name in place of the block stands for that part with its defaults.
    """

    slot: ClassVar[Slot]
    takes_names = True
    # Other names of a part's options, by part.
    part_aliases: ClassVar[Mapping[str, Mapping[str, str]]] = {}

    @classmethod
    def part_names(cls) -> list[str]:
        """The keys that are names of parts."""
        return [name for name in list_parts(cls.slot) if name not in cls.model_fields]

    @classmethod
    def names(cls) -> list[str]:
        return [*(name for name in cls.model_fields if name != "parts"), *cls.part_names()]

    @classmethod
    def choices(cls) -> set[str]:
        return {*list_parts(cls.slot), *cls.branches}

    @classmethod
    def fill(cls, keys: dict[Any, Any]) -> dict[Any, Any]:
        """Move the keys that name a part under ``parts``; one that is null is none."""
        given = {name: keys.pop(name) for name in cls.part_names() if name in keys}
        chosen = {k: cls.rename_options(k, v) for k, v in given.items() if v is not None}
        if chosen or not isinstance(keys.get("parts"), tuple):
            keys["parts"] = chosen
        return keys

    @classmethod
    def rename_options(cls, name: str, options: Any) -> Any:
        aliases = cls.part_aliases.get(name)
        return rename(options, aliases) if aliases and isinstance(options, Mapping) else options

    def __getattr__(self, name: str) -> Any:
        """A part as an attribute: its options where it is chosen, else None."""
        if not name.startswith("_") and name in list_parts(type(self).slot):
            parts: tuple[Part, ...] = self.__dict__.get("parts", ())
            return next((part for part in parts if part.name == name), None)
        return super().__getattr__(name)  # type: ignore[misc]  # pydantic hides it from checkers

    @classmethod
    def __get_pydantic_json_schema__(cls, core: CoreSchema, handler: GetJsonSchemaHandler) -> Json:
        reference = super().__get_pydantic_json_schema__(core, handler)
        block = handler.resolve_ref_schema(reference)
        keys = block["properties"]
        del keys["parts"]
        names = cls.part_names()
        for name in names:
            keys[name] = part_schema(cls.slot, name)
            options = keys[name]["properties"]
            for alias, option in cls.part_aliases.get(name, {}).items():
                options[alias] = options[option]
        inner = dict(block)
        block.clear()
        block["anyOf"] = [{"enum": names}, inner]
        return reference

    def changed_keys(self) -> Iterator[tuple[str, Any]]:
        """As in any block; for a part, its options that differ from their default."""
        for name, value in super().changed_keys():
            if name != "parts":
                yield name, value
        for part in self.__dict__["parts"]:
            yield part.name, part.changed_options(type(self).slot)

    def to_dict(self) -> dict[str, Any]:
        plain = super().to_dict()
        parts: dict[str, Any] = plain.pop("parts")
        return plain | parts
