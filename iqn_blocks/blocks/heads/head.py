"""Hidden layers and a readout: the usual head."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn

from iqn_blocks.blocks.activation import Activation
from iqn_blocks.blocks.dense import HiddenLayer, make_linear
from iqn_blocks.blocks.transformer import IQNTransformerTrunk


class Head(nn.Module):
    """``readout(hidden layers([trunk](x)))``: ``(R, D) -> (R, *out_shape)``.

    ``out_shape`` is ``(1,)`` for a state value, ``(A,)`` for advantages, ``(N, A)`` for advantages
    of ``N`` factorised action offsets. ``hidden_dims`` are the widths of the hidden layers. A
    trunk, such as :class:`IQNTransformerTrunk`, comes first and gives vectors of width
    ``trunk.d_model``.
    """

    def __init__(
        self,
        in_dim: int,
        hidden_dims: Sequence[int],
        out_shape: tuple[int, ...],
        *,
        trunk: IQNTransformerTrunk | None = None,
        layer_norm: bool = False,
        noisy: bool = False,
        noisy_readout: bool = False,
        sigma0: float = 0.5,
        activation: Activation = "leaky_relu",
    ) -> None:
        super().__init__()
        self.out_shape = out_shape
        self.trunk = trunk
        widths = [in_dim if trunk is None else trunk.d_model, *hidden_dims]
        self.hidden = nn.Sequential(
            *(
                HiddenLayer(
                    before,
                    after,
                    layer_norm=layer_norm,
                    noisy=noisy,
                    sigma0=sigma0,
                    activation=activation,
                )
                for before, after in pairwise(widths)
            )
        )
        n_outputs = math.prod(out_shape)
        self.readout = make_linear(widths[-1], n_outputs, noisy=noisy_readout, sigma0=sigma0)

    def forward(self, x: Tensor) -> Tensor:
        features = self.hidden(x if self.trunk is None else self.trunk(x))
        out: Tensor = self.readout(features)
        return out if len(self.out_shape) == 1 else out.view(out.shape[0], *self.out_shape)

    def extra_repr(self) -> str:
        return f"out_shape={self.out_shape}"
