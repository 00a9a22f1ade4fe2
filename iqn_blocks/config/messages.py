"""How faults and paths of keys are written."""

from __future__ import annotations

from collections.abc import Sequence

from iqn_blocks.plain import MAX_LINES, shorten

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


def dotted(loc: Sequence[str | int]) -> str:
    """``("nn", "x", 3)`` as ``nn.x[3]``."""
    path = ""
    for part in loc:
        path += f"[{part}]" if isinstance(part, int) else f".{shorten(part, MAX_KEY)}"
    return path.removeprefix(".")
