"""Both heads and the dueling as one part."""

from __future__ import annotations

from typing import Any, TypeGuard

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from iqn_blocks.blocks import Head, HiddenLayer
from iqn_blocks.blocks.activation import activate_
from iqn_blocks.fast.plain import is_linear, linear, plain_copy, weight_and_bias
from iqn_blocks.functional import mean_over_actions, mean_over_quantiles


def can_fold(head: object) -> TypeGuard[Head]:
    """Whether a head is exactly a Head with a known readout."""
    return type(head) is Head and is_linear(head.readout)


class FoldedHeads(nn.Module):
    """Both heads as one: ``Q = W [h_V, h_A] + b``, ``(R, D) -> (R, *out_shape)``.

    ``h_V``, ``h_A`` are the heads' hidden features, and ``V + Adv − mean_A Adv`` is linear in them.
    First layers that differ only in their weights become one layer. ``mean_over=K`` averages the
    features of ``K·B`` rows before the readout.
    """

    def __init__(self, value: Head, advantage: Head, exists: Tensor | None) -> None:
        super().__init__()
        self.out_shape = advantage.out_shape
        self.readout = linear(*_readout(value, advantage, exists))
        self.first = None
        if _first_layers_alike(value, advantage):
            self.first = PairOfLayers(value.hidden[0], advantage.hidden[0])
        self.value, self.advantage = (
            plain_copy(head.hidden[1:] if self.first is not None else _layers(head))
            for head in (value, advantage)
        )

    def forward(self, x: Tensor, mean_over: int | None = None) -> Tensor:
        features = self.features(x)
        if mean_over is not None:
            features = _mean(features, mean_over)
        q: Tensor = self.readout(features)
        return q.view(q.shape[0], *self.out_shape)

    def features(self, x: Tensor) -> Tensor:
        """Hidden features, the value head's first: ``(R, D) -> (R, H_V + H_A)``."""
        v = a = x
        if self.first is not None:
            both: Tensor = self.first(x)
            if not self.value and not self.advantage:
                return both
            v, a = torch.split(both, self.first.widths, dim=1)
        return torch.cat([self.value(v), self.advantage(a)], dim=1)


class PairOfLayers(nn.Module):
    """Two hidden layers that read one vector: ``(R, D) -> (R, H_1 + H_2)``."""

    norm_weight: Tensor
    norm_bias: Tensor

    def __init__(self, first: Any, second: Any) -> None:
        super().__init__()
        pairs = zip(weight_and_bias(first.linear), weight_and_bias(second.linear), strict=True)
        self.linear = linear(*(torch.cat(pair) for pair in pairs))
        self.widths = [first.linear.out_features, second.linear.out_features]
        self.norm_eps = None if first.norm is None else first.norm.eps
        self.negative_slope = first.negative_slope
        if first.norm is not None:
            for name in ("weight", "bias"):
                pair = [getattr(layer.norm, name) for layer in (first, second)]
                self.register_buffer(f"norm_{name}", torch.stack(pair))

    def forward(self, x: Tensor) -> Tensor:
        hidden: Tensor = self.linear(x)
        if self.norm_eps is not None:
            pair = hidden.view(-1, *self.norm_weight.shape)
            pair = F.layer_norm(pair, self.widths[1:], eps=self.norm_eps)
            hidden = torch.addcmul(self.norm_bias, pair, self.norm_weight).flatten(1)
        return activate_(hidden, self.negative_slope)


def _mean(features: Tensor, k: int) -> Tensor:
    """The mean over quantiles: ``(K·B, H) -> (B, H)``."""
    if not torch.compiler.is_exporting():
        return mean_over_quantiles(features, k)
    rows = features.view(k, -1)  # onnxruntime takes means faster as a product of matrices
    return (rows.new_full((1, k), 1 / k) @ rows).view(-1, features.shape[1])


def _readout(value: Head, advantage: Head, exists: Tensor | None) -> tuple[Tensor, Tensor]:
    """``W (N·A, H_V + H_A)`` and ``b``, centred over the actions of each offset."""
    (w_v, b_v), (w_a, b_a) = (weight_and_bias(head.readout) for head in (value, advantage))
    w_a = w_a.T.view(-1, *advantage.out_shape)
    w_a = (w_a - mean_over_actions(w_a, exists)).flatten(1).T
    b_a = b_a.view(advantage.out_shape)
    b_a = (b_a - mean_over_actions(b_a, exists)).flatten()
    return torch.cat([w_v.expand(len(w_a), -1), w_a], dim=1), b_v + b_a


def _layers(head: Head) -> nn.Sequential:
    """The layers before the readout."""
    return nn.Sequential(*(() if head.trunk is None else (head.trunk,)), *head.hidden)


def _first_layers_alike(value: Head, advantage: Head) -> bool:
    kinds = [_kind(next(iter(_layers(head)), None)) for head in (value, advantage)]
    return kinds[0] is not None and kinds[0] == kinds[1]


def _kind(layer: Any) -> object:
    """The properties that two hidden layers must share to become one; None for other layers."""
    if type(layer) is not HiddenLayer or not is_linear(layer.linear):
        return None
    if layer.norm is None:
        return (layer.negative_slope,)
    if type(layer.norm) is not nn.LayerNorm or layer.norm.bias is None:
        return None
    return layer.negative_slope, layer.norm.normalized_shape, layer.norm.eps
