"""What a single value of a configuration accepts: strict readers with messages for people.

A kind stands in an annotation, as in ``Annotated[int, Whole(1)]``, on a key of the schema or on an
option of a part; pydantic and :mod:`iqn_blocks.registry` call :meth:`Kind.read`. The names at the
end, such as ``Size``, are the usual ones.
"""

from __future__ import annotations

import math
import types
from collections.abc import Mapping
from collections.abc import Sequence as AnySequence
from dataclasses import dataclass, field, replace
from itertools import count
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Union, get_args, get_origin

from pydantic_core import PydanticCustomError, core_schema

from iqn_blocks.plain import MAX_WHOLE, PlainData, freeze, from_numpy, nearest, show, thaw

if TYPE_CHECKING:
    from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler

Json = dict[str, Any]

MAX_SIZE = 65_536
MAX_LAYERS = 128
# Buffers are float32 at least: outside this range a number would become inf or 0 there.
MAX_REAL = 3.4028234663852886e38
MIN_POSITIVE = 2.0**-126


def line(text: str, **context: str) -> PydanticCustomError:
    """An error line without its path."""
    return PydanticCustomError("config", "{text}", {"text": text, **context})


def fault(found: object, accepts: str, way_out: str = "") -> PydanticCustomError:
    """An error line without its path: what was found, what is accepted, the way out."""
    return line(f"found {show(found)}; accepted: {accepts}" + (f"; {way_out}" if way_out else ""))


@dataclass(frozen=True)
class Kind:
    """Base of the kinds: ``null`` says whether null is accepted too."""

    null: bool = False
    holds_part: ClassVar[bool] = False  # a name, or a name over its options

    @property
    def wants(self) -> str:
        """What is accepted apart from null, in words."""
        raise NotImplementedError

    def convert(self, value: Any) -> object:
        """``value`` as plain Python; raises the error of :func:`fault`."""
        raise NotImplementedError

    @property
    def accepts(self) -> str:
        """What is accepted, in words."""
        return f"{self.wants}, or null" if self.null else self.wants

    def read(self, value: object) -> object:
        """``value`` as plain Python; raises the error of :func:`fault`."""
        if value is None:
            if self.null:
                return None
            raise fault(None, self.accepts, "leave the key out for its default")
        return self.convert(from_numpy(value))

    def plain(self, value: Any) -> Any:
        """Plain data that reads back as a value equal to this one, which was read."""
        return thaw(value)

    def schema(self) -> Json:
        """The JSON Schema of what is accepted apart from null, for editors."""
        return {}

    def schema_or_null(self) -> Json:
        """The JSON Schema of what is accepted."""
        return {"anyOf": [self.schema(), {"type": "null"}]} if self.null else self.schema()

    def __get_pydantic_core_schema__(
        self, source: type, handler: GetCoreSchemaHandler
    ) -> core_schema.CoreSchema:
        return core_schema.no_info_plain_validator_function(self.read)

    def __get_pydantic_json_schema__(
        self, _: core_schema.CoreSchema, handler: GetJsonSchemaHandler
    ) -> Json:
        return self.schema_or_null()


@dataclass(frozen=True)
class Flag(Kind):
    """true or false."""

    wants = "true or false"

    def convert(self, value: Any) -> object:
        if isinstance(value, bool):
            return value
        word, way_out = str(value).lower() if isinstance(value, str | int) else "", ""
        if word in ("true", "yes", "on", "1"):
            way_out = "write true"
        elif word in ("false", "no", "off", "0"):
            way_out = "write false"
        raise fault(value, self.accepts, way_out)

    def schema(self) -> Json:
        return {"type": "boolean"}


