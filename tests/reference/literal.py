"""trackmania_rl's classic network and the code of BTR, as plain modules under their own names.

Written from the equations: what counts is that the state dicts have the names and shapes which
those systems save, and that the networks compute from them what the equations say. They are also
what the benchmarks compare with, so they are written as well as plain PyTorch allows: activations
in place, and everything fit for channels-last convolutions.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations, spectral_norm

Wrap = Callable[[nn.Module], nn.Module]


def activation(config: Any) -> nn.Module:
    relu = config.nn.activation == "relu"
    return nn.ReLU(inplace=True) if relu else nn.LeakyReLU(0.01, inplace=True)


class NoisyByMatrix(nn.Module):
    """A noisy layer that keeps its noise as a matrix of the weight's shape."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        for kind in ("mu", "sigma"):
            self.register_parameter(f"weight_{kind}", nn.Parameter(torch.randn(after, before)))
            self.register_parameter(f"bias_{kind}", nn.Parameter(torch.randn(after)))
        noise_in, noise_out = (self.draw(size) for size in (before, after))
        self.register_buffer("weight_epsilon", torch.outer(noise_out, noise_in))
        self.register_buffer("bias_epsilon", noise_out)

    @staticmethod
    def draw(size: int) -> Tensor:
        z = torch.randn(size)
        return z.sign() * z.abs().sqrt()

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight_mu + self.weight_sigma * self.weight_epsilon
        return F.linear(x, weight, self.bias_mu + self.bias_sigma * self.bias_epsilon)


class Residual(nn.Module):
    def __init__(self, width: int, wrap: Wrap) -> None:
        super().__init__()
        self.conv_0 = wrap(nn.Conv2d(width, width, 3, padding=1))
        self.conv_1 = wrap(nn.Conv2d(width, width, 3, padding=1))

    def forward(self, x: Tensor) -> Tensor:
        residual: Tensor = self.conv_1(self.conv_0(x.relu()).relu_())
        return residual.add_(x)


class Stage(nn.Module):
    def __init__(self, before: int, after: int, wrap: Wrap, wrap_first: Wrap) -> None:
        super().__init__()
        self.conv = wrap_first(nn.Conv2d(before, after, 3, padding=1))
        self.pool = nn.MaxPool2d(3, stride=2, padding=1)
        self.residual_0, self.residual_1 = Residual(after, wrap), Residual(after, wrap)

    def forward(self, x: Tensor) -> Tensor:
        return self.residual_1(self.residual_0(self.pool(self.conv(x))))


def image_head(config: Any, norm: Wrap = spectral_norm) -> nn.Sequential:
    vis, cnn = config.nn.vis, config.nn.vis.cnn
    plain: Wrap = lambda layer: layer  # noqa: E731
    inner = norm if cnn.use_spectral_norm else plain
    outer = inner if cnn.spectral_norm_scope == "all" else plain
    layers: list[nn.Module] = []
    if cnn.use_impala_cnn:
        widths = [vis.in_channels, *(16 * cnn.impala_model_size * n for n in (1, 2, 2))]
        layers = [Stage(a, b, inner, outer) for a, b in pairwise(widths)]
        layers.append(nn.ReLU(inplace=True))
    else:
        before = vis.in_channels
        for after, kernel, stride in ((16, 4, 2), (32, 4, 2), (64, 3, 2), (32, 3, 1)):
            layers += [outer(nn.Conv2d(before, after, kernel, stride)), activation(config)]
            before = after
    if cnn.use_adaptive_maxpool:
        layers.append(nn.AdaptiveMaxPool2d(cnn.adaptive_maxpool_size))
    return nn.Sequential(*layers, nn.Flatten())


def image_width(image_head: nn.Module, config: Any) -> int:
    size = config.nn.vis.image_size
    frame = torch.zeros(1, config.nn.vis.in_channels, size.height, size.width)
    with torch.no_grad():  # the old spectral norm keeps its result, which must allow a deepcopy
        return int(image_head(frame).shape[1])


