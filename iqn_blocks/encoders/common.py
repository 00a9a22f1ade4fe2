"""What several encoders build from the configuration."""

from __future__ import annotations

from iqn_blocks.blocks import ConvStem, ImageStem, ImpalaStem
from iqn_blocks.config import Config


def build_stem(config: Config) -> ImageStem:
    """The image stem that ``nn.vis.cnn`` describes."""
    vis = config.nn.vis
    cnn = vis.cnn
    assert cnn is not None
    image_size = (vis.image_size.height, vis.image_size.width)
    pool = cnn.adaptive_maxpool_size if cnn.use_adaptive_maxpool else None
    spectral_norm = cnn.spectral_norm_scope if cnn.use_spectral_norm else None
    if cnn.use_impala_cnn:
        return ImpalaStem(
            vis.in_channels,
            image_size,
            uint8_scaling=vis.uint8_scaling,
            model_size=cnn.impala_model_size,
            adaptive_maxpool_size=pool,
            spectral_norm=spectral_norm,
        )
    return ConvStem(
        vis.in_channels,
        image_size,
        uint8_scaling=vis.uint8_scaling,
        activation=config.nn.activation,
        adaptive_maxpool_size=pool,
        spectral_norm=spectral_norm,
    )
