"""The head of which every offset of a block has a vector of its own."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from iqn_blocks.blocks.activation import Activation
from iqn_blocks.blocks.heads.mlp import mlp_head
from iqn_blocks.blocks.transformer import native_encoder
from iqn_blocks.kinds import Layers, LayersOrNone, NotNegative, Size, SizeOrNull
from iqn_blocks.registry import register


@register("block", slot="head")
class BlockHead(nn.Module):
    """One small head for all offsets ``n``, which reads ``x[n] = x ⊙ e[n]``.

    ``(R, D) -> (R, N, A)``; ``(1,)`` and ``(A,)`` are blocks of one offset. With ``n_layers`` the
    ``N`` vectors go through native transformer layers (:class:`EncoderLayer`) first, so that the
    values of an offset can depend on what there is to choose at the others. ``e`` is learned and
    starts as ``N(1, 0.1²)``: the offsets begin nearly alike. No paper is known to us that has it;
    ordinary heads have a readout for each offset, as branching networks do (arXiv:1711.08946).

    Args:
        in_dim: width of the mixed vector.
        out_shape: ``(1,)``, ``(A,)`` or ``(N, A)``.
        n_layers: transformer layers over the offsets.
        n_heads: their attention heads; must divide the width of the mixed vector.
        ff_mult: their feed-forward width is max(64, in_dim · ff_mult).
        hidden_dim: width; null takes half of nn.decoder.dense_hidden_dimension (512 by hand).
        n_hidden_layers: hidden layers before the readout.
        layer_norm: LayerNorm before each activation.
        noisy: NoisyLinear (arXiv:1706.10295) in the hidden layers.
        noisy_readout: NoisyLinear as readout.
        sigma0: initial noise, ``σ = sigma0 / √in``.
        activation: after each hidden layer.

    Raises:
        ValueError: ``n_heads`` does not divide ``in_dim``.
    """

    def __init__(
        self,
        in_dim: int,
        out_shape: tuple[int, ...],
        *,
        n_layers: LayersOrNone = 0,
        n_heads: Size = 4,
        ff_mult: Size = 4,
        hidden_dim: SizeOrNull = None,
        n_hidden_layers: Layers = 1,
        layer_norm: bool = False,
        noisy: bool = False,
        noisy_readout: bool = False,
        sigma0: NotNegative = 0.5,
        activation: Activation = "leaky_relu",
    ) -> None:
        super().__init__()
        self.out_shape = out_shape
        n_offsets = out_shape[0] if len(out_shape) > 1 else 1
        self.offsets = nn.Parameter(torch.empty(n_offsets, in_dim))
        nn.init.normal_(self.offsets, mean=1.0, std=0.1)
        self.encoder = native_encoder(in_dim, n_layers=n_layers, n_heads=n_heads, ff_mult=ff_mult)
        layers = mlp_head(
            in_dim,
            out_shape[-1:],
            hidden_dim=hidden_dim,
            n_hidden_layers=n_hidden_layers,
            layer_norm=layer_norm,
            noisy=noisy,
            noisy_readout=noisy_readout,
            sigma0=sigma0,
            activation=activation,
        )
        self.hidden, self.readout = layers.hidden, layers.readout

    def forward(self, x: Tensor) -> Tensor:
        each = self.encoder(x[:, None] * self.offsets)  # (R, N, D)
        out: Tensor = self.readout(self.hidden(each))
        return out.view(out.shape[0], *self.out_shape)

    def extra_repr(self) -> str:
        return f"out_shape={self.out_shape}"
