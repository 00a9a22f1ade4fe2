"""What convolutional stems share: the convolution, and the readout of the last feature map."""

from __future__ import annotations

from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from iqn_blocks.blocks.spectral import SpectralNormConv2d

Readout = Literal["flatten", "max", "avg"]
SpectralNormScope = Literal["all", "residual"]


def conv(
    in_channels: int,
    out_channels: int,
    kernel: int,
    stride: int = 1,
    padding: int = 0,
    *,
    spectral: bool = False,
) -> nn.Conv2d:
    """A convolution, spectrally normalised on request, with channels-last weights.

    Weights and images are both channels-last: with one alone the convolutions stay slow.
    """
    kind = SpectralNormConv2d if spectral else nn.Conv2d
    made: nn.Conv2d = kind(in_channels, out_channels, kernel, stride, padding)
    return made.to(memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]


class MapReadout(nn.Module):
    """A feature map as a vector: ``(B, C, H, W) -> (B, out_dim)``.

    ``flatten`` keeps the map; ``max`` and ``avg`` first pool it to ``size × size``, as PyTorch's
    adaptive pools do.

    Args:
        map_size: ``(C, H, W)``.
        readout: ``flatten``, ``max`` or ``avg``.
        size: side of the pooled map.

    Raises:
        ValueError: an unknown readout.
    """

    def __init__(self, map_size: tuple[int, int, int], readout: Readout, size: int) -> None:
        if readout not in get_args(Readout):
            accepted = ", ".join(map(repr, get_args(Readout)))
            raise ValueError(f"readout: got {readout!r}, accepted are {accepted}")
        super().__init__()
        channels, height, width = map_size
        self.readout = readout
        self.size = size
        self.out_dim = channels * (height * width if readout == "flatten" else size * size)

    def forward(self, x: Tensor) -> Tensor:
        if self.readout == "flatten":
            return x.flatten(1)
        if torch.compiler.is_exporting():
            return _pool_by_windows(x, self.readout, self.size).flatten(1)
        pool = F.adaptive_max_pool2d if self.readout == "max" else F.adaptive_avg_pool2d
        pooled: Tensor = pool(x, self.size)
        return pooled.flatten(1)

    def extra_repr(self) -> str:
        return self.readout if self.readout == "flatten" else f"{self.readout}, size={self.size}"


def _pool_by_windows(x: Tensor, readout: Readout, size: int) -> Tensor:
    """An adaptive pool written out, since ONNX has none whose windows differ in size.

    Window ``i`` of ``n`` over a side ``H`` is ``⌊i·H/n⌋ … ⌈(i + 1)·H/n⌉ − 1``.
    """
    pool = F.max_pool2d if readout == "max" else F.avg_pool2d
    for dim in (3, 2):
        side = x.shape[dim]
        parts = []
        for i in range(size):
            start, stop = i * side // size, -(-(i + 1) * side // size)
            window = (1, stop - start) if dim == 3 else (stop - start, 1)
            parts.append(pool(x.narrow(dim, start, stop - start), window))
        x = torch.cat(parts, dim)
    return x
