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


def weight_and_bias(linear: nn.Module) -> tuple[Tensor, Tensor]:
    """Weight ``(out, in)`` and bias of a Linear, or of a NoisyLinear under its present noise."""
    if isinstance(linear, NoisyLinear):
        return linear.effective_weight()
    assert isinstance(linear, nn.Linear)
    return linear.weight, linear.bias


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
        return self.finish(self.linear(x))

    def finish(self, linear_out: Tensor) -> Tensor:
        """What follows the Linear: ``activation([LayerNorm](linear_out))``."""
        hidden: Tensor = self.activation(self.norm(linear_out))
        return hidden
