"""The head with a transformer over slices of its input."""

from __future__ import annotations

from iqn_blocks.blocks.activation import Activation
from iqn_blocks.blocks.heads.head import Head
from iqn_blocks.blocks.transformer import IQNTransformerTrunk
from iqn_blocks.kinds import Layers, NotNegative, Probability, Size, SizeOrNull
from iqn_blocks.registry import register


@register("transformer", slot="head")
def transformer_head(
    in_dim: int,
    out_shape: tuple[int, ...],
    *,
    d_model: Size = 128,
    n_layers: Layers = 1,
    n_heads: Size = 4,
    ff_mult: Size = 4,
    dropout: Probability = 0.0,
    hidden_dim: SizeOrNull = None,
    layer_norm: bool = False,
    noisy: bool = False,
    noisy_readout: bool = False,
    sigma0: NotNegative = 0.5,
    activation: Activation = "leaky_relu",
) -> Head:
    """A transformer trunk, one hidden layer, a readout: ``(R, in_dim) -> (R, *out_shape)``.

    Args:
        in_dim: width of the mixed vector.
        out_shape: ``(1,)``, ``(A,)`` or ``(N, A)``.
        d_model: token width; must divide the state width D.
        n_layers: encoder layers.
        n_heads: attention heads; must divide d_model.
        ff_mult: feed-forward width is max(64, d_model · ff_mult).
        dropout: dropout probability inside the encoder.
        hidden_dim: width of the hidden layer; null takes half of
            nn.decoder.dense_hidden_dimension (512 by hand).
        layer_norm: LayerNorm before the activation.
        noisy: NoisyLinear (arXiv:1706.10295) in the hidden layer.
        noisy_readout: NoisyLinear as readout.
        sigma0: initial noise, ``σ = sigma0 / √in``.
        activation: after the hidden layer.

    Raises:
        ValueError: ``d_model`` does not divide ``in_dim``, or ``n_heads`` not ``d_model``.
    """
    trunk = IQNTransformerTrunk(
        in_dim, d_model, n_layers=n_layers, n_heads=n_heads, ff_mult=ff_mult, dropout=dropout
    )
    return Head(
        in_dim,
        [hidden_dim or 512],
        out_shape,
        trunk=trunk,
        layer_norm=layer_norm,
        noisy=noisy,
        noisy_readout=noisy_readout,
        sigma0=sigma0,
        activation=activation,
    )
