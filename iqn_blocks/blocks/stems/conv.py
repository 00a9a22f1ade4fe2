"""The 4-layer convolutional stem."""

from __future__ import annotations

from iqn_blocks.blocks.activation import Activation
from iqn_blocks.blocks.stems.base import ConvStack, Readout, SpectralNormScope
from iqn_blocks.kinds import Size
from iqn_blocks.registry import register

LAYERS = ((16, 4, 2), (32, 4, 2), (64, 3, 2), (32, 3, 1))  # width, kernel, stride


@register("conv", slot="stem")
class ConvStem(ConvStack):
    """The 4-layer CNN: k4 s2, k4 s2, k3 s2, k3 s1 of widths 16, 32, 64, 32, no padding.

    ``(B, C, H, W) -> (B, out_dim)``, an activation after each convolution; ``image_size`` is
    ``(H, W)``. This stem has no residual blocks, so spectral normalisation of ``residual`` scope
    puts it nowhere.

    Args:
        activation: after each convolution.
        spectral_norm: spectral normalisation (arXiv:1802.05957) of the convolutions.
        readout: what becomes of the last feature map; max and avg pool it, tokens makes each
            position a token.
        readout_size: side of the pooled map, in positions.

    Raises:
        ValueError: an image side below 34 pixels.
    """

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
        super().__init__(
            in_channels,
            image_size,
            LAYERS,
            title="4-layer CNN",
            activation=activation,
            spectral=spectral_norm == "all",
            readout=readout,
            readout_size=readout_size,
        )
