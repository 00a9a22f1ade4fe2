"""The head of Linear layers."""

from __future__ import annotations

from iqn_blocks.blocks.activation import Activation
from iqn_blocks.blocks.heads.head import Head
from iqn_blocks.kinds import Layers, NotNegative, SizeOrNull
from iqn_blocks.registry import register


@register("mlp", slot="head")
def mlp_head(
    in_dim: int,
    out_shape: tuple[int, ...],
    *,
    hidden_dim: SizeOrNull = None,
    n_hidden_layers: Layers = 1,
    layer_norm: bool = False,
    noisy: bool = False,
    noisy_readout: bool = False,
    sigma0: NotNegative = 0.5,
    activation: Activation = "leaky_relu",
) -> Head:
    """Hidden layers of one width, and a readout: ``(R, in_dim) -> (R, *out_shape)``.

    Args:
        in_dim: width of the mixed vector.
        out_shape: ``(1,)``, ``(A,)`` or ``(N, A)``.
        hidden_dim: width; null takes half of nn.decoder.dense_hidden_dimension (512 by hand).
        n_hidden_layers: hidden layers before the readout.
        layer_norm: LayerNorm before each activation.
        noisy: NoisyLinear (arXiv:1706.10295) in the hidden layers.
        noisy_readout: NoisyLinear as readout.
        sigma0: initial noise, ``σ = sigma0 / √in``.
        activation: after each hidden layer.
    """
    return Head(
        in_dim,
        [hidden_dim or 512] * n_hidden_layers,
        out_shape,
        layer_norm=layer_norm,
        noisy=noisy,
        noisy_readout=noisy_readout,
        sigma0=sigma0,
        activation=activation,
    )
