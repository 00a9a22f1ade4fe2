"""What convolutional stems share: the convolution, and the readout of the last feature map."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from iqn_blocks._arguments import check_choice
from iqn_blocks.blocks.activation import Activation, slope_below_zero
from iqn_blocks.blocks.spectral import SpectralNormConv2d
from iqn_blocks.kinds import Size

Readout = Literal["flatten", "max", "avg", "tokens"]
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

    Convolutions are fast only if weights and images are both channels-last. FSDP accepts only
    contiguous weights: call ``net.to(memory_format=torch.contiguous_format)`` before
    ``fully_shard(net)``.
    """
    kind = SpectralNormConv2d if spectral else nn.Conv2d
    made: nn.Conv2d = kind(in_channels, out_channels, kernel, stride, padding)
    return made.to(memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]


def channels_last(x: Tensor) -> Tensor:
    """``x (B, C, H, W)`` in the channels-last layout, also under ``vmap``."""
    return x.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)


class MapReadout(nn.Module):
    """A feature map as a vector, ``(B, C, H, W) -> (B, out_dim)``, or as tokens.

    ``flatten`` keeps the map; ``max`` and ``avg`` first pool it to ``size × size``, as PyTorch's
    adaptive pools do. ``tokens`` makes each position a token, row by row: ``(B, H·W, C)``; then
    ``out_dim`` is their width and ``n_tokens`` their number. ``n_tokens`` is None for a vector.

    Args:
        map_size: ``(C, H, W)``.
        readout: ``flatten``, ``max``, ``avg`` or ``tokens``.
        size: side of the pooled map; ``flatten`` and ``tokens`` ignore it.

    Raises:
        ValueError: an unknown readout.
    """

    def __init__(self, map_size: tuple[int, int, int], readout: Readout, size: int) -> None:
        check_choice("readout", readout, Readout)
        super().__init__()
        channels, height, width = map_size
        self.readout = readout
        self.size = size
        positions = {"flatten": height * width, "tokens": 1}.get(readout, size * size)
        self.out_dim = channels * positions
        self.n_tokens = height * width if readout == "tokens" else None

    def forward(self, x: Tensor) -> Tensor:
        if self.readout == "flatten":
            return x.flatten(1)
        if self.readout == "tokens":
            return x.flatten(2).transpose(1, 2)
        if torch.compiler.is_exporting():
            return _pool_by_windows(x, self.readout, self.size).flatten(1)
        pool = F.adaptive_max_pool2d if self.readout == "max" else F.adaptive_avg_pool2d
        pooled: Tensor = pool(x, self.size)
        return pooled.flatten(1)

    def extra_repr(self) -> str:
        pools = self.readout in ("max", "avg")
        return f"{self.readout}, size={self.size}" if pools else self.readout


class ConvStack(nn.Module):
    """The base of stems of convolutions without padding, an activation after each, and a readout.

    ``(B, C, H, W) -> (B, out_dim)``, or with the readout ``tokens`` ``(B, n_tokens, out_dim)``;
    ``image_size`` is ``(H, W)``. A subclass names its ``layers``: width, kernel and stride of each
    convolution. Messages call it by its ``title``.

    Args:
        activation: after each convolution.
        spectral_norm: spectral normalisation (arXiv:1802.05957) of the convolutions.
        readout: what becomes of the last feature map; max and avg pool it, tokens makes each
            position a token.
        readout_size: side of the pooled map, in positions.

    Raises:
        ValueError: an image too small to leave one position.
    """

    title: ClassVar[str]
    layers: ClassVar[Sequence[tuple[int, int, int]]]

    def __init__(
        self,
        in_channels: int,
        image_size: tuple[int, int],
        *,
        activation: Activation = "leaky_relu",
        spectral_norm: SpectralNormScope | None = None,
        readout: Readout = "flatten",
        readout_size: Size = 6,
    ) -> None:
        super().__init__()
        least = 1
        for _, kernel, stride in reversed(self.layers):
            least = (least - 1) * stride + kernel
        height, width = image_size
        if min(image_size) < least:
            raise ValueError(
                f"image_size: found {width} x {height} (width x height), too small for the "
                f"{self.title}; accepted: at least {least} x {least}; enlarge the image, or take "
                f"an IMPALA stem"
            )
        convs, channels = [], in_channels
        spectral = spectral_norm == "all"
        for out_channels, kernel, stride in self.layers:
            convs.append(conv(channels, out_channels, kernel, stride, spectral=spectral))
            channels = out_channels
            height, width = ((side - kernel) // stride + 1 for side in (height, width))
        self.convs = nn.ModuleList(convs)
        slope = slope_below_zero(activation)
        self.activation = nn.LeakyReLU(slope, inplace=True) if slope else nn.ReLU(inplace=True)
        self.readout = MapReadout((channels, height, width), readout, readout_size)
        self.out_dim, self.n_tokens = self.readout.out_dim, self.readout.n_tokens

    def forward(self, img: Tensor) -> Tensor:
        # Channels-last convolutions are the fast ones; the readout restores the C, H, W order.
        x = channels_last(img)
        for conv_layer in self.convs:
            x = self.activation(conv_layer(x))
        return cast(Tensor, self.readout(x))


class ReluStack(ConvStack):
    """:class:`ConvStack` with ReLUs and without spectral normalisation."""

    def __init__(
        self,
        in_channels: int,
        image_size: tuple[int, int],
        *,
        readout: Readout = "flatten",
        readout_size: Size = 6,
    ) -> None:
        super().__init__(
            in_channels,
            image_size,
            activation="relu",
            readout=readout,
            readout_size=readout_size,
        )


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
