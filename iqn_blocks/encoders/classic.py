"""The classic topology: a convolutional stem and a float MLP, side by side."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from iqn_blocks.blocks import ImageNormalization, orthogonal_
from iqn_blocks.config import Config
from iqn_blocks.encoders.common import build_floats, build_normalization, build_stem, require
from iqn_blocks.registry import register


@register("classic")
class ClassicEncoder(nn.Module):
    """``s = concat(stem(img), MLP((floats − mean) / std))``: ``(B, C, H, W), (B, F) -> (B, D)``.

    Without an image (``vis.no_image``) ``s`` is the float part alone, without floats (``F = 0``)
    the image part.
    """

    def __init__(self, config: Config) -> None:
        super().__init__()
        nn_config = config.nn
        self.state_dim = 0
        self.stem = None if nn_config.vis.no_image else build_stem(config)
        if self.stem is not None:
            self.image_normalization = ImageNormalization(nn_config.vis.uint8_scaling)
            self.state_dim += cast(int, self.stem.out_dim)
        self.float_mlp = None
        if config.float_input_dim:
            self.float_normalization = build_normalization(config)
            self.float_mlp = build_floats(
                config,
                {
                    "layer_norm": lambda _: config.btr.use_layer_norm,
                    "activation": lambda _: nn_config.activation,
                },
            )
            self.state_dim += cast(int, self.float_mlp.out_dim)
        for part, branch in ((self.stem, nn_config.vis), (self.float_mlp, nn_config.float)):
            if part is not None:
                if nn_config.init == "orthogonal":
                    orthogonal_(part)
                part.requires_grad_(not branch.freeze)

    def forward(self, img: Tensor | None, floats: Tensor | None) -> Tensor:
        parts = []
        if self.stem is not None:
            parts.append(self.stem(self.image_normalization(require(img, "img"))))
        if self.float_mlp is not None:
            parts.append(self.float_mlp(self.float_normalization(require(floats, "floats"))))
        return torch.cat(parts, dim=1) if len(parts) > 1 else parts[0]
