"""Pictures of what a network predicts, and of its units: needs the extra ``plots``.

Each function draws into ``ax``, or into a figure of its own, and returns the axes;
``axes.figure.savefig("picture.png")`` writes them. Actions have the same colours in every picture.
A picture of the stages of a network is in :mod:`iqn_blocks.diagram`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from iqn_blocks.describe import Stage, unwrapped, watch_stages
from iqn_blocks.diagnostics import checked_threshold, dormant_share
from iqn_blocks.network import IQN
from iqn_blocks.risk import cvar

if TYPE_CHECKING:
    from matplotlib.axes import Axes

ETAS = tuple(i / 20 for i in range(1, 21))


@torch.no_grad()
def quantile_functions(
    q: Tensor, tau: Tensor, *, actions: Sequence[str] | None = None, ax: Axes | None = None
) -> Axes:
    """The quantile function of each action in one state, on yellow where it falls.

    A quantile function rises by definition; a yellow piece joins two neighbouring levels whose
    values cross, as :func:`iqn_blocks.functional.crossing_rate` counts them.

    >>> q, tau = torch.tensor([[1.0], [3.0], [2.0]]), torch.tensor([0.1, 0.5, 0.9])
    >>> [line.get_label() for line in quantile_functions(q, tau, actions=["jump"]).lines]
    ['jump', 'crossing']

    Args:
        q: values ``(K, A)``; of ``net.quantiles(…)`` those of one sample, ``q[b]``.
        tau: their levels, ``(K,)`` or ``(K, 1)``, in any order.
        actions: ``A`` names; numbers by default.
        ax: where to draw; a new figure by default.

    Raises:
        ImportError: matplotlib is missing.
        ValueError: shapes that do not fit, or another number of names than of actions.
    """
    q, tau = _sorted_by_level(q, tau)
    axes = _axes(ax)
    for action, name in enumerate(_names(actions, q.shape[1])):
        axes.plot(tau, q[:, action], color=f"C{action % 10}", label=name)
    low, which = ((q[1:] < q[:-1]) & (tau[1:] > tau[:-1])[:, None]).nonzero(as_tuple=True)
    if len(low):
        # Pairs of points in one line, each pair cut off from the next by a NaN.
        gap = torch.full((len(low),), torch.nan, dtype=q.dtype)
        x = torch.stack([tau[low], tau[low + 1], gap], 1).reshape(-1)
        y = torch.stack([q[low, which], q[low + 1, which], gap], 1).reshape(-1)
        axes.plot(x, y, color="gold", linewidth=6, zorder=1, label="crossing")
    axes.set(xlabel="level τ", ylabel="return", xlim=(0, 1))
    axes.legend()
    return axes


@torch.no_grad()
def return_distributions(
    q: Tensor,
    tau: Tensor,
    *,
    actions: Sequence[str] | None = None,
    bins: int = 40,
    ax: Axes | None = None,
) -> Axes:
    """The density of the return of each action in one state, and its mean as a dashed line.

    A value counts with the probability between the middles to its neighbours in ``tau``; many
    evenly spaced levels, such as ``functional.midpoints(500)``, give a fine picture.

    Args:
        q: values ``(K, A)``; of ``net.quantiles(…)`` those of one sample, ``q[b]``.
        tau: their levels, ``(K,)`` or ``(K, 1)``, in any order.
        actions: ``A`` names; numbers by default.
        bins: columns of the histogram, the same for all actions.
        ax: where to draw; a new figure by default.

    Raises:
        ImportError: matplotlib is missing.
        ValueError: shapes that do not fit, or another number of names than of actions.
    """
    q, tau = _sorted_by_level(q, tau)
    axes = _axes(ax)
    middles = (tau[1:] + tau[:-1]) / 2
    weights = torch.cat([middles, tau.new_ones(1)]) - torch.cat([tau.new_zeros(1), middles])
    low, high = q.min(), q.max()
    pad = 0.5 * (high == low)  # a histogram of a single value is one unit wide
    edges = torch.linspace(float(low - pad), float(high + pad), bins + 1, dtype=q.dtype)
    for action, name in enumerate(_names(actions, q.shape[1])):
        values, colour = q[:, action].contiguous(), f"C{action % 10}"
        density = torch.histogram(values, edges, weight=weights, density=True).hist
        axes.stairs(density, edges, color=colour, fill=True, alpha=0.4, label=name)
        axes.axvline(float(values @ weights), color=colour, linestyle="--")
    axes.set(xlabel="return", ylabel="density")
    axes.legend()
    return axes


@torch.no_grad()
def risk_curves(
    net: IQN,
    img: Tensor | None = None,
    floats: Tensor | None = None,
    *,
    risk: Callable[[float], Callable[[Tensor], Tensor]] = cvar,
    etas: Sequence[float] = ETAS,
    actions: Sequence[str] | None = None,
    ax: Axes | None = None,
) -> Axes:
    """The value of each action in one state over the taste for risk; the highest line is chosen.

    Args:
        net: a network; its noise is left as it is.
        img: ``(1, C, H, W)``.
        floats: ``(1, F)``.
        risk: makes a distortion of τ from ``η``; one of :mod:`iqn_blocks.risk`.
        etas: the ``η`` to draw, for ``cvar`` from 0.05 to 1.
        actions: ``A`` names; numbers by default.
        ax: where to draw; a new figure by default.

    Raises:
        ImportError: matplotlib is missing.
        ValueError: more than one sample, blocks of actions, or another number of names.
    """
    tau = net.acting_tau()
    values = torch.stack([net.q_values(img, floats, tau=tau, risk=risk(eta)) for eta in etas])
    if values.ndim != 3 or values.shape[1] != 1:
        raise ValueError(
            f"risk_curves: draws one state of a network without action blocks, got values "
            f"{tuple(values.shape[1:])}, expected (1, A); pass img[:1], floats[:1]"
        )
    values = values[:, 0].float().cpu()
    axes = _axes(ax)
    for action, name in enumerate(_names(actions, values.shape[1])):
        axes.plot(etas, values[:, action], color=f"C{action % 10}", label=name)
    axes.set(xlabel=f"η of {getattr(risk, '__name__', 'risk')}(η)", ylabel="value")
    axes.legend()
    return axes


@torch.no_grad()
def dormant_units(
    net: IQN,
    img: Tensor | None = None,
    floats: Tensor | None = None,
    *,
    threshold: float = 0.025,
    ax: Axes | None = None,
) -> Axes:
    """The share of dormant units in what each stage gives, over a batch of observations.

    Stages are those of ``describe_stages`` that have parameters and give no values; shares are
    :func:`iqn_blocks.diagnostics.dormant_share`. One forward is run in eval mode.

    Args:
        net: a network; its noise is left as it is.
        img: ``(B, C, H, W)``.
        floats: ``(B, F)``.
        threshold: the score up to which a unit counts as dormant.
        ax: where to draw; a new figure by default.

    Raises:
        ImportError: matplotlib is missing.
        ValueError: ``threshold`` is not a number ≥ 0.
    """
    threshold = checked_threshold(threshold)
    plain = unwrapped(net)
    values = {"encoder", "q", "value_head", "advantage_head"}
    shares: dict[str, float] = {}

    def record(stage: Stage, _: Any, output: Tensor) -> None:
        if stage.parameters and stage.name not in values and not stage.name.endswith("readout"):
            shares[stage.name] = float(dormant_share(output, threshold=threshold))

    with watch_stages(plain, record):
        plain(img, floats, plain.k, plain.acting_tau())
    axes = _axes(ax)
    names = [name.removeprefix("encoder.") for name in shares]
    bars = axes.barh(names, [100 * share for share in shares.values()])
    axes.bar_label(bars, fmt="%.1f %%", padding=3)
    axes.invert_yaxis()  # inputs at the top
    axes.set(xlabel="dormant units, %", xlim=(0, 100))
    return axes


def _axes(ax: Axes | None) -> Axes:
    if ax is not None:
        return ax
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("matplotlib is missing: pip install 'iqn-blocks[plots]'") from error
    return Figure(figsize=(6, 4), layout="constrained").add_subplot()


def _sorted_by_level(q: Tensor, tau: Tensor) -> tuple[Tensor, Tensor]:
    """``q (K, A)`` and ``tau (K,)`` in the order of the levels, in float32 or wider, on the CPU."""
    if q.ndim != 2 or q.shape[0] < 2 or tau.shape not in (q.shape[:1], (q.shape[0], 1)):
        raise ValueError(
            f"expected q (K, A) of one state and tau (K,) or (K, 1) with K >= 2, got "
            f"{tuple(q.shape)} and {tuple(tau.shape)}; of net.quantiles(…) take q[b] and tau[b], "
            f"of a block one offset, q[b, :, n]"
        )
    q, tau = q.cpu(), tau.reshape(-1).cpu()
    dtype = torch.promote_types(torch.promote_types(q.dtype, tau.dtype), torch.float32)
    tau, order = tau.to(dtype).sort(stable=True)
    return q.to(dtype)[order], tau


def _names(actions: Sequence[str] | None, count: int) -> list[str]:
    if actions is not None and len(actions) != count:
        raise ValueError(f"actions: found {len(actions)} names, expected {count}, one an action")
    return [f"action {a}" for a in range(count)] if actions is None else list(actions)
