"""Widths and parameter counts of single parts, by arithmetic alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

from iqn_blocks.config.routing import float_hidden_dim

if TYPE_CHECKING:
    from iqn_blocks.config.inputs import Transformer
    from iqn_blocks.config.schema import Config

CONV_LAYERS = ((16, 4, 2), (32, 4, 2), (64, 3, 2), (32, 3, 1))  # width, kernel, stride
CONV_MIN_SIDE = 34  # pixels a side that leave one position
DEFAULT_VISION_WIDTH = 256


def linear(before: int, after: int) -> int:
    """Parameters of a Linear."""
    return before * after + after


def projection(before: int, after: int) -> int:
    """Parameters of a Linear that is left out between equal widths."""
    return 0 if before == after else linear(before, after)


def encoder_layers(width: int, n_layers: int, ff_mult: int) -> int:
    """Parameters of a native transformer encoder."""
    hidden = max(64, width * ff_mult)
    attention = linear(width, 3 * width) + linear(width, width)
    norms = 2 * 2 * width
    return n_layers * (attention + linear(width, hidden) + linear(hidden, width) + norms)


def native(block: Transformer) -> int:
    """Parameters of the native encoder that a block sizes."""
    return encoder_layers(block.d_model, block.n_layers, block.ff_mult)


def conv_map(config: Config) -> tuple[int, int, int]:
    """Channels, height and width of the stem's feature map, before the adaptive pool."""
    vis = config.nn.vis
    assert vis.cnn is not None
    height, width = vis.image_size.height, vis.image_size.width
    if vis.cnn.use_impala_cnn:
        return 32 * vis.cnn.impala_model_size, -(-height // 8), -(-width // 8)
    for _, kernel, stride in CONV_LAYERS:
        height, width = ((side - kernel) // stride + 1 for side in (height, width))
    return CONV_LAYERS[-1][0], height, width


def conv_out(config: Config) -> int:
    """Width of the flat output of the image stem."""
    channels, height, width = conv_map(config)
    cnn = config.nn.vis.cnn
    assert cnn is not None
    pool = cnn.adaptive_maxpool_size
    return channels * (pool * pool if cnn.use_adaptive_maxpool else height * width)


def stem(config: Config) -> int:
    """Parameters of the image stem."""
    vis = config.nn.vis
    assert vis.cnn is not None
    total, channels = 0, vis.in_channels
    if not vis.cnn.use_impala_cnn:
        for width, kernel, _ in CONV_LAYERS:
            total += linear(channels * kernel**2, width)
            channels = width
        return total
    size = vis.cnn.impala_model_size
    for width in (16 * size, 32 * size, 32 * size):
        total += linear(9 * channels, width) + 4 * linear(9 * width, width)
        channels = width
    return total


def float_mlp(config: Config, *, layer_norm: bool = False) -> int:
    """Parameters of the float MLP."""
    hidden = float_hidden_dim(config)
    layers = linear(config.float_input_dim, hidden) + linear(hidden, hidden)
    return layers + (2 * 2 * hidden if layer_norm else 0)


def vision_width(config: Config) -> int:
    """Width d_v of the vision vector or tokens."""
    vision = config.nn.vis.transformer
    return DEFAULT_VISION_WIDTH if vision is None else vision.d_model
