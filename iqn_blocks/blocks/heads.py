"""Heads: from a mixed vector to values or advantages."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn

from iqn_blocks.blocks.activation import Activation
from iqn_blocks.blocks.chain import (
    Link,
    can_chain,
    chain,
    has_enough_products,
    is_untouched,
    nobody_watches,
)
from iqn_blocks.blocks.dense import HiddenLayer, make_linear, weight_and_bias
from iqn_blocks.blocks.noisy import NoisyLinear
from iqn_blocks.blocks.transformer import IQNTransformerTrunk


class Head(nn.Module):
    """``readout(hidden layers([trunk](x)))``: ``(R, D) -> (R, *out_shape)``.

    ``out_shape`` is ``(1,)`` for a state value, ``(A,)`` for advantages, ``(N, A)`` for advantages
    of ``N`` factorised action offsets. ``hidden_dims`` are the widths of the hidden layers, at
    least one. A trunk, such as :class:`IQNTransformerTrunk`, comes first
    and gives vectors of width ``trunk.d_model``.
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
        n_outputs = out_shape[0] if len(out_shape) == 1 else out_shape[0] * out_shape[1]
        self.readout = make_linear(widths[-1], n_outputs, noisy=noisy_readout, sigma0=sigma0)

    @property
    def first_hidden(self) -> HiddenLayer:
        """The hidden layer that the trunk, or the mixed vector, enters."""
        first = self.hidden[0]
        assert isinstance(first, HiddenLayer)
        return first

    def forward(self, x: Tensor) -> Tensor:
        if nobody_watches(x) and self._is_large(x):
            links = self.links()
            if links is not None and can_chain(x, links):
                return self.shaped(chain(x, links))
        return self.read_out(self.features(x))

    def features(self, x: Tensor) -> Tensor:
        """Hidden features before the readout: ``(R, D) -> (R, hidden_dims[-1])``."""
        features: Tensor = self.hidden(x if self.trunk is None else self.trunk(x))
        return features

    def finish(self, linear_out: Tensor) -> Tensor:
        """Hidden features ``(R, hidden_dims[-1])`` from what the first hidden Linear gave.

        For callers that compute that Linear themselves, of a head without a trunk.
        """
        features: Tensor = self.hidden[1:](self.first_hidden.finish(linear_out))
        return features

    def read_out(self, features: Tensor) -> Tensor:
        """The readout of hidden features, in ``out_shape``."""
        return self.shaped(self.readout(features))

    def shaped(self, out: Tensor) -> Tensor:
        """Rows of the readout, ``(R, N·A)``, in ``out_shape``."""
        return out if len(self.out_shape) == 1 else out.view(out.shape[0], *self.out_shape)

    def links(self) -> list[Link] | None:
        """The head as links of a chain, if it has linear layers and activations alone."""
        if type(self) is not Head or self.trunk is not None:
            return None
        if not is_untouched(self.hidden, nn.Sequential):
            return None
        links = []
        for layer in self.hidden:
            if not isinstance(layer, HiddenLayer) or not layer.is_only_linear():
                return None
            links.append(Link(*weight_and_bias(layer.linear), layer.negative_slope))
        if not is_untouched(self.readout, nn.Linear, NoisyLinear):
            return None
        return [*links, Link(*weight_and_bias(self.readout))]

    def _is_large(self, x: Tensor) -> bool:
        """Whether it may pay to look at the weights, which noise makes anew each time."""
        first = getattr(self.hidden[0], "linear", None)
        return has_enough_products(x, getattr(first, "out_features", 0))

    def extra_repr(self) -> str:
        return f"out_shape={self.out_shape}"
