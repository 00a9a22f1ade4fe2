"""Image and floats as one sequence of tokens."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from iqn_blocks.blocks import DenseTokens, FeatureTokens, as_tokens
from iqn_blocks.config import Config
from iqn_blocks.encoders.common import build_normalization, build_trunk
from iqn_blocks.encoders.vision import VisionModule
from iqn_blocks.hf import Models


class SequenceEncoder(nn.Module):
    """``s = output(trunk([vision…, floats…] + position))``: ``(B, C, H, W), (B, F) -> (B, D)``.

    The vision branch gives tokens of width ``d``, or one as a vector; there may be none. Float
    tokens are made of normalised floats, or of the float MLP's output where there is one.
    ``position (1, T, d)`` starts at zero.
    """

    def __init__(
        self,
        config: Config,
        vision: VisionModule | None,
        float_mlp: nn.Module | None,
        float_tokens: DenseTokens | FeatureTokens,
        models: Models | None,
    ) -> None:
        super().__init__()
        self.state_dim = config.nn.decoder.dense_hidden_dimension
        d_model = config.nn.encoder.transformer.d_model
        n_tokens = float_tokens.n_tokens + (0 if vision is None else vision.n_tokens)
        self.vision = vision
        self.float_normalization = build_normalization(config)
        self.float_mlp = nn.Identity() if float_mlp is None else float_mlp
        self.float_tokens = float_tokens
        self.position = nn.Parameter(torch.zeros(1, n_tokens, d_model))
        self.trunk = build_trunk(config, n_tokens, models)
        self.output = nn.Linear(d_model, self.state_dim)

    def forward(self, img: Tensor | None, floats: Tensor) -> Tensor:
        tokens = [] if self.vision is None else [as_tokens(self.vision(img))]
        tokens.append(self.float_tokens(self.float_mlp(self.float_normalization(floats))))
        state: Tensor = self.output(self.trunk(torch.cat(tokens, dim=1) + self.position))
        return state