@dataclass(frozen=True)
class Whole(Kind):
    """A whole number from ``low`` to ``high``."""

    low: int = 1
    high: int = MAX_SIZE

    @property
    def wants(self) -> str:
        if self.low == -MAX_WHOLE:
            return "a whole number"
        return f"a whole number from {self.low} to {self.high}"

    def convert(self, value: Any) -> object:
        if isinstance(value, bool) or not isinstance(value, int):
            raise fault(value, self.accepts, self._way_out(value))
        if not self.low <= value <= self.high:
            raise fault(value, self.accepts)
        return int(value)

    def schema(self) -> Json:
        return {"type": "integer", "minimum": self.low, "maximum": self.high}

    def _way_out(self, value: object) -> str:
        if isinstance(value, float) and value.is_integer() and self.low <= value <= self.high:
            return f"write {int(value)}"
        if isinstance(value, str) and value.strip().isdecimal():
            return "write it without quotes"
        return ""


@dataclass(frozen=True)
class Real(Kind):
    """A finite number from ``low`` to ``high``; ``below`` leaves ``high`` itself out."""

    low: float = -MAX_REAL
    high: float = MAX_REAL
    below: bool = False

    @property
    def wants(self) -> str:
        if self.low == MIN_POSITIVE:
            return "a finite number above 0"
        bounds = [f"at least {self.low:g}"] if self.low != -MAX_REAL else []
        if self.high != MAX_REAL:
            bounds += [f"{'below' if self.below else 'at most'} {self.high:g}"]
        return " ".join(["a finite number", " and ".join(bounds)]).strip()

    def convert(self, value: Any) -> object:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise fault(value, self.accepts, self._way_out(value))
        inside = self.low <= value <= self.high and not (self.below and value == self.high)
        if not inside:  # also where value is NaN
            too_far = MAX_REAL < abs(value) < math.inf or 0 < value < MIN_POSITIVE
            raise fault(value, self.accepts, "it does not fit float32" if too_far else "")
        return float(value)

    def schema(self) -> Json:
        below = "exclusiveMaximum" if self.below else "maximum"
        return {"type": "number", "minimum": self.low, below: self.high}

    @staticmethod
    def _way_out(value: object) -> str:
        if not isinstance(value, str):
            return ""
        try:
            number = float(value)
        except ValueError:
            return ""
        if not math.isfinite(number):
            return ""
        mantissa, e, exponent = value.strip().lower().partition("e")
        if not e:
            return "write it without quotes"
        mantissa = mantissa if "." in mantissa else f"{mantissa}.0"
        exponent = exponent if exponent[0] in "+-" else f"+{exponent}"
        return f"write {mantissa}e{exponent} without quotes (YAML reads {value} as a string)"


@dataclass(frozen=True)
class Text(Kind):
    """A string; ``empty`` says whether it may be empty."""

    empty: bool = True

    @property
    def wants(self) -> str:
        return "a string" if self.empty else "a string that is not empty"

    def convert(self, value: Any) -> object:
        if not isinstance(value, str):
            raise fault(value, self.accepts, "put it in quotes")
        if not (value or self.empty):
            raise fault(value, self.accepts)
        return str(value)

    def schema(self) -> Json:
        return {"type": "string", "minLength": 0 if self.empty else 1}


@dataclass(frozen=True)
class Choice(Kind):
    """One of ``names``; ``refused`` are known names with the reason why they are not accepted."""

    names: tuple[str, ...] = ()
    refused: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, literal: object, **more: Any) -> Choice:
        """The kind that accepts the names of a ``Literal`` type."""
        return cls(names=get_args(literal), **more)

    @property
    def wants(self) -> str:
        *others, last = self.names
        return f"{', '.join(others)} or {last}" if others else last

    def convert(self, value: Any) -> object:
        if not isinstance(value, str):
            raise fault(value, self.accepts)
        if value in self.names:
            return str(value)
        near = nearest(value, [*self.names, "null"] if self.null else self.names)
        hint = f"did you mean {near}?" if near else ""
        raise fault(value, self.accepts, self.refused.get(value, hint))

    def schema(self) -> Json:
        return {"enum": list(self.names)}


