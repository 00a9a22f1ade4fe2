"""Pixels as a pretrained vision model wants them."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from iqn_blocks.blocks.processor import PixelSpec
from iqn_blocks.functional import Uint8Scaling, normalize_image, wide_dtype


class PixelValues(nn.Module):
    """Frames as a pretrained vision model takes them: ``(B, C, H, W) -> (B, 3, H', W')``.

    Bilinear resize, clamp to [−1, 1], map to [0, 1], ``(x − mean) / std``; one channel becomes
    three. uint8 is scaled first, as :func:`~iqn_blocks.functional.normalize_image` does. Computed
    in float32, or in float64 where ``dtype`` is that, and then cast to ``dtype``.

    Raises:
        ValueError: ``in_channels`` is neither 1 nor 3.
    """

    def __init__(
        self, spec: PixelSpec, in_channels: int, *, uint8_scaling: Uint8Scaling = "signed"
    ) -> None:
        if in_channels not in (1, 3):
            raise ValueError(f"in_channels: got {in_channels}, accepted are 1 (repeated) and 3")
        super().__init__()
        self.spec = spec
        self.uint8_scaling = uint8_scaling

    def forward(self, img: Tensor, dtype: torch.dtype) -> Tensor:
        x = normalize_image(img, wide_dtype(dtype), self.uint8_scaling)
        x = F.interpolate(x, size=self.spec.size, mode="bilinear", align_corners=False)
        x = (x.clamp(-1, 1) + 1) / 2
        # One channel after the other: a single one is normalised three times, not copied first.
        channels = (
            (x[:, min(i, x.shape[1] - 1)] - mean) / std
            for i, (mean, std) in enumerate(zip(self.spec.mean, self.spec.std, strict=True))
        )
        return torch.stack(list(channels), dim=1).to(dtype)

    def extra_repr(self) -> str:
        return f"size={self.spec.size}, mean={self.spec.mean}, std={self.spec.std}"
