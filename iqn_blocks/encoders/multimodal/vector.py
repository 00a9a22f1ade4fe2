"""Image and floats as one fused vector, which becomes the state directly or token by token."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from iqn_blocks.config import Config
from iqn_blocks.encoders.common import build_floats, build_normalization, build_trunk
from iqn_blocks.encoders.vision import VisionModule
from iqn_blocks.hf import Models


class FusedVector(nn.Module):
    """``z = concat(v, MLP((floats − mean) / std))``, the base of the two encoders below.

    ``v`` is the vector ``(B, vision_dim)`` of the vision branch, zeros where there is none.
    """

    def __init__(self, config: Config, vision: VisionModule | None, vision_dim: int) -> None:
        super().__init__()
        self.state_dim = config.nn.decoder.dense_hidden_dimension
        self.vision = vision
        self.vision_dim = vision_dim
        self.float_normalization = build_normalization(config)
        self.float_mlp = build_floats(config)
        self.fused_dim = vision_dim + cast(int, self.float_mlp.out_dim)

    def fused(self, img: Tensor | None, floats: Tensor) -> Tensor:
        """``(B, C, H, W), (B, F) -> (B, fused_dim)``."""
        v = None if self.vision is None else self.vision(img)
        f: Tensor = self.float_mlp(self.float_normalization(floats))
        return torch.cat([f.new_zeros(f.shape[0], self.vision_dim) if v is None else v, f], dim=1)


class DirectEncoder(FusedVector):
    """``s = output(z)``: ``(B, C, H, W), (B, F) -> (B, D)``."""

    def __init__(self, config: Config, vision: VisionModule | None, vision_dim: int) -> None:
        super().__init__(config, vision, vision_dim)
        self.output = nn.Linear(self.fused_dim, self.state_dim)

    def forward(self, img: Tensor | None, floats: Tensor) -> Tensor:
        state: Tensor = self.output(self.fused(img, floats))
        return state


class VectorEncoder(FusedVector):
    """``s = output(trunk(to_tokens(z) + position))``: ``(B, C, H, W), (B, F) -> (B, D)``.

    ``to_tokens`` is a Linear to ``L`` tokens of width ``d``; ``position (1, L, d)`` starts at zero.
    """

    def __init__(
        self, config: Config, vision: VisionModule | None, vision_dim: int, models: Models | None
    ) -> None:
        super().__init__(config, vision, vision_dim)
        block = config.nn.encoder.transformer
        n_tokens, d_model = block.post_concat_seq_len, block.d_model
        self.to_tokens = nn.Linear(self.fused_dim, n_tokens * d_model)
        self.position = nn.Parameter(torch.zeros(1, n_tokens, d_model))
        self.trunk = build_trunk(config, n_tokens, models)
        self.output = nn.Linear(d_model, self.state_dim)

    def forward(self, img: Tensor | None, floats: Tensor) -> Tensor:
        tokens = self.to_tokens(self.fused(img, floats)).view(-1, *self.position.shape[1:])
        state: Tensor = self.output(self.trunk(tokens + self.position))
        return state
