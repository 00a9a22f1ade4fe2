"""Transformer encoders, as state encoders and heads use them."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from iqn_blocks._arguments import heads_fault, nearest_divisor


class SelfAttention(nn.Module):
    """Self-attention of ``n_heads`` heads: ``(B, T, d) -> (B, T, d)`` (arXiv:1706.03762, §3.2).

    Parameters, initial weights and values are those of ``nn.MultiheadAttention``. That module
    copies queries, keys and values out of one product, and their gradients back; here they are
    views of it.

    Raises:
        AssertionError: ``n_heads`` does not divide ``d_model``.
    """

    def __init__(self, d_model: int, n_heads: int, *, dropout: float = 0.0) -> None:
        super().__init__()
        self.n_heads, self.dropout = n_heads, dropout
        like = nn.MultiheadAttention(d_model, n_heads)
        self.in_proj_weight, self.in_proj_bias = like.in_proj_weight, like.in_proj_bias
        self.out_proj = nn.Linear(d_model, d_model)
        self.out_proj.load_state_dict(like.out_proj.state_dict())

    def forward(self, x: Tensor) -> Tensor:
        batch, tokens, d_model = x.shape
        qkv = F.linear(x, self.in_proj_weight, self.in_proj_bias)
        qkv = qkv.view(batch, tokens, 3, self.n_heads, d_model // self.n_heads)
        q, k, v = qkv.transpose(1, 3).unbind(2)
        dropout = self.dropout if self.training else 0.0
        mixed = F.scaled_dot_product_attention(q, k, v, dropout_p=dropout)
        out: Tensor = self.out_proj(mixed.transpose(1, 2).flatten(2))
        return out

    def extra_repr(self) -> str:
        return f"n_heads={self.n_heads}, dropout={self.dropout}"


class EncoderLayer(nn.Module):
    """A post-norm layer with GELU: ``(B, T, d) -> (B, T, d)``, ``ff_dim`` wide in between.

    ``x ← LN(x + attention(x))``, ``x ← LN(x + W₂ GELU(W₁ x + b₁) + b₂)``, with dropout of attention
    weights, of both summands and after the GELU. Parameters are named as in
    ``nn.TransformerEncoderLayer``. With ``recompute`` the wide ``GELU(…)`` is computed again in
    backward instead of being kept.
    """

    def __init__(self, d_model: int, n_heads: int, ff_dim: int, *, dropout: float = 0.0) -> None:
        super().__init__()
        self.self_attn = SelfAttention(d_model, n_heads, dropout=dropout)
        self.linear1 = nn.Linear(d_model, ff_dim)
        self.linear2 = nn.Linear(ff_dim, d_model)
        self.norm1 = nn.LayerNorm(d_model)
        self.norm2 = nn.LayerNorm(d_model)
        self.dropout = nn.Dropout(dropout)
        self.recompute = False

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm1(x + self.dropout(self.self_attn(x)))
        wide = self.linear1(x)
        if self.recompute and wide.requires_grad:
            narrow = checkpoint(
                self._narrow,
                wide,
                use_reentrant=False,
                preserve_rng_state=self.training and self.dropout.p > 0,
            )
        else:
            narrow = self._narrow(wide)
        out: Tensor = self.norm2(x + self.dropout(narrow))
        return out

    def _narrow(self, wide: Tensor) -> Tensor:
        narrow: Tensor = self.linear2(self.dropout(F.gelu(wide)))
        return narrow


class NativeEncoder(nn.Module):
    """``layers`` one after the other: ``(B, T, d) -> (B, T, d)``."""

    def __init__(self, layers: list[EncoderLayer]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def forward(self, tokens: Tensor) -> Tensor:
        for layer in self.layers:
            tokens = layer(tokens)
        return tokens


def native_encoder(
    d_model: int, *, n_layers: int, n_heads: int = 4, ff_mult: int = 4, dropout: float = 0.0
) -> NativeEncoder:
    """``n_layers`` of :class:`EncoderLayer`: ``(B, T, d_model) -> (B, T, d_model)``.

    The feed-forward width is ``max(64, d_model·ff_mult)``. The equations are those of a post-norm
    GELU ``nn.TransformerEncoder``. Its layers start as copies of one; here each has its own initial
    weights.

    Raises:
        ValueError: ``n_heads`` does not divide ``d_model``, and ``n_layers`` is not 0.
    """
    if n_layers and d_model % n_heads:
        raise ValueError(heads_fault(d_model, n_heads))
    ff_dim = max(64, d_model * ff_mult)
    return NativeEncoder(
        [EncoderLayer(d_model, n_heads, ff_dim, dropout=dropout) for _ in range(n_layers)]
    )


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
            near = nearest_divisor((in_dim,), d_model, multiple_of=n_heads)
            raise ValueError(
                f"d_model: found {d_model}, which does not divide the state width D = {in_dim}; "
                f"accepted: a divisor of D; set d_model to {near}"
            )
        self.d_model = d_model
        self.n_tokens = in_dim // d_model
        self.encoder = native_encoder(
            d_model, n_layers=n_layers, n_heads=n_heads, ff_mult=ff_mult, dropout=dropout
        )

    def forward(self, x: Tensor) -> Tensor:
        tokens: Tensor = self.encoder(x.reshape(x.shape[0], self.n_tokens, self.d_model))
        return tokens.mean(1)
