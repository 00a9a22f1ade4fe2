"""The head whose values never fall as τ rises."""

from __future__ import annotations

from itertools import accumulate

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from iqn_blocks.blocks.activation import Activation
from iqn_blocks.blocks.heads.mlp import mlp_head
from iqn_blocks.functional import by_level, wide_dtype
from iqn_blocks.kinds import Layers, NotNegative, Size, SizeOrNull
from iqn_blocks.registry import register


@register("monotone", slot="head")
class MonotoneHead(nn.Module):
    """``q(τ) = m + I(τ) − mean I``, ``I(τ) = ∫₀^τ softplus(z)``, which no two levels cross.

    ``x`` is mixed at the ``M = n_levels`` midpoints ``(i + ½)/M``, whatever τ is asked for:
    ``(M·B, in_dim), tau (K·B, 1) or (K, 1), K -> (K·B, *out_shape)``. Hidden layers and a readout
    make two numbers of each row, ``y[i]`` and ``z[i]``. ``m = mean_i y[i]`` is the mean of ``q``
    over all levels, and ``softplus(z[i])`` is its slope from ``i/M`` to ``(i+1)/M``.

    A value, and increments that are not negative between fixed levels with lines in between, are
    those of NDQFN (arXiv:2105.06696, section 4); that the value is the mean is taken from NQ
    networks (arXiv:2504.08215). Sums run level by level in float32 or wider, where rounding keeps
    the order too.

    Args:
        in_dim: width of the mixed vector.
        out_shape: ``(1,)``, ``(A,)`` or ``(N, A)``.
        n_levels: levels M at which the mixed vector is read, and pieces of the quantile function.
        hidden_dim: width; null takes half of nn.decoder.dense_hidden_dimension (512 by hand).
        n_hidden_layers: hidden layers before the readout.
        layer_norm: LayerNorm before each activation.
        noisy: NoisyLinear (arXiv:1706.10295) in the hidden layers.
        noisy_readout: NoisyLinear as readout.
        sigma0: initial noise, ``σ = sigma0 / √in``.
        activation: after each hidden layer.
    """

    def __init__(
        self,
        in_dim: int,
        out_shape: tuple[int, ...],
        *,
        n_levels: Size = 32,
        hidden_dim: SizeOrNull = None,
        n_hidden_layers: Layers = 1,
        layer_norm: bool = False,
        noisy: bool = False,
        noisy_readout: bool = False,
        sigma0: NotNegative = 0.5,
        activation: Activation = "leaky_relu",
    ) -> None:
        super().__init__()
        self.out_shape, self.n_levels = out_shape, n_levels
        layers = mlp_head(
            in_dim,
            (2, *out_shape),
            hidden_dim=hidden_dim,
            n_hidden_layers=n_hidden_layers,
            layer_norm=layer_norm,
            noisy=noisy,
            noisy_readout=noisy_readout,
            sigma0=sigma0,
            activation=activation,
        )
        self.hidden, self.readout = layers.hidden, layers.readout

    def forward(self, x: Tensor, tau: Tensor, num_quantiles: int) -> Tensor:
        out: Tensor = self.readout(self.hidden(x))
        rows = out.view(self.n_levels, -1, 2, *self.out_shape).to(wide_dtype(out.dtype))
        y, z = rows.unbind(2)  # (M, B, *out_shape)
        step = F.softplus(z) / self.n_levels
        # Not cumsum, which a GPU may sum in another order for each level.
        below = torch.stack([*accumulate(step[:-1], initial=torch.zeros_like(step[0]))])
        mean = (below + step / 2).mean(0)  # of I over τ, without rounding

        position = by_level(tau, y[0], num_quantiles, "tau").to(step.dtype) * self.n_levels
        position = position.view(*position.shape[:2], *[1] * len(self.out_shape))
        piece = position.long().clamp(0, self.n_levels - 1)
        index = piece.expand(num_quantiles, *step.shape[1:])
        rise = below.gather(0, index) + (position - piece) * step.gather(0, index)
        base = (y.mean(0) - mean).repeat(num_quantiles, *[1] * len(self.out_shape))
        return (rise.flatten(0, 1) + base).to(out.dtype)

    def extra_repr(self) -> str:
        return f"out_shape={self.out_shape}, n_levels={self.n_levels}"
