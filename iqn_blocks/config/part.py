"""The choice of a part in the configuration: its name, and the options it is called with."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, cast

from pydantic_core import PydanticCustomError, core_schema

from iqn_blocks.config.block import Block
from iqn_blocks.kinds import Json, Kind, fault, faults, faults_of
from iqn_blocks.plain import FrozenMapping, show, thaw
from iqn_blocks.registry import Slot, find_part, list_parts, options_of, read_options

if TYPE_CHECKING:
    from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler

# Options that a part gets from keys of the whole network, where it takes them and they are not
# given: see iqn_blocks.build.
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

    def given(self, slot: Slot) -> dict[str, Any]:
        """The options that differ from their defaults."""
        defaults = _defaults(slot, self.name)
        return {
            k: thaw(v) for k, v in self.options.items() if k not in defaults or v != defaults[k]
        }


def _defaults(slot: Slot, name: str) -> dict[str, Any]:
    options = options_of(find_part(slot, name), slot)
    settable = {k: o for k, o in options.items() if o.kind is not None and not o.is_required}
    return {k: o.default for k, o in settable.items() if k not in SHARED}


def read_part(slot: Slot, name: str, given: object, path: str = "") -> Part:
    """The part ``name`` with options as a configuration gives them, below ``path``.

    Raises:
        PydanticCustomError: no such part, or faults in its options.
    """
    try:
        part = find_part(slot, name)
    except LookupError as error:
        raise faults([("", str(error.args[0]))]) from None
    given = {} if given is None else given
    if not isinstance(given, Mapping):
        raise faults([(path, fault(given, f"a block of options of {name}").message())])
    values, found = read_options(part, slot, given)
    if found:
        raise faults([(f"{path}.{option}".strip("."), text) for option, text in found])
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


class PartKind(Kind):
    """Base of the kinds below: what they read is checked by the part's own signature."""

    def __get_pydantic_core_schema__(
        self, source: type, handler: GetCoreSchemaHandler
    ) -> core_schema.CoreSchema:
        return core_schema.no_info_plain_validator_function(self.read)


@dataclass(frozen=True)
class PartOf(PartKind):
    """A part of ``slot``: its bare name, or its name over its options."""

    holds_part: ClassVar[bool] = True
    slot: Slot = "trunk"

    @property
    def wants(self) -> str:
        return f"one of {', '.join(list_parts(self.slot))}, or one of these over its options"

    def convert(self, value: Any) -> object:
        if isinstance(value, Part):
            return read_part(self.slot, value.name, value.options) if value.options else value.name
        if isinstance(value, str):
            return read_part(self.slot, value, {}).name
        if isinstance(value, Mapping) and len(value) == 1:
            ((name, options),) = value.items()
            part = read_part(self.slot, str(name), options, str(name))
            return part if part.given(self.slot) else part.name
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
class OptionsOf(PartKind):
    """The options of one part of ``slot``, under a key of its own."""

    slot: Slot = "trunk"
    name: str = ""

    @property
    def wants(self) -> str:
        return "a block"

    def read(self, value: object) -> object:
        given = value.options if isinstance(value, Part) else value
        return read_part(self.slot, self.name, given)

    def plain(self, value: Any) -> Any:
        return thaw(value.options)

    def schema(self) -> Json:
        return part_schema(self.slot, self.name)


@dataclass(frozen=True)
class PartsOf(PartKind):
    """What a :class:`Chooser` collects: parts by name.

    ``refused`` are known options of other systems, with the reason why nothing builds them.
    """

    slot: Slot = "head"
    refused: tuple[tuple[str, str], ...] = ()

    @property
    def wants(self) -> str:
        return f"one of {', '.join(list_parts(self.slot))}"

    def convert(self, value: Any) -> object:
        if isinstance(value, tuple):
            return value
        parts, found = [], []
        for name, options in value.items():
            try:
                given = options.options if isinstance(options, Part) else options
                parts.append(read_part(self.slot, name, given, name))
            except PydanticCustomError as error:
                for path, text in faults_of(error):
                    reason = dict(self.refused).get(path.removeprefix(f"{name}."))
                    if reason:
                        text = f"found {show(given[path.rpartition('.')[2]])}; {reason}"
                    found.append((path, text))
        if found:
            raise faults(found)
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
    def names(cls) -> list[str]:
        """The keys of the block: its own, and the parts."""
        own = [name for name in cls.model_fields if name != "parts"]
        return [*own, *(name for name in list_parts(cls.slot) if name not in own)]

    @classmethod
    def choices(cls) -> set[str]:
        return {*list_parts(cls.slot), *cls.branches}

    @classmethod
    def collect(cls, keys: dict[Any, Any]) -> None:
        """Move the keys that name a part under ``parts``; one that is null is none."""
        chosen = {
            name: cls.in_our_names(name, keys.pop(name))
            for name in list_parts(cls.slot)
            if name in keys and name not in cls.model_fields
        }
        chosen = {name: given for name, given in chosen.items() if given is not None}
        if chosen or not isinstance(keys.get("parts"), tuple):
            keys["parts"] = chosen

    @classmethod
    def in_our_names(cls, name: str, given: Any) -> Any:
        """The options of a part with aliases replaced; an alias beside its name stays a fault."""
        aliases = cls.part_aliases.get(name, {})
        if not isinstance(given, Mapping) or not aliases:
            return given
        return {k if aliases.get(k, k) in given else aliases.get(k, k): v for k, v in given.items()}

    def __getattr__(self, name: str) -> Any:
        """A part as an attribute: its options where it is chosen, else None."""
        if not name.startswith("_") and name in list_parts(type(self).slot):
            parts: tuple[Part, ...] = self.__dict__.get("parts", ())
            return next((part for part in parts if part.name == name), None)
        return super().__getattr__(name)  # type: ignore[misc]  # pydantic hides it from checkers

    @classmethod
    def __get_pydantic_json_schema__(
        cls, core: core_schema.CoreSchema, handler: GetJsonSchemaHandler
    ) -> Json:
        reference = super().__get_pydantic_json_schema__(core, handler)
        block = handler.resolve_ref_schema(reference)
        keys = block["properties"]
        del keys["parts"]
        names = [name for name in list_parts(cls.slot) if name not in keys]
        for name in names:
            keys[name] = part_schema(cls.slot, name)
            options = keys[name]["properties"]
            for alias, option in cls.part_aliases.get(name, {}).items():
                options[alias] = options[option]
        inner = dict(block)
        block.clear()
        block["anyOf"] = [{"enum": names}, inner]
        return reference

    def __repr_args__(self) -> Iterator[tuple[str, Any]]:
        for name, value in super().__repr_args__():
            if name != "parts":
                yield name, value
        for part in self.__dict__["parts"]:
            yield part.name, part.given(type(self).slot)

    def to_dict(self) -> dict[str, Any]:
        plain = super().to_dict()
        parts: dict[str, Any] = plain.pop("parts")
        return plain | parts
