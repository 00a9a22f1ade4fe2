"""The hf_vision topology: a pretrained vision model and a float MLP, side by side."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from iqn_blocks.config import Config
from iqn_blocks.encoders.common import build_floats, build_normalization, freeze
from iqn_blocks.encoders.vision import transformer_vector
from iqn_blocks.hf import Models
from iqn_blocks.registry import register


@register("hf_vision")
class HFVisionEncoder(nn.Module):
    """``s = concat(vision(img), Linear(MLP((floats − mean) / std)))``: ``(B, 2d)``.

    ``vision`` gives the summary token of a pretrained model, projected to width ``d`` and refined.
    Frames of any size are resized.

    ``models`` says where the pretrained model comes from.
    """

    resizes_images = True

    def __init__(self, config: Config, models: Models | None = None) -> None:
        super().__init__()
        self.vision = transformer_vector(config, models)
        width = self.vision.out_dim
        self.state_dim = 2 * width
        self.float_normalization = build_normalization(config)
        self.float_mlp = build_floats(config)
        self.float_projection = nn.Linear(cast(int, self.float_mlp.out_dim), width)
        vision, floats = config.nn.vis.freeze, config.nn.float.freeze
        freeze(self, {"vision": vision, "float_mlp": floats, "float_projection": floats})

    def forward(self, img: Tensor, floats: Tensor) -> Tensor:
        p = self.vision(img)
        z = self.float_projection(self.float_mlp(self.float_normalization(floats)))
        return torch.cat([p, z], dim=1)
