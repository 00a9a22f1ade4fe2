"""A transformer as trunk."""

from __future__ import annotations

from torch import Tensor, nn

from iqn_blocks.blocks.transformer import native_encoder
from iqn_blocks.kinds import LayersOrNone, Probability, Size
from iqn_blocks.registry import register


@register("native_transformer", slot="trunk")
class NativeTrunk(nn.Module):
    """The mean over encoded tokens: ``(B, T, d) -> (B, d)``.

    Args:
        n_layers: encoder layers; 0 leaves the encoder out.
        n_heads: attention heads; must divide ``d_model``.
        ff_mult: feed-forward width is ``max(64, d_model · ff_mult)``.
        dropout: dropout probability inside the encoder.

    Raises:
        ValueError: ``n_heads`` does not divide ``d_model``.
    """

    def __init__(
        self,
        n_tokens: int,
        d_model: int,
        *,
        n_layers: LayersOrNone = 2,
        n_heads: Size = 4,
        ff_mult: Size = 4,
        dropout: Probability = 0.0,
    ) -> None:
        super().__init__()
        self.encoder = native_encoder(
            d_model, n_layers=n_layers, n_heads=n_heads, ff_mult=ff_mult, dropout=dropout
        )

    def forward(self, tokens: Tensor) -> Tensor:
        encoded: Tensor = self.encoder(tokens)
        return encoded.mean(1)
