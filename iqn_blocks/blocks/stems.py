"""Image stems: convolutions that turn a frame into a flat feature vector."""

from __future__ import annotations

from itertools import pairwise
from typing import Literal, cast

import torch
from torch import Tensor, nn

from iqn_blocks.blocks.activation import Activation, slope_below_zero
from iqn_blocks.blocks.chain import Link, can_chain, chain, is_untouched, nobody_watches
from iqn_blocks.blocks.pool import HalvingMaxPool
from iqn_blocks.blocks.spectral import SpectralNormConv2d
from iqn_blocks.functional import Uint8Scaling, normalize_image

SpectralNormScope = Literal["all", "residual"]

_CONV_STEM_LAYERS = ((16, 4, 2), (32, 4, 2), (64, 3, 2), (32, 3, 1))  # width, kernel, stride
CONV_STEM_MIN_SIZE = 34  # pixels a side that leave one position after the four convolutions


class ImageStem(nn.Module):
    """Base of the stems: scaling of uint8, convolutions, optional adaptive max-pool, flatten.

    ``(B, C, H, W) -> (B, out_dim)``; ``image_size`` is ``(H, W)``. uint8 images are scaled as
    :func:`~iqn_blocks.functional.normalize_image` does, floating ones cast to the parameters'
    dtype.
    """

    def __init__(
        self,
        image_size: tuple[int, int],
        map_size: tuple[int, int, int],
        pool: int | None,
        uint8_scaling: Uint8Scaling,
    ) -> None:
        super().__init__()
        channels, height, width = map_size
        self.image_size = image_size
        self.uint8_scaling = uint8_scaling
        self.pool = nn.Identity() if pool is None else nn.AdaptiveMaxPool2d(pool)
        self.out_dim = channels * (height * width if pool is None else pool * pool)

    @property
    def first_conv(self) -> nn.Conv2d:
        """The convolution that reads the image."""
        raise NotImplementedError

    def features(self, img: Tensor) -> Tensor:
        """The feature map before pooling: ``(B, C, H, W) -> (B, C', H', W')``."""
        raise NotImplementedError

    def forward(self, img: Tensor) -> Tensor:
        # By name: torchrl puts plain tensors in the place of parameters, which none can list.
        img = normalize_image(img, self.first_conv.weight.dtype, self.uint8_scaling)
        # Channels-last convolutions are the fast ones; `flatten` restores the C, H, W order.
        img = img.contiguous(memory_format=torch.channels_last)
        features: Tensor = self.pool(self.features(img)).flatten(1)
        return features

    def extra_repr(self) -> str:
        return f"image_size={self.image_size}, out_dim={self.out_dim}"


