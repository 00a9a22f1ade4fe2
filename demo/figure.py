"""The demo's picture: a frame beside each action's quantile function."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import matplotlib
import numpy as np
from torch import Tensor

matplotlib.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes


class Curves(NamedTuple):
    """One panel: the quantile values ``q (K, A)`` of a network at the levels ``tau (K,)``."""

    title: str
    tau: Tensor
    q: Tensor


def draw(path: Path, screen: np.ndarray, actions: Sequence[str], panels: Sequence[Curves]) -> None:
    """Write the frame (H, W) and one panel a network, with a curve for each action.

    Nothing orders the values of an untrained network in τ. The faint line is what it gives at τ;
    the strong one has the same values in order: the quantile function of ``q(τ)``, ``τ ~ U[0, 1]``.
    """
    titles = [panel.title for panel in panels]
    half = (len(titles) + 1) // 2
    rows = [titles] if len(titles) < 3 else [titles[:half], titles[half:]]
    figure, axes = plt.subplot_mosaic(
        [["frame", *row] for row in rows],
        figsize=(5.2 + 3.2 * len(rows[0]), 1.2 + 3.0 * len(rows)),
        layout="constrained",
    )
    axes["frame"].imshow(screen, cmap="gray", vmin=0, vmax=255)
    axes["frame"].set_title("the frame")
    axes["frame"].set_axis_off()
    for panel in panels:
        _draw_curves(axes[panel.title], actions, panel)
    handles, labels = axes[titles[0]].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right center", title="action")
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _draw_curves(axis: Axes, actions: Sequence[str], panel: Curves) -> None:
    colors = plt.get_cmap("tab10")
    for action, name in enumerate(actions):
        raw = panel.q[:, action]
        axis.plot(panel.tau, raw, color=colors(action), alpha=0.15, linewidth=0.6)
        axis.plot(panel.tau, raw.sort().values, color=colors(action), linewidth=1.8, label=name)
    greedy = int(panel.q.mean(0).argmax())
    axis.set_title(f"{panel.title}, greedy: {actions[greedy]}")
    axis.set_xlabel("τ")
    axis.set_ylabel("quantile value")
    axis.set_xlim(0, 1)
    axis.grid(alpha=0.3)
