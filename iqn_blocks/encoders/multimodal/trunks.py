"""The trunk that the configuration asks for."""

from __future__ import annotations

from torch import nn

from iqn_blocks.blocks import ConvTrunk, MeanTrunk, MLPTrunk, NativeTrunk
from iqn_blocks.config import Config, trunk
from iqn_blocks.encoders.common import native_or_identity
from iqn_blocks.encoders.hf import Recipes, hf_trunk


def build_trunk(config: Config, n_tokens: int, recipes: Recipes | None) -> nn.Module:
    """From ``n_tokens`` tokens of width ``d`` to one vector: ``(B, T, d) -> (B, d)``."""
    encoder = config.nn.encoder
    d_model = encoder.transformer.d_model
    kind = trunk(config)
    if kind == "linear":
        return MeanTrunk()
    if kind == "native_transformer":
        return NativeTrunk(native_or_identity(encoder.transformer))
    if kind == "mlp":
        mlp = encoder.fusion_mlp
        return MLPTrunk(
            n_tokens, d_model, mlp.hidden_dim, n_layers=mlp.n_layers, dropout=mlp.dropout
        )
    if kind == "cnn":
        cnn = encoder.fusion_cnn
        return ConvTrunk(
            d_model, cnn.hidden_channels, kernel_size=cnn.kernel_size, dropout=cnn.dropout
        )
    return hf_trunk(config, n_tokens, d_model, recipes)
