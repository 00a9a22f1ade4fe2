"""A fixed Linear in the layout that the CPU's matrix kernels read fastest."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class PackedLinear(nn.Module):
    """``y = x Wᵀ + b`` with weights that change only in :meth:`pack`: ``(R, in) -> (R, out)``.

    With ``negative_slope`` a leaky ReLU follows (a ReLU for 0), in the same kernel where it can.

    On CPUs, in float32 and bfloat16, a second copy of ``W`` is kept in oneDNN's own layout, as
    ``torch.compile`` does with frozen weights. Elsewhere, where gradients or autocast are wanted
    and inside ``torch.compile`` it is a plain Linear.
    """

    weight: Tensor
    bias: Tensor

    def __init__(
        self, weight: Tensor, bias: Tensor, *, negative_slope: float | None = None
    ) -> None:
        super().__init__()
        self.negative_slope = negative_slope
        self.register_buffer("weight", weight)
        self.register_buffer("bias", bias)
        self.pack()

    def pack(self) -> None:
        """Take over what ``weight`` holds now."""
        self._packed: Tensor | None = None
        if (
            self.weight.device.type == "cpu"
            and self.weight.dtype in (torch.float32, torch.bfloat16)
            and torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
            and hasattr(torch.ops.mkldnn, "_reorder_linear_weight")
        ):
            self._packed = torch.ops.mkldnn._reorder_linear_weight(self.weight.detach())

    def forward(self, x: Tensor) -> Tensor:
        plain = (
            torch.compiler.is_compiling()
            or self._packed is None
            or x.requires_grad
            or x.dtype != self.weight.dtype
            or torch.is_autocast_enabled("cpu")
        )
        if plain:
            y = F.linear(x, self.weight, self.bias)
            return y if self.negative_slope is None else F.leaky_relu_(y, self.negative_slope)
        after = (
            ("none", []) if self.negative_slope is None else ("leaky_relu", [self.negative_slope])
        )
        packed: Callable[..., Tensor] = torch.ops.mkldnn._linear_pointwise
        return packed(x, self._packed, self.bias, *after, "")

    def extra_repr(self) -> str:
        out_features, in_features = self.weight.shape
        return f"{in_features}, {out_features}"

    # The packed copy has no storage of its own to move, copy or pickle: it is made again.

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]  # torch leaves it untyped
        self.pack()
        return self

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_packed": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        self.pack()
