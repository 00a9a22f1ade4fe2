"""Fully connected hidden layer and its activation."""

from __future__ import annotations

from typing import Literal, get_args

from torch import Tensor, nn

from iqn_blocks.blocks.noisy import NoisyLinear

Activation = Literal["leaky_relu", "relu"]


def make_activation(name: Activation) -> nn.Module:
    """``LeakyReLU`` with slope 0.01, or ``ReLU``, in place: its input must be a fresh result.

    Working in place, the backward keeps one tensor of the pair instead of two.

    Raises:
        ValueError: another name.
    """
    if name == "leaky_relu":
        return nn.LeakyReLU(0.01, inplace=True)
    if name == "relu":
        return nn.ReLU(inplace=True)
    accepted = ", ".join(map(repr, get_args(Activation)))
    raise ValueError(f"activation: got {name!r}, accepted are {accepted}")


def make_linear(in_dim: int, out_dim: int, *, noisy: bool, sigma0: float) -> nn.Module:
    """``nn.Linear``, or :class:`NoisyLinear` if ``noisy``."""
    return NoisyLinear(in_dim, out_dim, sigma0=sigma0) if noisy else nn.Linear(in_dim, out_dim)


class HiddenLayer(nn.Module):
    """``activation([LayerNorm](Linear(x)))``: ``(…, in_dim) -> (…, out_dim)``.

    ``noisy`` makes the Linear a :class:`NoisyLinear` with ``sigma0``.
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
        self.norm = nn.LayerNorm(out_dim) if layer_norm else nn.Identity()
        self.activation = make_activation(activation)

    def forward(self, x: Tensor) -> Tensor:
        hidden: Tensor = self.activation(self.norm(self.linear(x)))
        return hidden
