"""IMPALA with the mean over positions."""

from __future__ import annotations

from iqn_blocks.blocks.stems.base import SpectralNormScope
from iqn_blocks.blocks.stems.impala import ImpalaStem
from iqn_blocks.kinds import Size
from iqn_blocks.registry import register


@register("impoola", slot="stem")
def impoola_stem(
    in_channels: int,
    image_size: tuple[int, int],
    *,
    width: Size = 2,
    layer_norm: bool = False,
    spectral_norm: SpectralNormScope | None = None,
) -> ImpalaStem:
    """Impoola (arXiv:2503.05546): the mean over the positions of IMPALA's last feature map.

    ``(B, C, H, W) -> (B, 32·width)`` for images of any size. The paper's next Linear layer is the
    first layer of the heads here.

    Args:
        in_channels: ``C``.
        image_size: ``(H, W)``.
        width: ``s``, a factor of all channels; the paper's is 2.
        layer_norm: LayerNorm after each stage's first convolution; this size of image alone.
        spectral_norm: spectral normalisation of every convolution (``all``), or of those inside
            residual blocks (``residual``).
    """
    return ImpalaStem(
        in_channels,
        image_size,
        width=width,
        layer_norm=layer_norm,
        spectral_norm=spectral_norm,
        readout="avg",
        readout_size=1,
    )
