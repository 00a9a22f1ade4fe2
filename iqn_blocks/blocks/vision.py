"""Vision branches without a pretrained model: a frame as one vector, or as tokens.

Each has ``out_dim``, the width of its result, and ``n_tokens``; a vector ``(B, out_dim)`` counts as
one token.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from iqn_blocks.blocks.scaling import ImageNormalization
from iqn_blocks.blocks.tokens import projection
from iqn_blocks.functional import Uint8Scaling, normalize_image


class StemVision(nn.Module):
    """``projection(stem(img))``: ``(B, C, H, W) -> (B, out_dim)``.

    uint8 images are scaled first. ``stem`` has an integer ``out_dim``; the projection is left out
    if ``out_dim`` is the same or None. A stem with an integer ``n_tokens`` gives tokens: each is
    projected, ``(B, C, H, W) -> (B, n_tokens, out_dim)``.
    """

    def __init__(
        self, stem: nn.Module, out_dim: int | None = None, *, uint8_scaling: Uint8Scaling = "signed"
    ) -> None:
        super().__init__()
        stem_dim = cast(int, stem.out_dim)
        self.n_tokens: int = getattr(stem, "n_tokens", None) or 1
        self.out_dim = stem_dim if out_dim is None else out_dim
        self.normalization = ImageNormalization(uint8_scaling)
        self.stem = stem
        self.projection = projection(stem_dim, self.out_dim)

    def forward(self, img: Tensor) -> Tensor:
        vector: Tensor = self.projection(self.stem(self.normalization(img)))
        return vector


class PatchTokens(nn.Module):
    """Patch embeddings (arXiv:2010.11929, eq. 1): ``(B, C, H, W) -> (B, T, d)``, ``T = H·W / p²``.

    One token for each square patch of side ``p``, row by row, by a convolution of stride ``p``.
    ``image_size`` is ``(H, W)``, ``patch_size`` is ``p``, ``d_model`` is ``d``.

    Raises:
        ValueError: ``patch_size`` does not divide both sides of the image.
    """

    def __init__(
        self,
        in_channels: int,
        image_size: tuple[int, int],
        patch_size: int,
        d_model: int,
        *,
        uint8_scaling: Uint8Scaling = "signed",
    ) -> None:
        height, width = image_size
        if height % patch_size or width % patch_size:
            raise ValueError(
                f"patch_size: {patch_size} does not divide the image, {height}×{width} (H×W)"
            )
        super().__init__()
        self.uint8_scaling = uint8_scaling
        self.n_tokens = (height // patch_size) * (width // patch_size)
        self.out_dim = d_model
        self.patch_embedding = nn.Conv2d(in_channels, d_model, patch_size, stride=patch_size)

    def forward(self, img: Tensor) -> Tensor:
        img = normalize_image(img, self.patch_embedding.weight.dtype, self.uint8_scaling)
        patches: Tensor = self.patch_embedding(img)
        return patches.flatten(2).transpose(1, 2)


class PatchVision(PatchTokens):
    """A native vision transformer: ``projection(encoder(patches + position))``.

    ``(B, C, H, W) -> (B, T, out_dim)``, or with ``summary`` the mean over tokens ``(B, out_dim)``.
    ``position (1, T, d)`` is learned and starts at zero; ``encoder`` takes and gives tokens of
    width ``d_model``; the projection is left out if ``out_dim`` is ``d_model``.
    """

    def __init__(
        self,
        in_channels: int,
        image_size: tuple[int, int],
        patch_size: int,
        d_model: int,
        encoder: nn.Module,
        *,
        summary: bool,
        out_dim: int,
        uint8_scaling: Uint8Scaling = "signed",
    ) -> None:
        super().__init__(in_channels, image_size, patch_size, d_model, uint8_scaling=uint8_scaling)
        self.position = nn.Parameter(torch.zeros(1, self.n_tokens, d_model))
        self.encoder = encoder
        self.projection = projection(d_model, out_dim)
        self.summary = summary
        self.out_dim = out_dim
        if summary:
            self.n_tokens = 1

    def forward(self, img: Tensor) -> Tensor:
        tokens: Tensor = self.encoder(super().forward(img) + self.position)
        out: Tensor = self.projection(tokens.mean(1) if self.summary else tokens)
        return out
