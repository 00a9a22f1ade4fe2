"""Fully connected hidden layer and its activation."""

from __future__ import annotations

from typing import Literal, get_args

import torch.nn.functional as F
from torch import Tensor, nn

from iqn_blocks.blocks.linear import Linear
from iqn_blocks.blocks.noisy import NoisyLinear

Activation = Literal["leaky_relu", "relu"]


def slope_below_zero(activation: Activation) -> float:
    """What a negative input is multiplied by: 0.01 for a leaky ReLU, 0 for a ReLU.

    Raises:
        ValueError: another name.
    """
    if activation not in get_args(Activation):
        accepted = ", ".join(map(repr, get_args(Activation)))
        raise ValueError(f"activation: got {activation!r}, accepted are {accepted}")
    return 0.01 if activation == "leaky_relu" else 0.0


def make_linear(in_dim: int, out_dim: int, *, noisy: bool, sigma0: float) -> nn.Module:
    """``nn.Linear``, or :class:`NoisyLinear` if ``noisy``."""
    return NoisyLinear(in_dim, out_dim, sigma0=sigma0) if noisy else Linear(in_dim, out_dim)


def weight_and_bias(linear: nn.Module) -> tuple[Tensor, Tensor]:
    """Weight ``(out, in)`` and bias of a Linear, or of a NoisyLinear under its present noise."""
    if isinstance(linear, NoisyLinear):
        return linear.effective_weight()
    assert isinstance(linear, nn.Linear)
    return linear.weight, linear.bias


def activate_(x: Tensor, negative_slope: float) -> Tensor:
    """The leaky ReLU of a fresh result, in place; a ReLU for slope 0.

    Backward then keeps one tensor of the pair instead of two.
    """
    return F.leaky_relu_(x, negative_slope) if negative_slope else F.relu_(x)


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
        return self.finish(self.linear(x))

    def finish(self, linear_out: Tensor) -> Tensor:
        """What follows the Linear: ``activation([LayerNorm](linear_out))``."""
        hidden = linear_out if self.norm is None else self.norm(linear_out)
        return activate_(hidden, self.negative_slope)

    def extra_repr(self) -> str:
        return f"negative_slope={self.negative_slope}"
