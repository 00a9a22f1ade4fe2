"""Plain data: what YAML and JSON can hold, frozen for keeping and thawed for writing."""

from __future__ import annotations

import math
import reprlib
import sys
from collections.abc import Iterable, Iterator, Mapping
from difflib import get_close_matches
from itertools import count
from typing import Any

MAX_DEPTH = 64
MAX_VALUES = 200_000
MAX_WHOLE = 2**64
MAX_LINES = 100  # faults that a message shows

Above = tuple[int, ...]  # identities of the blocks and lists around a value


class PlainData(Exception):
    """Data is not plain, or too much; the message says why."""


class FrozenMapping(Mapping[str, Any]):
    """A mapping that cannot change and can be hashed; its repr is that of a dict."""

    __slots__ = ("_items",)

    def __init__(self, items: Mapping[str, Any]) -> None:
        self._items = dict(items)

    def __getitem__(self, key: str) -> Any:
        return self._items[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._items)

    def __len__(self) -> int:
        return len(self._items)

    def __hash__(self) -> int:
        return hash(frozenset(self._items.items()))

    def __repr__(self) -> str:
        return repr(self._items)

    def __reduce__(self) -> tuple[type[FrozenMapping], tuple[dict[str, Any]]]:
        return FrozenMapping, (self._items,)


def from_numpy(value: object) -> Any:
    """Scalars of numpy and its arrays as Python numbers and lists; anything else unchanged.

    numpy is never imported here: values of it exist only where the caller imported it.
    """
    numpy = sys.modules.get("numpy")
    if numpy is None or type(value) in (str, int, float, bool, list, tuple, dict):
        return value
    if isinstance(value, numpy.ndarray):
        return value.tolist() if value.ndim else from_numpy(value[()])
    for abstract, python in (
        (numpy.bool_, bool),
        (numpy.integer, int),
        (numpy.floating, float),
        (numpy.str_, str),
    ):
        if isinstance(value, abstract):
            return python(value)
    return value


def freeze(value: object) -> Any:
    """A frozen copy: mappings as :class:`FrozenMapping`, lists as tuples.

    Raises:
        PlainData: for values other than None, bool, int, float, str, list and mapping, for keys
            other than strings, for NaN and infinity, for data that holds itself or is too much.
    """
    return _freeze(value, (), count(1))


def _freeze(value: object, above: Above, counter: Iterator[int]) -> Any:
    """``counter`` counts all values, because shared lists can stand for exponentially many."""
    if next(counter) > MAX_VALUES:
        raise PlainData(f"found more than {MAX_VALUES} values; accepted: at most that many")
    value = from_numpy(value)
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str | int | float):
        return _scalar(value)
    if not isinstance(value, Mapping | list | tuple):
        raise PlainData(
            f"found {show(value)}; accepted: null, booleans, numbers, strings, lists, blocks; "
            "write it as a string"
        )
    if id(value) in above:
        raise PlainData("found data that holds itself; accepted: plain data; write it out")
    if len(above) >= MAX_DEPTH:
        raise PlainData(f"found data nested deeper than {MAX_DEPTH}; accepted: up to that depth")
    above = (*above, id(value))
    if not isinstance(value, Mapping):
        return tuple(_freeze(item, above, counter) for item in value)
    for key in value:
        if not isinstance(key, str):
            raise PlainData(f"found the key {show(key)}; accepted: strings; put it in quotes")
    return FrozenMapping({str(key): _freeze(value[key], above, counter) for key in value})


def _scalar(value: str | float) -> str | float:
    """The value in Python's own type, whatever subclass of it was given."""
    if isinstance(value, str):
        return str(value)
    if isinstance(value, int):
        if abs(value) >= MAX_WHOLE:
            raise PlainData(
                f"found {show(value)}; accepted: whole numbers of up to 64 bits; write it as a "
                "string"
            )
        return int(value)
    if not math.isfinite(value):
        raise PlainData(f"found {value}; accepted: finite numbers")
    return float(value)


def thaw(value: object) -> Any:
    """The plain data that was frozen: dicts and lists, the caller's own."""
    if isinstance(value, Mapping):
        return {key: thaw(item) for key, item in value.items()}
    if isinstance(value, tuple):
        return [thaw(item) for item in value]
    return value


class _Short(reprlib.Repr):
    """A repr of bounded length that also survives numbers too long to print."""

    def repr_int(self, x: int, level: int) -> str:
        if abs(x) >= 10**self.maxlong:
            return f"a whole number of about {int(x.bit_length() * 0.30103)} digits"
        return repr(x)


_SHORT = _Short()
_SHORT.maxstring = _SHORT.maxother = 60


def show(value: object) -> str:
    """A short repr of ``value`` with its type, for messages."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return f"{' '.join(_SHORT.repr(value).split())} ({type(value).__name__})"


def shorten(text: str, longest: int) -> str:
    """``text`` as it is; one that is longer or cannot be printed is cut and quoted."""
    is_fine = text.isprintable() and len(text) <= longest
    return text if is_fine else f"{text[:longest]!r}…"


def nearest(name: object, names: Iterable[str], cutoff: float = 0.6) -> str | None:
    """The one of ``names`` that is most like ``name``, if any is."""
    return next(iter(get_close_matches(str(name)[:80], list(names), 1, cutoff)), None)
