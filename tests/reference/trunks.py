"""The fusion trunks, tokens (B, T, d) -> (B, d)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from .layers import encoder, linear, projection, relu
from .parameters import Parameters


def trunk_kind(config: Any) -> str:
    """`encoder.fusion_encoder`, or what stands for it when it is omitted."""
    block = config.nn.encoder
    if block.fusion_encoder is not None:
        return str(block.fusion_encoder)
    if block.transformer.use_hf_backbone:
        return "hf_embedding"
    return "linear" if config.nn.fusion_mode == "vision_transformer" else "native_transformer"


def mean_over_tokens(tokens: Tensor) -> Tensor:
    """(B, T, d) -> (B, d)."""
    return tokens.sum(dim=1) / tokens.shape[1]


def native_trunk(block: Any, params: Parameters, tokens: Tensor) -> Tensor:
    """Encoder, then mean over tokens."""
    own = params.under("encoder")
    return mean_over_tokens(encoder(own, tokens, block.n_layers, block.n_heads, block.ff_mult))


def mlp_trunk(block: Any, params: Parameters, tokens: Tensor) -> Tensor:
    """Flat T·d; n_layers − 1 times [Linear→hidden_dim, ReLU]; Linear→d."""
    x = tokens.reshape(tokens.shape[0], tokens.shape[1] * tokens.shape[2])
    for index in range(block.n_layers - 1):
        x = relu(linear(params.under(f"hidden.{index}"), x, block.hidden_dim))
    return linear(params.under("output"), x, tokens.shape[2])


def conv1d(params: Parameters, x: Tensor, out: int, kernel: int) -> Tensor:
    """y[t] = Σ_j W_j x[t + j − kernel // 2] + b, x being zero outside. -> (B, T', out)."""
    batch, length, width = x.shape
    pad = kernel // 2
    weight, bias = params.shaped("weight", out, width, kernel), params.shaped("bias", out)
    edge = torch.zeros(batch, pad, width, dtype=x.dtype)
    padded = torch.cat([edge, x, edge], dim=1)
    steps = []
    for t in range(length + 2 * pad - kernel + 1):
        taps = [padded[:, t + j] @ weight[:, :, j].transpose(0, 1) for j in range(kernel)]
        steps.append(torch.stack(taps).sum(dim=0) + bias)
    return torch.stack(steps, dim=1)


def cnn_trunk(block: Any, params: Parameters, tokens: Tensor) -> Tensor:
    """For each of hidden_channels [Conv1d, ReLU]; mean over positions; proj →d."""
    x = tokens
    for index, channels in enumerate(block.hidden_channels):
        x = relu(conv1d(params.under(f"convs.{index}"), x, channels, block.kernel_size))
    return projection(params.under("projection"), mean_over_tokens(x), tokens.shape[2])


def hf_trunk(params: Parameters, tokens: Tensor, model: nn.Module) -> Tensor:
    """Linear d→hidden, a HF encoder on `inputs_embeds`, mean over tokens, proj hidden→d."""
    config: Any = model.config
    embeds = linear(params.under("input_projection"), tokens, config.hidden_size)
    mask = torch.ones(tokens.shape[:2], dtype=torch.long)
    arguments = {"inputs_embeds": embeds, "attention_mask": mask}
    own = params.under("backbone").everything()
    output = torch.func.functional_call(model, own, (), arguments)
    x = mean_over_tokens(output.last_hidden_state)
    return projection(params.under("output_projection"), x, tokens.shape[2])


def trunk(config: Any, params: Parameters, tokens: Tensor, model: nn.Module | None) -> Tensor:
    """The trunk that the configuration chooses. tokens: (B, T, d) -> (B, d)."""
    kind, block = trunk_kind(config), config.nn.encoder
    if kind == "linear":
        return mean_over_tokens(tokens)
    if kind == "native_transformer":
        return native_trunk(block.transformer, params, tokens)
    if kind == "mlp":
        return mlp_trunk(block.fusion_mlp, params, tokens)
    if kind == "cnn":
        return cnn_trunk(block.fusion_cnn, params, tokens)
    assert kind == "hf_embedding" and model is not None, kind
    return hf_trunk(params, tokens, model)
