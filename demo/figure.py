"""The demo's picture: a board, and what a trained network knows of the returns on it."""

from __future__ import annotations

from pathlib import Path

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

import iqn_blocks
from docs.examples import windy_river
from iqn_blocks import plots, risk
from iqn_blocks.functional import midpoints

LEVELS = 32
TASTES = {"neutral": None, "cautious, cvar(0.25)": risk.cvar(0.25)}


def draw(path: Path, net: iqn_blocks.IQN, wind: float) -> None:
    """Write the board with the paths of two tastes, quantile functions at the start, risk curves.

    Dotted is the truth about the neutral policy, from 5000 episodes for each first action.
    """
    figure = Figure(figsize=(13, 3.8), layout="constrained")
    board, quantiles, values = figure.subplots(1, 3, width_ratios=[1.1, 1.3, 1.1])
    _draw_board(board, net, wind)

    seen = windy_river.observe(torch.tensor([windy_river.START]), torch.tensor([wind]))
    levels = midpoints(LEVELS)
    with torch.no_grad():
        q, tau = net.quantiles(*seen, LEVELS, levels)
    actions = windy_river.ACTIONS
    plots.quantile_functions(q[0] / windy_river.SCALE, tau[0], actions=actions, ax=quantiles)
    truth = true_quantiles(net, wind)
    quantiles.plot(levels, truth, color="black", linestyle=":", linewidth=1)
    quantiles.set_title("Quantile functions at the start; dotted: the truth")
    plots.risk_curves(net, *seen, actions=actions, ax=values)
    values.set(
        title="Values over the taste for risk",
        xlabel="η of cvar(η): mean of the worst η of returns",
    )
    values.yaxis.set_major_formatter(lambda y, _: f"{y / windy_river.SCALE:g}")
    figure.savefig(path, dpi=80)


def true_quantiles(net: iqn_blocks.IQN, wind: float) -> torch.Tensor:
    """Quantiles ``(LEVELS, A)`` of the returns of each first action, the neutral policy then."""
    torch.manual_seed(0)
    policy = windy_river.greedy(net)
    levels = midpoints(LEVELS)[:, 0]
    columns = [
        windy_river.returns(policy, wind, first).quantile(levels)
        for first in range(len(windy_river.ACTIONS))
    ]
    return torch.stack(columns, 1)


def _draw_board(axes: Axes, net: iqn_blocks.IQN, wind: float) -> None:
    img, _ = windy_river.observe(torch.tensor([windy_river.START]), torch.tensor([wind]))
    pixels = img[0].permute(1, 2, 0).float() / 255
    empty = pixels.sum(-1, keepdim=True) == 0
    axes.imshow(torch.where(empty, 0.95, 0.35 + 0.5 * pixels).numpy())
    for i, (name, taste) in enumerate(TASTES.items()):
        rows, columns = zip(*windy_river.path(windy_river.greedy(net, taste), wind), strict=True)
        shift = 0.12 * (i - 0.5)
        axes.plot(
            [column + shift for column in columns],
            [row + shift for row in rows],
            color=("black", "tab:purple")[i],
            marker="o",
            label=name,
        )
    axes.set(title=f"A gust pushes down, {wind:.0%} of steps", xticks=[], yticks=[])
    axes.legend(loc="upper center")
