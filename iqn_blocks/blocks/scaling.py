"""Normalisation of images."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from iqn_blocks._arguments import check_choice
from iqn_blocks.functional import Uint8Scaling, normalize_image


class ImageNormalization(nn.Module):
    """uint8 images scaled, floating ones cast to the module's dtype: ``(B, C, H, W)`` in and out.

    ``signed`` scaling is ``(x − 128) / 128``, ``unit`` is ``x / 255``; see
    :func:`~iqn_blocks.functional.normalize_image`. The dtype follows ``.to()`` as parameters do.

    Raises:
        ValueError: an unknown scaling.
    """

    like: Tensor

    def __init__(self, uint8_scaling: Uint8Scaling = "signed") -> None:
        check_choice("uint8_scaling", uint8_scaling, Uint8Scaling)
        super().__init__()
        self.uint8_scaling = uint8_scaling
        self.register_buffer("like", torch.zeros(()), persistent=False)  # has the dtype

    def forward(self, img: Tensor) -> Tensor:
        return normalize_image(img, self.like.dtype, self.uint8_scaling)

    def extra_repr(self) -> str:
        return repr(self.uint8_scaling)
