"""Native transformer encoders, PyTorch's, as state encoders and heads use them."""

from __future__ import annotations

from torch import Tensor, nn


def native_encoder(
    d_model: int, *, n_layers: int, n_heads: int = 4, ff_mult: int = 4, dropout: float = 0.0
) -> nn.TransformerEncoder:
    """A post-norm GELU ``nn.TransformerEncoder``: ``(B, T, d_model) -> (B, T, d_model)``.

    Feed-forward width ``max(64, d_model·ff_mult)``. Unlike PyTorch's own stack, whose layers start
    as copies of one, every layer is initialised on its own.

    Raises:
        ValueError: ``n_heads`` does not divide ``d_model``.
    """
    if d_model % n_heads:
        raise ValueError(f"n_heads: {n_heads} does not divide d_model = {d_model}")

    def layer() -> nn.TransformerEncoderLayer:
        return nn.TransformerEncoderLayer(
            d_model,
            n_heads,
            dim_feedforward=max(64, d_model * ff_mult),
            dropout=dropout,
            activation="gelu",
            batch_first=True,
            norm_first=False,
        )

    encoder = nn.TransformerEncoder(layer(), n_layers, enable_nested_tensor=False)
    encoder.layers = nn.ModuleList(layer() for _ in range(n_layers))
    return encoder


class IQNTransformerTrunk(nn.Module):
    """A head's trunk: the mixed vector as ``D / d_model`` tokens, encoded and averaged.

    ``(R, D) -> (R, d_model)``.

    Raises:
        ValueError: ``d_model`` does not divide ``in_dim``, or ``n_heads`` not ``d_model``.
    """

    def __init__(
        self,
        in_dim: int,
        d_model: int,
        *,
        n_layers: int = 1,
        n_heads: int = 4,
        ff_mult: int = 4,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if in_dim % d_model:
            raise ValueError(f"d_model: {d_model} does not divide the state width D = {in_dim}")
        self.d_model = d_model
        self.n_tokens = in_dim // d_model
        self.encoder = native_encoder(
            d_model, n_layers=n_layers, n_heads=n_heads, ff_mult=ff_mult, dropout=dropout
        )

    def forward(self, x: Tensor) -> Tensor:
        tokens: Tensor = self.encoder(x.reshape(x.shape[0], self.n_tokens, self.d_model))
        return tokens.mean(1)