@dataclass(frozen=True)
class Sequence(Kind):
    """A list, tuple or array of ``shortest`` to ``longest`` items, each read by ``item``."""

    item: Kind | None = None
    items: str = "numbers"
    shortest: int = 0
    longest: int = MAX_SIZE

    @property
    def wants(self) -> str:
        least = f" with at least {self.shortest}" if self.shortest else ""
        return f"a list of {self.items}{least}"

    def convert(self, value: Any) -> object:
        if not isinstance(value, list | tuple):
            raise fault(value, self.accepts)
        if not self.shortest <= len(value) <= self.longest:
            raise fault(value, f"{self.accepts} and at most {self.longest} items")
        return tuple(value if self.item is None else map(self._read_item, count(), value))

    def schema(self) -> Json:
        items = {} if self.item is None else {"items": self.item.schema_or_null()}
        return {"type": "array", "minItems": self.shortest, "maxItems": self.longest} | items

    def _read_item(self, index: int, value: object) -> object:
        assert self.item is not None
        try:
            return self.item.read(value)
        except PydanticCustomError as error:
            raise line(error.message(), item=f"[{index}]") from None

    def __get_pydantic_core_schema__(
        self, source: type, handler: GetCoreSchemaHandler
    ) -> core_schema.CoreSchema:
        """Pydantic reads the items, so that it finds the faults of them all."""
        return core_schema.no_info_before_validator_function(self.read, handler(source))


@dataclass(frozen=True)
class Plain(Kind):
    """Any plain data, for options that carry no annotation."""

    wants = "plain data"

    def read(self, value: object) -> object:
        try:
            return freeze(value)
        except PlainData as reason:
            raise line(str(reason)) from None


@dataclass(frozen=True)
class FreeMapping(Plain):
    """Keys of the user's own: strings, with plain data as values; null is a block without keys."""

    wants = "a block of the user's own keys with plain data"

    def read(self, value: object) -> object:
        value = {} if value is None else value
        if not isinstance(value, Mapping):
            raise fault(value, self.accepts)
        return super().read(value)

    def schema(self) -> Json:
        return {"type": ["object", "null"]}


def kind_of(annotation: Any) -> Kind | None:
    """The kind that an annotation stands for; None where a configuration cannot hold such a value.

    ``bool``, ``int``, ``float``, ``str``, ``Literal``, sequences of these and ``X | None`` have
    one; ``Annotated[X, kind]`` names its own, such as bounds.
    """
    if get_origin(annotation) is Annotated:
        own = next((extra for extra in get_args(annotation)[1:] if isinstance(extra, Kind)), None)
        return own or kind_of(get_args(annotation)[0])
    plain = {bool: Flag(), int: Whole(low=-MAX_WHOLE, high=MAX_WHOLE), float: Real(), str: Text()}
    if isinstance(annotation, type) and annotation in plain:
        return plain[annotation]
    origin, inside = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return Choice.of(annotation)
    if origin in (Union, types.UnionType):
        some = [kind_of(option) for option in inside if option is not type(None)]
        return replace(some[0], null=type(None) in inside) if len(some) == 1 and some[0] else None
    if isinstance(origin, type) and issubclass(origin, AnySequence):
        item = kind_of(inside[0])
        return item and Sequence(item=item, items="values")
    return Plain() if annotation in (Any, object) else None


Bool = Annotated[bool, Flag()]
BoolOrNull = Annotated[bool | None, Flag(null=True)]
Size = Annotated[int, Whole()]
SizeOrNull = Annotated[int | None, Whole(null=True)]
Count = Annotated[int, Whole(low=0)]
Layers = Annotated[int, Whole(high=MAX_LAYERS)]
LayersOrNone = Annotated[int, Whole(low=0, high=MAX_LAYERS)]
Sizes = Annotated[
    tuple[Annotated[int, Whole()], ...],
    Sequence(item=Whole(), items="sizes", shortest=1, longest=MAX_LAYERS),
]
Probability = Annotated[float, Real(low=0.0, high=1.0, below=True)]
Finite = Annotated[float, Real()]
Positive = Annotated[float, Real(low=MIN_POSITIVE)]
NotNegative = Annotated[float, Real(low=0.0)]
NotPositive = Annotated[float, Real(high=0.0)]
String = Annotated[str, Text()]
OwnKeys = Annotated[Mapping[str, Any], FreeMapping()]
