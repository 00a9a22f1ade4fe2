"""Pydantic's findings as one ConfigError in our own words."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import Any

from pydantic import ValidationError

from iqn_blocks.config.keys import Keys, all_keys, block_at, wanted
from iqn_blocks.errors import ConfigError
from iqn_blocks.plain import show

MAX_LINES = 100
# What other libraries call a thing that has another key here.
ELSEWHERE = {
    "frame_stack": "stacked frames are image channels: set nn.vis.in_channels",
    "n_frames": "stacked frames are image channels: set nn.vis.in_channels",
    "stem": "a stem is a key of nn.vis by its name, such as nn.vis.impala",
}
MAX_KEY = 80


def join(faults: Sequence[str], more: int = 0) -> str:
    """One fault as it is, several as a list; ``more`` are counted without being given."""
    more += len(faults[MAX_LINES:])
    faults = faults[:MAX_LINES]
    if len(faults) + more == 1:
        return faults[0]
    lines = [f"- {fault}" for fault in faults] + [f"- and {more} more"] * (more > 0)
    return "\n".join([f"{len(faults) + more} faults in the configuration:", *lines])


def config_error(block: type[Keys], error: ValidationError) -> ConfigError:
    """The error to raise for what pydantic found in a ``block``."""
    found = error.errors(include_url=False)
    for entry in found:
        inner = entry.get("ctx", {}).get("error")
        if isinstance(inner, ConfigError):
            return inner
    shown, rest = found[:MAX_LINES], found[MAX_LINES:]  # looking for near names takes time
    lines = [line for entry in shown for line in _lines(block, entry)]
    return ConfigError(join(lines, len(rest)))


def _lines(block: type[Keys], entry: Any) -> list[str]:
    if entry["type"] != "part":
        return [_line(block, entry)]
    path = dotted(entry["loc"]).removesuffix(".parts")
    return [
        f"{path}.{below}".strip(".").replace(".[", "[") + f": {text}"
        for below, text in entry["ctx"]["faults"]
    ]


def _line(block: type[Keys], entry: Any) -> str:
    loc, kind = entry["loc"], entry["type"]
    path = dotted(loc) or "top level"
    if kind == "extra_forbidden":
        return f"{path}: {_unknown(block, loc, entry['input'])}"
    if kind == "invalid_key":
        where = dotted(loc[:-1]) or "top level"
        return f"{where}: found the key {show(entry['input'])}; accepted: strings; put it in quotes"
    if kind == "missing":
        accepts = wanted(block_at(block, loc[:-1]), str(loc[-1]))
        return f"{path}: missing; accepted: {accepts}; add this key"
    if kind == "model_type":
        names = block_at(block, loc).names()
        keys = ", ".join(names)
        found = f"{path}: found {show(entry['input'])}; accepted: a block with the keys {keys}"
        is_short = len(names) <= 3
        return f"{found}; write {{{': …, '.join(names)}: …}}" if is_short else found
    return f"{path}: {entry['msg']}"


def dotted(loc: Sequence[str | int]) -> str:
    """``("nn", "x", 3)`` as ``nn.x[3]``."""
    path = ""
    for part in loc:
        path += f"[{part}]" if isinstance(part, int) else f".{_short(part)}"
    return path.removeprefix(".")


def _short(key: str) -> str:
    """A key as it is, or in short where it is none that anybody would write."""
    return key if key.isprintable() and len(key) <= MAX_KEY else f"{key[:MAX_KEY]!r}…"


def _unknown(root: type[Keys], loc: Sequence[str | int], value: object) -> str:
    key, block = str(loc[-1]), block_at(root, loc[:-1])
    if key in block.aliases:
        return f"given beside {block.aliases[key]}, which means the same; keep one of them"
    if key in ELSEWHERE:
        return f"unknown key; {ELSEWHERE[key]}"
    valid = [*block.names(), *block.aliases]
    near = difflib.get_close_matches(key[:MAX_KEY], valid, 1)
    if near:
        return f"unknown key; did you mean {near[0]}?"
    elsewhere = [path for name, path in all_keys(root) if name == key]
    if elsewhere:
        return f"unknown key; did you mean {' or '.join(elsewhere[:3])}?"
    nearest = difflib.get_close_matches(key[:MAX_KEY], valid, 1, cutoff=0.0)
    return f"unknown key; the nearest is {nearest[0]}; valid here: {', '.join(block.names())}"
