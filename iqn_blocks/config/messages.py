"""Pydantic's findings as one ConfigError in our own words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from iqn_blocks.errors import ConfigError
from iqn_blocks.plain import nearest, shorten, show

if TYPE_CHECKING:
    from iqn_blocks.config.block import Block

MAX_LINES = 100
# What other libraries call a thing that has another key here.
ELSEWHERE = {
    "frame_stack": "stacked frames are image channels: set nn.vis.in_channels",
    "n_frames": "stacked frames are image channels: set nn.vis.in_channels",
    "stem": "a stem is a key of nn.vis by its name, such as nn.vis.impala",
}
MAX_KEY = 80


def join(faults: Sequence[str], more: int = 0) -> str:
    """One fault as it is, several as a list; ``more`` counts faults that are not in it."""
    more += len(faults[MAX_LINES:])
    faults = faults[:MAX_LINES]
    if len(faults) + more == 1:
        return faults[0]
    lines = [f"- {fault}" for fault in faults] + [f"- and {more} more"] * (more > 0)
    return "\n".join([f"{len(faults) + more} faults in the configuration:", *lines])


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
    return [f"{path}.{below}".strip(".") + f": {text}" for below, text in entry["ctx"]["faults"]]


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


def dotted(loc: Sequence[str | int]) -> str:
    """``("nn", "x", 3)`` as ``nn.x[3]``."""
    path = ""
    for part in loc:
        path += f"[{part}]" if isinstance(part, int) else f".{shorten(part, MAX_KEY)}"
    return path.removeprefix(".")


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
