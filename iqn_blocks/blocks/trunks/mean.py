"""The trunk without parameters."""

from __future__ import annotations

from torch import Tensor, nn

from iqn_blocks.registry import register


@register("linear", slot="trunk")
class MeanTrunk(nn.Module):
    """The mean over tokens: ``(B, T, d) -> (B, d)``."""

    def __init__(self, n_tokens: int = 0, d_model: int = 0) -> None:
        super().__init__()

    def forward(self, tokens: Tensor) -> Tensor:
        return tokens.mean(1)
