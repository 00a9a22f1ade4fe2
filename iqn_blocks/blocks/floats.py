"""Scalar features: normalisation in full precision, and a two-layer perceptron."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from iqn_blocks.blocks.activation import Activation
from iqn_blocks.blocks.dense import HiddenLayer
from iqn_blocks.kinds import Size
from iqn_blocks.registry import register

# The ranges of the configuration: in them 1/std stays finite, also after a later ``.float()``.
_FLOAT32 = torch.finfo(torch.float32)
_RANGES = {
    "mean": (-_FLOAT32.max, "accepted are finite numbers that fit float32; rescale that feature"),
    "std": (
        _FLOAT32.tiny,
        f"accepted are numbers from {_FLOAT32.tiny:.3g} to {_FLOAT32.max:.3g}, the normal ones of "
        f"float32; rescale that feature, or give a constant one a std of 1",
    ),
}


def fault_of(name: str, values: Tensor, given: Tensor) -> str:
    """What is wrong with a ``mean`` or ``std``, from what was ``given`` for it; else ``""``."""
    low, accepted = _RANGES[name]
    fits = (values >= low) & (values <= _FLOAT32.max)
    if values.is_meta or fits.all():
        return ""
    return f"got {given[~fits.to(given.device)][0]:g}, {accepted}"


class FloatNormalization(nn.Module):
    """``(x − mean) / std`` of raw scalar features: ``(B, F) -> (B, F)``.

    Computed in float32, or in float64 after ``.double()``. After ``.half()`` and ``.bfloat16()``
    the statistics stay in float32, so that raw values such as 1e5 do not overflow.

    Raises:
        ValueError: statistics that :meth:`set_stats` refuses.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        n_floats: int,
        mean: Sequence[float] | Tensor | None = None,
        std: Sequence[float] | Tensor | None = None,
    ) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(n_floats))
        self.register_buffer("std", torch.ones(n_floats))
        self.set_stats(mean, std)

    @torch.no_grad()
    def set_stats(
        self, mean: Sequence[float] | Tensor | None, std: Sequence[float] | Tensor | None
    ) -> None:
        """Replace the statistics ``(F,)``, in place; ``None`` leaves one as it is.

        Raises:
            ValueError: another length, a value that is infinite in float32, or a ``std`` that is
                not > 0 or loses digits in float32 (below 1.2e-38); then neither is changed.
        """
        stats = {}
        for name, given in (("mean", mean), ("std", std)):
            if given is None:
                continue
            buffer: Tensor = getattr(self, name)
            if not isinstance(given, Tensor):
                given = torch.tensor(given, dtype=torch.float64)  # too large for float32 is inf
            values = given.to(buffer)
            if values.shape != buffer.shape:
                raise ValueError(
                    f"{name}: expected shape {tuple(buffer.shape)}, got {tuple(values.shape)}"
                )
            if wrong := fault_of(name, values, given):
                raise ValueError(f"{name}: {wrong}")
            stats[name] = values
        for name, values in stats.items():
            getattr(self, name).copy_(values)

    def forward(self, floats: Tensor) -> Tensor:
        return (floats.to(self.mean.dtype) - self.mean) / self.std

    def extra_repr(self) -> str:
        return str(self.mean.numel())

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        kept = self.mean, self.std
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]  # torch leaves it untyped
        if self.mean.dtype.itemsize < 4:
            self.mean, self.std = (
                old.to(new.device, torch.float32)
                for old, new in zip(kept, (self.mean, self.std), strict=True)
            )
        return self


@register("mlp", slot="floats")
class FloatMLP(nn.Module):
    """Two hidden layers over normalised scalar features: ``(B, F) -> (B, h)``.

    The input is cast to the parameters' dtype.

    Args:
        hidden_dim: width h of both.
        layer_norm: LayerNorm before each activation.
        activation: after each layer.
    """

    def __init__(
        self,
        n_floats: int,
        hidden_dim: Size = 256,
        *,
        layer_norm: bool = False,
        activation: Activation = "relu",
    ) -> None:
        super().__init__()
        self.out_dim = hidden_dim
        first = HiddenLayer(n_floats, hidden_dim, layer_norm=layer_norm, activation=activation)
        second = HiddenLayer(hidden_dim, hidden_dim, layer_norm=layer_norm, activation=activation)
        self.layers = nn.Sequential(first, second)

    def forward(self, floats: Tensor) -> Tensor:
        # By name: torchrl replaces parameters by plain tensors, which parameters() does not list.
        first = cast(nn.Linear, cast(HiddenLayer, self.layers[0]).linear)
        hidden: Tensor = self.layers(floats.to(first.weight.dtype))
        return hidden
