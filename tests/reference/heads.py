"""The advantage head and the value head."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from .layers import activation, encoder, layer_norm, linear, noisy_linear
from .parameters import Parameters


def head_linear(params: Parameters, x: Tensor, out: int, *, noisy: bool) -> Tensor:
    """Linear, or NoisyLinear where `noisy`."""
    return noisy_linear(params, x, out) if noisy else linear(params, x, out)


def transformer_trunk(slot: Any, params: Parameters, x: Tensor) -> Tensor:
    """IQNTransformerTrunk: D/d_model tokens, encoder, mean over tokens. (R, D) -> (R, d_model)."""
    rows, width = x.shape
    size = slot.d_model
    assert width % size == 0, (width, size)
    tokens = x.reshape(rows, width // size, size)
    tokens = encoder(params.under("encoder"), tokens, slot.n_layers, slot.n_heads, slot.ff_mult)
    return tokens.sum(dim=1) / tokens.shape[1]


def head(config: Any, params: Parameters, x: Tensor, slot: str) -> Tensor:
    """One head, `slot` being "advantage" or "value".

    x: (R, D) -> (R, 1) for the value; (R, A), or (R, N, A) with N > 1, for the advantage.
    """
    options = getattr(config.nn.decoder, slot)
    btr = config.btr
    half = max(1, config.nn.decoder.dense_hidden_dimension // 2)
    if options.transformer is not None:
        x = transformer_trunk(options.transformer, params.under("trunk"), x)
        widths = [half]
    else:
        widths = [options.mlp.hidden_dim or half] * options.mlp.n_hidden_layers
    for index, width in enumerate(widths):
        layer = params.under(f"hidden.{index}")
        x = head_linear(layer.under("linear"), x, width, noisy=btr.use_noisy_linear)
        if btr.use_layer_norm:
            x = layer_norm(layer.under("norm"), x)
        x = activation(config.nn.activation, x)
    readout = params.under("readout")
    if slot == "value":
        return head_linear(readout, x, 1, noisy=btr.noisy_value_readout)
    actions, offsets = config.n_actions, config.n_actions_per_block
    advantage = head_linear(readout, x, offsets * actions, noisy=btr.use_noisy_linear)
    return advantage if offsets == 1 else advantage.reshape(-1, offsets, actions)
