"""Fixed layers in the layout that the CPU's kernels read fastest."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from iqn_blocks.blocks.dense import activate_

# Below so many output positions, PyTorch's own small convolution is faster than oneDNN's.
_FEWEST_POSITIONS = 128


class Packed(nn.Module):
    """A layer whose ``weight`` and ``bias`` are buffers; after writing to them call :meth:`pack`.

    With ``negative_slope`` a leaky ReLU follows (a ReLU for 0), in the same kernel where it can.

    On CPUs, in float32 and bfloat16, a second copy of the weight is kept in oneDNN's own layout, as
    ``torch.compile`` does with frozen weights. Elsewhere, where gradients or autocast are wanted
    and inside ``torch.compile`` it is the plain layer.
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

    def pack(self) -> None:
        """Take over what ``weight`` holds now."""
        self._packed: Tensor | None = None
        if (
            self.weight.device.type == "cpu"
            and self.weight.dtype in (torch.float32, torch.bfloat16)
            and torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
            and hasattr(torch.ops.mkldnn, "_linear_pointwise")
        ):
            self._packed = self._reordered(self.weight.detach())

    def _reordered(self, weight: Tensor) -> Tensor:
        raise NotImplementedError

    def _is_plain(self, x: Tensor) -> bool:
        return (
            torch.compiler.is_compiling()
            or self._packed is None
            or x.requires_grad
            or x.dtype != self.weight.dtype
            or torch.is_autocast_enabled("cpu")
        )

    def _activate(self, y: Tensor) -> Tensor:
        return y if self.negative_slope is None else activate_(y, self.negative_slope)

    def _fused(self) -> tuple[str, list[float], str]:
        slope = self.negative_slope
        if slope is None:
            return "none", [], ""
        return ("leaky_relu", [slope], "") if slope else ("relu", [], "")

    # The packed copy has no storage of its own to move, copy or pickle: it is made again.

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]  # torch leaves it untyped
        self.pack()
        return self

    def _load_from_state_dict(self, *args: Any) -> None:
        super()._load_from_state_dict(*args)
        self.pack()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_packed": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        self.pack()


class PackedLinear(Packed):
    """``y = x Wᵀ + b``: ``(R, in) -> (R, out)``."""

    def __init__(
        self, weight: Tensor, bias: Tensor, *, negative_slope: float | None = None
    ) -> None:
        super().__init__(weight, bias, negative_slope=negative_slope)
        self.pack()

    def forward(self, x: Tensor) -> Tensor:
        if self._is_plain(x):
            return self._activate(F.linear(x, self.weight, self.bias))
        packed: Callable[..., Tensor] = torch.ops.mkldnn._linear_pointwise
        return packed(x, self._packed, self.bias, *self._fused())

    def _reordered(self, weight: Tensor) -> Tensor:
        reorder: Callable[[Tensor], Tensor] = torch.ops.mkldnn._reorder_linear_weight
        return reorder(weight)

    def extra_repr(self) -> str:
        out_features, in_features = self.weight.shape
        return f"{in_features}, {out_features}"


class PackedConv2d(Packed):
    """A Conv2d like ``conv``, which may add its result to a tensor.

    ``(B, in, H, W) -> (B, out, H', W')``.
    """

    def __init__(self, conv: nn.Conv2d, *, negative_slope: float | None = None) -> None:
        assert conv.bias is not None
        super().__init__(conv.weight.data, conv.bias.data, negative_slope=negative_slope)
        self.stride, self.padding = list(conv.stride), [int(side) for side in conv.padding]
        self.pack()

    def forward(self, x: Tensor, add_to: Tensor | None = None) -> Tensor:
        """The convolution, or its sum with ``add_to``, which may be overwritten by it."""
        if self._is_plain(x) or self._has_few_positions(x):
            y = F.conv2d(x, self.weight, self.bias, self.stride, self.padding)
            return self._activate(y) if add_to is None else y.add_(add_to)
        geometry = self.padding, self.stride, [1, 1], 1
        if add_to is None:
            packed: Callable[..., Tensor] = torch.ops.mkldnn._convolution_pointwise
            return packed(x, self._packed, self.bias, *geometry, *self._fused())
        add: Callable[..., Tensor] = torch.ops.mkldnn._convolution_pointwise_.binary
        return add(add_to, x, self._packed, self.bias, *geometry, "add", 1.0, None, [], None)

    def _has_few_positions(self, x: Tensor) -> bool:
        return x.shape[0] * x.shape[2] * x.shape[3] < _FEWEST_POSITIONS * self.stride[0] ** 2

    def _reordered(self, weight: Tensor) -> Tensor:
        reorder: Callable[..., Tensor] = torch.ops.mkldnn._reorder_convolution_weight
        return reorder(weight, self.padding, self.stride, [1, 1], 1, None)

    def extra_repr(self) -> str:
        out_channels, in_channels = self.weight.shape[:2]
        return f"{in_channels}, {out_channels}, stride={self.stride}, padding={self.padding}"


class PackedResidualBlock(nn.Module):
    """A :class:`~iqn_blocks.blocks.stems.ResidualBlock` of packed convolutions.

    ``(B, C, H, W)`` in and out; the input may be overwritten.
    """

    def __init__(self, conv1: nn.Conv2d, conv2: nn.Conv2d) -> None:
        super().__init__()
        self.conv1 = PackedConv2d(conv1, negative_slope=0.0)
        self.conv2 = PackedConv2d(conv2)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.conv2(self.conv1(torch.relu(x)), x)
        return out