class ConvStem(ImageStem):
    """The 4-layer CNN: k4 s2, k4 s2, k3 s2, k3 s1 of widths 16, 32, 64, 32, no padding.

    ``(B, C, H, W) -> (B, out_dim)``, an activation after each convolution; ``image_size`` is
    ``(H, W)``. ``spectral_norm`` puts spectral normalisation on every convolution with ``"all"``;
    this stem has no residual blocks, so ``"residual"`` puts it on none.

    Raises:
        ValueError: an image side below 34 pixels.
    """

    def __init__(
        self,
        in_channels: int,
        image_size: tuple[int, int],
        *,
        uint8_scaling: Uint8Scaling = "signed",
        activation: Activation = "leaky_relu",
        adaptive_maxpool_size: int | None = None,
        spectral_norm: SpectralNormScope | None = None,
    ) -> None:
        height, width = image_size
        if min(image_size) < CONV_STEM_MIN_SIZE:
            raise ValueError(
                f"image_size: {height}×{width} (H×W) is too small for the 4-layer CNN, whose "
                f"smallest is {CONV_STEM_MIN_SIZE}×{CONV_STEM_MIN_SIZE}"
            )
        for _, kernel, stride in _CONV_STEM_LAYERS:
            height, width = ((side - kernel) // stride + 1 for side in (height, width))
        last_width = _CONV_STEM_LAYERS[-1][0]
        super().__init__(
            image_size, (last_width, height, width), adaptive_maxpool_size, uint8_scaling
        )
        convs, channels = [], in_channels
        for out_channels, kernel, stride in _CONV_STEM_LAYERS:
            convs.append(
                _conv(channels, out_channels, kernel, stride, spectral=spectral_norm == "all")
            )
            channels = out_channels
        self.convs = nn.ModuleList(convs)
        slope = slope_below_zero(activation)
        self.activation = nn.LeakyReLU(slope, inplace=True) if slope else nn.ReLU(inplace=True)

    @property
    def first_conv(self) -> nn.Conv2d:
        return cast(nn.Conv2d, self.convs[0])

    def features(self, img: Tensor) -> Tensor:
        links = self._links() if nobody_watches(img) else None
        if links is not None and can_chain(img, links):
            return chain(img, links)
        for conv in self.convs:
            img = self.activation(conv(img))
        return img

    def _links(self) -> list[Link] | None:
        """The convolutions as links of a chain, if they and the activation are the usual ones."""
        if not is_untouched(self.activation, nn.LeakyReLU, nn.ReLU):
            return None
        slope, links = getattr(self.activation, "negative_slope", 0.0), []
        if slope < 0:  # what PyTorch cannot differentiate in place
            return None
        for conv in self.convs:
            if not (isinstance(conv, nn.Conv2d) and is_untouched(conv, nn.Conv2d)):
                return None
            if (conv.padding, conv.dilation, conv.groups) != ((0, 0), (1, 1), 1):
                return None
            links.append(Link(conv.weight, conv.bias, slope, conv.stride))
        return links


class ResidualBlock(nn.Module):
    """``x + Conv(ReLU(Conv(ReLU(x))))`` with k3 p1 convolutions: ``(B, C, H, W)`` in and out."""

    def __init__(self, channels: int, *, spectral: bool = False) -> None:
        super().__init__()
        self.conv1 = _conv(channels, channels, 3, padding=1, spectral=spectral)
        self.conv2 = _conv(channels, channels, 3, padding=1, spectral=spectral)

    def forward(self, x: Tensor) -> Tensor:
        residual: Tensor = self.conv2(torch.relu_(self.conv1(torch.relu(x))))
        return residual.add_(x)


class ImpalaStage(nn.Module):
    """Conv k3 p1, max-pool k3 s2 p1, two residual blocks.

    ``(B, C, H, W) -> (B, C', ⌈H/2⌉, ⌈W/2⌉)``.
    """

    def __init__(
        self, in_channels: int, out_channels: int, *, spectral_norm: SpectralNormScope | None = None
    ) -> None:
        super().__init__()
        self.conv = _conv(in_channels, out_channels, 3, padding=1, spectral=spectral_norm == "all")
        self.pool = HalvingMaxPool()
        spectral = spectral_norm is not None
        self.blocks = nn.Sequential(
            ResidualBlock(out_channels, spectral=spectral),
            ResidualBlock(out_channels, spectral=spectral),
        )

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.blocks(self.pool(self.conv(x)))
        return out


class ImpalaStem(ImageStem):
    """IMPALA's residual CNN (arXiv:1802.01561, figure 3) of width ``s``: stages of 16s, 32s, 32s.

    ``(B, C, H, W) -> (B, out_dim)``, with a final ReLU; ``image_size`` is ``(H, W)``.
    ``spectral_norm`` applies to every convolution (``"all"``) or to those inside residual blocks
    (``"residual"``, as in arXiv:2411.03820).
    """

    def __init__(
        self,
        in_channels: int,
        image_size: tuple[int, int],
        *,
        uint8_scaling: Uint8Scaling = "signed",
        model_size: int = 2,
        adaptive_maxpool_size: int | None = None,
        spectral_norm: SpectralNormScope | None = None,
    ) -> None:
        height, width = image_size
        channels = (in_channels, 16 * model_size, 32 * model_size, 32 * model_size)
        for _ in range(3):
            height, width = (height + 1) // 2, (width + 1) // 2
        super().__init__(
            image_size, (channels[-1], height, width), adaptive_maxpool_size, uint8_scaling
        )
        self.stages = nn.Sequential(
            *(
                ImpalaStage(before, after, spectral_norm=spectral_norm)
                for before, after in pairwise(channels)
            )
        )

    @property
    def first_conv(self) -> nn.Conv2d:
        return cast(ImpalaStage, self.stages[0]).conv

    def features(self, img: Tensor) -> Tensor:
        return torch.relu_(self.stages(img))


def _conv(
    in_channels: int,
    out_channels: int,
    kernel: int,
    stride: int = 1,
    padding: int = 0,
    *,
    spectral: bool,
) -> nn.Conv2d:
    kind = SpectralNormConv2d if spectral else nn.Conv2d
    conv: nn.Conv2d = kind(in_channels, out_channels, kernel, stride, padding)
    # Weights and images both channels-last: with one alone the convolutions stay slow.
    return conv.to(memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]
