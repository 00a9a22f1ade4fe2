"""Distortions β(τ), for acting that avoids or seeks risk.

Acting on the mean of ``q(β(τ))`` gives some quantiles of a return more weight: that of the worst
ones makes it averse to risk, that of the best ones risk-seeking (arXiv:1806.06923, section 3). A
distortion is a callable on τ, for ``net.q_values(img, floats, risk=cvar(0.25))``.

All keep the shape, dtype and device of τ, compute in float32 or wider and stay inside [0, 1]. All
but ``norm`` are monotone (``cpw`` near ``η = 0.28`` to within a rounding) and give their formula's
limit at τ = 0 and 1. Gradients are finite everywhere: at τ = 0 and 1 those of ``wang``, ``cpw`` and
``power``, which are infinite for most ``η``, are replaced by 1. The classes have lower-case names
because they are used like functions.
"""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from iqn_blocks._arguments import checked_number
from iqn_blocks.functional import wide_dtype

_LARGEST = sys.float_info.max


def neutral(tau: Tensor) -> Tensor:
    """``β(τ) = τ``: no distortion."""
    return tau


@dataclass(frozen=True)
class _Distortion:
    eta: float
    _accepted: ClassVar[str] = "any finite number"
    _bounds: ClassVar[tuple[float, float]] = (-_LARGEST, _LARGEST)

    def __post_init__(self) -> None:
        low, high = self._bounds
        eta = checked_number("eta", self.eta, self._accepted, low=low, high=high)
        object.__setattr__(self, "eta", eta)

    def __call__(self, tau: Tensor) -> Tensor:
        if not tau.dtype.is_floating_point:
            raise TypeError(f"tau: expected a floating dtype, got {tau.dtype}")
        return self._beta(tau.to(wide_dtype(tau.dtype))).to(tau.dtype)

    def _beta(self, tau: Tensor) -> Tensor:
        raise NotImplementedError


@dataclass(frozen=True)
class cvar(_Distortion):
    """Conditional value at risk, ``β(τ) = η·τ``: acts on the mean of the worst ``η`` of returns.

    Averse to risk for ``η < 1``.

    >>> cvar(0.25)(torch.tensor([0.0, 0.5, 1.0])).tolist()
    [0.0, 0.125, 0.25]

    Raises:
        ValueError: ``eta`` is not a number with ``0 < η ≤ 1``.
    """

    _accepted = "0 < eta <= 1"
    _bounds = (math.ulp(0), 1)

    def _beta(self, tau: Tensor) -> Tensor:
        return self.eta * tau


@dataclass(frozen=True)
class wang(_Distortion):
    """Wang's transform, ``β(τ) = Φ(Φ⁻¹(τ) + η)``, with ``Φ`` the normal distribution function.

    Averse to risk for ``η < 0``, seeking it for ``η > 0``.

    >>> wang(-1.0)(torch.tensor([0.0, 0.5, 1.0])).tolist()  # Φ(−1) = 0.1587
    [0.0, 0.1586..., 1.0]

    Raises:
        ValueError: ``eta`` is not a finite number.
    """

    def _beta(self, tau: Tensor) -> Tensor:
        beta = torch.special.ndtr(torch.special.ndtri(_inside(tau)) + self.eta)
        return _keep_ends(tau, beta)


@dataclass(frozen=True)
class cpw(_Distortion):
    """Cumulative probability weighting, ``β(τ) = τ^η / (τ^η + (1 − τ)^η)^{1/η}``.

    Overweighs both extremes for ``η < 1``. The curve is Tversky and Kahneman's. The IQN paper uses
    ``η = 0.71``, which was fitted to human choices. Below 0.28 it is no longer monotone.

    >>> cpw(1.0)(torch.tensor([0.0, 0.25, 1.0])).tolist()
    [0.0, 0.25, 1.0]

    Raises:
        ValueError: ``eta`` is not a number with ``0.28 ≤ η ≤ 5``.
    """

    _accepted = "0.28 <= eta <= 5"
    _bounds = (0.28, 5)

    def _beta(self, tau: Tensor) -> Tensor:
        inside = _inside(tau)
        gain, rest = inside**self.eta, (1 - inside) ** self.eta
        return _keep_ends(tau, gain / (gain + rest) ** (1 / self.eta))


@dataclass(frozen=True)
class power(_Distortion):
    """``β(τ) = τ^{1/(1+|η|)}`` for ``η ≥ 0``, else ``1 − (1 − τ)^{1/(1+|η|)}``.

    Seeks risk for ``η > 0``, averse to it for ``η < 0``.

    >>> power(1.0)(torch.tensor([0.0, 0.25, 1.0])).tolist()
    [0.0, 0.5, 1.0]
    >>> power(-1.0)(torch.tensor([0.0, 0.75, 1.0])).tolist()
    [0.0, 0.5, 1.0]

    Raises:
        ValueError: ``eta`` is not a finite number.
    """

    def _beta(self, tau: Tensor) -> Tensor:
        exponent = 1 / (1 + abs(self.eta))
        inside = _inside(tau)
        beta = inside**exponent if self.eta >= 0 else 1 - (1 - inside) ** exponent
        return _keep_ends(tau, beta)


@dataclass(frozen=True)
class norm(_Distortion):
    """The mean of ``η`` uniforms, drawn at each call for each element of τ; τ itself is ignored.

    Underweighs both extremes. Draws come from ``generator``, on its own device, or from torch's
    global generator.

    >>> norm(3)(torch.zeros(2, 1)).shape
    torch.Size([2, 1])

    Raises:
        ValueError: ``eta`` is not a whole number ≥ 1.
    """

    generator: torch.Generator | None = field(default=None, repr=False, compare=False)

    _accepted = "a whole number >= 1"
    _bounds = (1, _LARGEST)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.eta.is_integer():
            raise ValueError(f"eta: got {self.eta!r}, accepted is {self._accepted}")
        object.__setattr__(self, "eta", int(self.eta))

    def _beta(self, tau: Tensor) -> Tensor:
        device = tau.device if self.generator is None else self.generator.device
        shape = (int(self.eta), *tau.shape)
        uniforms = torch.rand(shape, generator=self.generator, device=device, dtype=tau.dtype)
        return uniforms.mean(0).to(tau.device)


def _inside(tau: Tensor) -> Tensor:
    """τ with 0 and 1 moved to the nearest numbers where every formula has a finite gradient."""
    limits = torch.finfo(tau.dtype)
    return tau.clamp(limits.tiny, 1 - limits.eps / 2)


def _keep_ends(tau: Tensor, beta: Tensor) -> Tensor:
    """β with β(0) = 0 and β(1) = 1."""
    return torch.where((tau > 0) & (tau < 1), beta, tau)


def check_risk(risk: object) -> None:
    """Raise TypeError unless ``risk`` is a distortion: not a name, nor a class without its eta."""
    if isinstance(risk, type):
        raise TypeError(
            f"risk: found the class {risk.__name__}; accepted: a function of τ; call it first, as "
            f"in risk={risk.__name__}(0.25)"
        )
    if not callable(risk):
        raise TypeError(
            f"risk: found {risk!r}; accepted: a function of τ, such as iqn_blocks.risk.cvar(0.25)"
        )
