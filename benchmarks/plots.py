"""Bars of recorded results, for the docs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
matplotlib.rcParams["svg.hashsalt"] = "iqn-blocks"  # the same file from the same numbers

from matplotlib import pyplot as plt  # noqa: E402  # the backend is chosen first
from matplotlib.axes import Axes  # noqa: E402

from benchmarks.results import Record, find  # noqa: E402

KINDS = ("acting", "training", "memory")
COLORS = {
    "ours": "#4878a8",
    "ours onnxruntime": "#1f4e79",
    "literal onnxruntime": "#e0a458",
    "ours compiled": "#85b0d5",
    "ours recompute": "#6aa56e",
    "ours bfloat16": "#b48ac0",
    "literal compiled": "#c9a36b",
}


def draw(records: Sequence[Record], path: Path) -> bool:
    """One panel a kind and case: each side as a share of the literal one; False without any."""
    panels: dict[tuple[str, str], list[Record]] = {}
    for record in records:
        if record.kind in KINDS and find(_group(records, record), "literal"):
            # The batch differs between networks in training: it is no part of a panel.
            case = record.case if record.kind == "acting" else record.case.partition(", B=")[0]
            case = "" if case.startswith("B=") and record.kind != "acting" else case
            panels.setdefault((record.kind, case), []).append(record)
    if not panels:
        return False
    figure, axes = plt.subplots(
        len(panels), 1, figsize=(9, 2.4 * len(panels)), squeeze=False, layout="constrained"
    )
    for axis, ((kind, case), members) in zip(axes[:, 0], panels.items(), strict=True):
        _panel(axis, f"{kind}, {case}".rstrip(", "), members)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)
    return True


def _panel(axis: Axes, title: str, records: Sequence[Record]) -> None:
    networks = list(dict.fromkeys(record.scenario for record in records))
    sides = list(dict.fromkeys(r.side for r in records if r.side in COLORS))
    width = 0.8 / len(sides)
    for index, side in enumerate(sides):
        shares, places = [], []
        for place, network in enumerate(networks):
            members = [record for record in records if record.scenario == network]
            record, literal = find(members, side), find(members, "literal")
            if record and literal:
                shares.append(record.median / literal.median)
                places.append(place + (index - (len(sides) - 1) / 2) * width)
        axis.bar(places, shares, width, label=side, color=COLORS[side])
    axis.axhline(1, color="black", linewidth=0.8)
    axis.set_xticks(range(len(networks)), networks)
    axis.set_title(f"{title} (literal = 1, lower is better)", fontsize=10)
    axis.legend(fontsize=7, loc="upper left", bbox_to_anchor=(1, 1))
    axis.spines[["top", "right"]].set_visible(False)


def _group(records: Sequence[Record], like: Record) -> list[Record]:
    return [record for record in records if record.group == like.group]
