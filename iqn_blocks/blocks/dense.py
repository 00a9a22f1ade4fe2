"""Fully connected hidden layer and its activation."""

from __future__ import annotations

from torch import Tensor, nn

from iqn_blocks.blocks.activation import Activation, activate_, slope_below_zero
from iqn_blocks.blocks.noisy import NoisyLinear


def make_linear(in_dim: int, out_dim: int, *, noisy: bool, sigma0: float) -> nn.Module:
    """``nn.Linear``, or :class:`NoisyLinear` if ``noisy``."""
    return NoisyLinear(in_dim, out_dim, sigma0=sigma0) if noisy else nn.Linear(in_dim, out_dim)


class HiddenLayer(nn.Module):
    """``activation([LayerNorm](Linear(x)))``: ``(…, in_dim) -> (…, out_dim)``.

    ``noisy`` makes the Linear a :class:`NoisyLinear` with ``sigma0``.

    Raises:
        ValueError: an unknown activation.
    """

    def __init__(
        self,
        in_dim: int,
        out_dim: int,
        *,
        layer_norm: bool = False,
        noisy: bool = False,
        sigma0: float = 0.5,
        activation: Activation = "leaky_relu",
    ) -> None:
        super().__init__()
        self.linear = make_linear(in_dim, out_dim, noisy=noisy, sigma0=sigma0)
        self.norm = nn.LayerNorm(out_dim) if layer_norm else None
        self.negative_slope = slope_below_zero(activation)

    def forward(self, x: Tensor) -> Tensor:
        hidden: Tensor = self.linear(x)
        if self.norm is not None:
            hidden = self.norm(hidden)
        return activate_(hidden, self.negative_slope)

    def extra_repr(self) -> str:
        return f"negative_slope={self.negative_slope}"
