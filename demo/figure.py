"""The demo's picture: a frame beside each action's quantile function."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np
from torch import Tensor

matplotlib.use("Agg")
from matplotlib import pyplot as plt


def draw(
    path: Path,
    screen: np.ndarray,
    actions: Sequence[str],
    curves: Sequence[tuple[str, Tensor, Tensor]],
) -> None:
    """Write the frame (H, W) and, for each (title, tau (K,), q (K, A)), a panel of A curves."""
    figure, axes = plt.subplots(
        1,
        1 + len(curves),
        figsize=(3.2 + 4.2 * len(curves), 4.2),
        width_ratios=[0.8] + [1.0] * len(curves),
        layout="constrained",
    )
    frame, *panels = axes
    frame.imshow(screen, cmap="gray", vmin=0, vmax=255)
    frame.set_axis_off()
    colors = plt.get_cmap("tab10").colors
    for panel, (title, tau, q) in zip(panels, curves, strict=True):
        for action, name in enumerate(actions):
            panel.plot(tau, q[:, action], color=colors[action % 10], label=name.lower())
        panel.set_title(title)
        panel.set_xlabel("τ")
        panel.grid(alpha=0.3)
    panels[0].set_ylabel("q(τ)")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside right center")
    figure.savefig(path, dpi=110)
    plt.close(figure)