def native(block: Any, width: int) -> nn.TransformerEncoder:
    layer = nn.TransformerEncoderLayer(
        width,
        block.n_heads,
        max(64, width * block.ff_mult),
        block.dropout,
        activation="gelu",
        batch_first=True,
    )
    return nn.TransformerEncoder(layer, block.n_layers, enable_nested_tensor=False)


class Trunk(nn.Module):
    def __init__(self, slot: Any) -> None:
        super().__init__()
        self.width = slot.d_model
        self.enc = native(slot, self.width)

    def forward(self, x: Tensor) -> Tensor:
        return self.enc(x.reshape(len(x), -1, self.width)).mean(1)


def head(config: Any, slot: Any, state: int, outputs: int | None, *, noisy_last: bool) -> nn.Module:
    """One sequence; without ``outputs`` it ends before the readout."""
    btr = config.btr
    linear = NoisyByMatrix if btr.use_noisy_linear else nn.Linear
    half = max(1, config.nn.decoder.dense_hidden_dimension // 2)
    layers: list[nn.Module] = []
    width, hidden = state, [half]
    if slot.transformer is not None:
        layers, width = [Trunk(slot.transformer)], slot.transformer.d_model
    else:
        hidden = [slot.mlp.hidden_dim or half] * slot.mlp.n_hidden_layers
    for size in hidden:
        layers.append(linear(width, size))
        if btr.use_layer_norm:
            layers.append(nn.LayerNorm(size))
        layers.append(activation(config))
        width = size
    if outputs is not None:
        layers.append((NoisyByMatrix if noisy_last else nn.Linear)(width, outputs))
    return nn.Sequential(*layers)


def dueling(value: Tensor, advantage: Tensor) -> Tensor:
    if advantage.ndim == 3:
        value = value[:, None]
    return value + advantage - advantage.mean(-1, keepdim=True)


class QuantilePath(nn.Module):
    """Everything behind the state; τ is ``(K·B, 1)``."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.config = config

    def add_path(self, state: int) -> None:
        config = self.config
        self.iqn_fc = nn.Sequential(
            nn.Linear(config.nn.iqn.embedding_dimension, state), activation(config)
        )
        slots, noisy = config.nn.decoder, config.btr.use_noisy_linear
        count, offsets = config.n_actions, config.n_actions_per_block
        outputs = None if offsets > 1 else count
        self.A_head = head(config, slots.advantage, state, outputs, noisy_last=noisy)
        self.A_head_multi = None
        if offsets > 1:
            width = self.A_head(torch.zeros(1, state)).shape[1]
            linear = NoisyByMatrix if noisy else nn.Linear
            self.A_head_multi = linear(width, offsets * count)
        self.V_head = head(config, slots.value, state, 1, noisy_last=config.btr.noisy_value_readout)

    def quantiles(self, state: Tensor, tau: Tensor) -> Tensor:
        iqn = self.config.nn.iqn
        i = torch.arange(iqn.embedding_dimension).to(tau) + iqn.cosine_start
        x = state.repeat(len(tau) // len(state), 1) * self.iqn_fc(torch.cos(math.pi * i * tau))
        advantage = self.A_head(x)
        if self.A_head_multi is not None:
            shape = (-1, self.config.n_actions_per_block, self.config.n_actions)
            advantage = self.A_head_multi(advantage).view(shape)
        return dueling(self.V_head(x), advantage)


class Classic(QuantilePath):
    """The classic network."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        state = 0
        self.img_head = self.float_feature_extractor = None
        if not config.nn.vis.no_image:
            self.img_head = image_head(config)
            state += image_width(self.img_head, config)
        if config.float_input_dim:
            state += self.add_floats(config.float_input_dim, config.nn.float.mlp.hidden_dim)
        self.add_path(state)

    def add_floats(self, count: int, width: int) -> int:
        self.register_buffer("float_inputs_mean", torch.randn(count))
        self.register_buffer("float_inputs_std", torch.rand(count) + 0.5)
        layers: list[nn.Module] = []
        for before in (count, width):
            layers.append(nn.Linear(before, width))
            if self.config.btr.use_layer_norm:
                layers.append(nn.LayerNorm(width))
            layers.append(activation(self.config))
        self.float_feature_extractor = nn.Sequential(*layers)
        return width

    def forward(self, img: Tensor | None, floats: Tensor | None, tau: Tensor) -> Tensor:
        parts = []
        if self.img_head is not None:
            parts.append(self.img_head(img))
        if self.float_feature_extractor is not None:
            normal = (floats - self.float_inputs_mean) / self.float_inputs_std
            parts.append(self.float_feature_extractor(normal))
        return self.quantiles(torch.cat(parts, 1), tau)


class Btr(nn.Module):
    """The network of BTR's code; ``forward`` takes uint8 frames and τ as ``(B, K)``."""

    def __init__(
        self,
        actions: int,
        channels: int,
        model_size: int,
        width: int,
        pool: int,
        *,
        layer_norm: bool = False,
    ) -> None:
        super().__init__()
        norm: Wrap = parametrizations.spectral_norm
        widths = [channels, *(16 * model_size * n for n in (1, 2, 2))]
        stages = [
            Stage(before, after, norm, lambda layer: layer) for before, after in pairwise(widths)
        ]
        self.conv = nn.Sequential(*stages, nn.ReLU(inplace=True))
        self.pool = nn.AdaptiveMaxPool2d(pool)
        state = widths[-1] * pool * pool
        self.cos_embedding = nn.Linear(64, state)
        self.add_heads(state, width, actions, layer_norm=layer_norm)

    def add_heads(self, state: int, width: int, actions: int, *, layer_norm: bool) -> None:
        self.dueling = nn.Module()
        for name, outputs in (("value", 1), ("advantage", actions)):
            norm = [nn.LayerNorm(width)] if layer_norm else []
            branch = nn.Sequential(
                NoisyByMatrix(state, width),
                *norm,
                nn.ReLU(inplace=True),
                NoisyByMatrix(width, outputs),
            )
            self.dueling.add_module(f"{name}_branch", branch)

    def forward(self, frames: Tensor, tau: Tensor) -> Tensor:
        """``(B, K, A)``."""
        state = self.pool(self.conv(frames.to(tau.dtype) / 255)).flatten(1)
        cosines = torch.cos(math.pi * torch.arange(64).to(tau) * tau[:, :, None])
        return self.values(state[:, None] * self.cos_embedding(cosines).relu_())

    def values(self, x: Tensor) -> Tensor:
        advantage = self.dueling.advantage_branch(x)
        return self.dueling.value_branch(x) + advantage - advantage.mean(-1, keepdim=True)


class OneHeadBtr(Btr):
    """With ``dueling: 0``: one head, which never has a LayerNorm."""

    def add_heads(self, state: int, width: int, actions: int, *, layer_norm: bool) -> None:
        self.linear_layers = nn.Sequential(
            NoisyByMatrix(state, width), nn.ReLU(inplace=True), NoisyByMatrix(width, actions)
        )

    def values(self, x: Tensor) -> Tensor:
        return self.linear_layers(x)


class WiiBtr(Btr):
    """The variant for the Wii: other names, both branches registered twice, ``π·i`` as a buffer."""

    def add_heads(self, state: int, width: int, actions: int, *, layer_norm: bool) -> None:
        self.register_buffer("pis", torch.tensor([math.pi * i for i in range(64)]).view(1, 1, 64))
        for letter, outputs in (("V", 1), ("A", actions)):
            branch = nn.Sequential()
            branch.add_module(f"fc1{letter}", NoisyByMatrix(state, width))
            if layer_norm:
                branch.add_module(f"LN_{letter}", nn.LayerNorm(width))
            branch.add_module(f"act{letter}", nn.ReLU(inplace=True))
            branch.add_module(f"fc2{letter}", NoisyByMatrix(width, outputs))
            self.add_module(f"linear_layers{letter}", branch)
        self.linear_layers = nn.Module()
        self.linear_layers.value_branch = self.linear_layersV
        self.linear_layers.advantage_branch = self.linear_layersA

    @property
    def dueling(self) -> nn.Module:
        return self.linear_layers
