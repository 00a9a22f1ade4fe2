"""The slots of a network and the parts that fill them.

A part is a class, or a function that makes a module, in a slot under a name. Its options are the
keyword arguments of its constructor: names, types and defaults come from the signature, bounds
from :mod:`iqn_blocks.kinds`, meanings from the ``Args:`` of its docstring. Nothing else describes
a part.
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple, TypeVar, get_args

from pydantic_core import PydanticCustomError
from torch import nn

from iqn_blocks.kinds import Fault, Kind, Plain, faults_of, kind_of
from iqn_blocks.plain import MAX_LINES, nearest

Slot = Literal["topology", "stem", "floats", "trunk", "core", "mixer", "head"]
PartClass = Callable[..., nn.Module]
AnyPart = TypeVar("AnyPart", bound=PartClass)

# Arguments that the network itself gives, in order; all further ones are options.
ARGUMENTS: Mapping[Slot, tuple[str, ...]] = {
    "topology": ("config",),
    "stem": ("in_channels", "image_size"),
    "floats": ("n_floats",),
    "trunk": ("n_tokens", "d_model"),
    "core": ("state_dim",),
    "mixer": ("state_dim",),
    "head": ("in_dim", "out_shape"),
}
# Widths that a part must have as integers, once it is made.
WIDTHS: Mapping[Slot, tuple[str, ...]] = {
    "topology": ("state_dim",),
    "stem": ("out_dim",),
    "floats": ("out_dim",),
    "core": ("state_dim",),
    "mixer": ("phi_dim", "out_dim"),
}
_PARTS: dict[Slot, dict[str, PartClass]] = {slot: {} for slot in get_args(Slot)}


class Option(NamedTuple):
    """One option of a part; ``kind`` is None where a configuration cannot set it."""

    kind: Kind | None
    default: Any
    meaning: str

    @property
    def is_required(self) -> bool:
        """Whether it has no default."""
        return self.default is inspect.Parameter.empty


def register(name: str, slot: Slot = "topology") -> Callable[[AnyPart], AnyPart]:
    """Make a part available under a name in the configuration key of its slot.

    What each slot calls its part with, and what it expects back, is in docs/parts.md.

    >>> import iqn_blocks
    >>> @register("floats_as_they_are")
    ... class Raw(nn.Module):
    ...     def __init__(self, config):
    ...         super().__init__()
    ...         self.state_dim = config.float_input_dim
    ...     def forward(self, img, floats):
    ...         return floats
    >>> net = iqn_blocks.build({"n_actions": 3, "float_input_dim": 2, "nn": {
    ...     "topology": "floats_as_they_are", "vis": {"no_image": True}}})

    Raises:
        ValueError: no such slot, or another part has that name in it.
    """
    parts = _parts(slot)

    def add(part: AnyPart) -> AnyPart:
        if parts.get(name, part) is not part:
            raise ValueError(f"register: the {slot} name {name!r} is taken by {parts[name]!r}")
        parts[name] = part
        return part

    return add


def list_parts(slot: Slot) -> list[str]:
    """Names of the parts that a slot has, the library's and your own.

    >>> list_parts("topology")[:3]
    ['classic', 'hf_vision', 'multimodal']

    Raises:
        ValueError: no such slot.
    """
    return list(_parts(slot))


def find_part(slot: Slot, name: str) -> PartClass:
    """The part of that name.

    Raises:
        LookupError: there is none; says what is registered and the nearest name.
    """
    parts = _parts(slot)
    if name in parts:
        return parts[name]
    near = nearest(name, parts)
    hint = f"; did you mean {near!r}?" if near else "."
    raise LookupError(
        f"{name[:80]!r} is not registered{hint} Registered are {', '.join(map(repr, parts))}; add "
        f"your own with iqn_blocks.register"
    )


def options_of(part: PartClass, slot: Slot) -> dict[str, Option]:
    """The options of a part, in the order of its signature.

    A parameter without an annotation takes any plain data. Bases of a class may describe options.
    """
    docs = [inspect.cleandoc(one.__doc__ or "") for one in getattr(part, "__mro__", (part,))]
    text = "\n".join(reversed(docs))  # a class overrides what its bases say
    meanings = dict(re.findall(r"^    (\w+): (.+(?:\n {8,}.+)*)", text, re.MULTILINE))
    made_by = getattr(part, "__init__", part) if inspect.isclass(part) else part
    namespace = getattr(made_by, "__globals__", None) or vars(sys.modules[part.__module__])
    options = {}
    for parameter in list(inspect.signature(part).parameters.values())[len(ARGUMENTS[slot]) :]:
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            continue
        meaning = " ".join(meanings.get(parameter.name, "").split())
        kind = _kind(parameter.annotation, namespace)
        options[parameter.name] = Option(kind, parameter.default, meaning)
    return options


def read_options(
    part: PartClass, slot: Slot, given: Mapping[Any, Any]
) -> tuple[dict[str, Any], list[Fault]]:
    """What a configuration gives a part as checked values, and the faults in it.

    A fault is the option's name and what is wrong with it. Options that are not given stay out.
    """
    options, values, faults = options_of(part, slot), {}, list[Fault]()
    accepts_any = any(p.kind is p.VAR_KEYWORD for p in inspect.signature(part).parameters.values())
    for name, value in given.items():
        option = options.get(name, Option(Plain(), None, "") if accepts_any else None)
        if option is None or option.kind is None:
            shown = len(faults) < MAX_LINES  # looking for near names takes time
            text = _unknown(name, options) if shown else "unknown option"
            faults.append((str(name)[:80], text))
            continue
        try:
            values[str(name)] = option.kind.read(value)
        except PydanticCustomError as error:
            faults += [(f"{name}{below}", text) for below, text in faults_of(error)]
    for name, option in options.items():
        if option.is_required and option.kind is not None and name not in given:
            faults.append((name, f"missing; accepted: {option.kind.accepts}; add this option"))
    return values, faults


def _parts(slot: Slot) -> dict[str, PartClass]:
    if slot not in _PARTS:
        raise ValueError(f"slot: got {slot!r}, accepted are {', '.join(map(repr, _PARTS))}")
    return _PARTS[slot]


def _kind(annotation: Any, namespace: Mapping[str, Any]) -> Kind | None:
    if annotation is inspect.Parameter.empty:
        return Plain()
    if isinstance(annotation, str):
        try:
            annotation = eval(annotation, dict(namespace))  # a hint of a module that defers them
        except Exception:  # it names something that exists for type checkers alone
            return None
    return kind_of(annotation)


def _unknown(name: object, options: Mapping[str, Option]) -> str:
    valid = [key for key, option in options.items() if option.kind is not None]
    near = nearest(name, valid)
    hint = f"did you mean {near}?" if near else f"valid here: {', '.join(valid) or 'none'}"
    return f"unknown option; {hint}"
