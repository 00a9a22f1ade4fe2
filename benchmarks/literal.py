"""The equations of docs/architecture.md and docs/blocks done the plain way, as in the papers.

NCHW convolutions, the state repeated for every τ, two separate heads, activations out of place,
noise kept as an ``out × in`` matrix and applied at each forward, PyTorch's spectral norm. Covers
what the scenarios use. Parameters carry the names they have in the library.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from iqn_blocks import IQN, Config, route


class NoisyLinear(nn.Module):
    """``y = x (μ_w + σ_w ⊙ ε_w)ᵀ + μ_b + σ_b ⊙ ε_b``: ``(R, in) -> (R, out)``."""

    weight_epsilon: Tensor
    bias_epsilon: Tensor

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__()
        self.weight_mu = nn.Parameter(torch.zeros(out_features, in_features))
        self.weight_sigma = nn.Parameter(torch.zeros(out_features, in_features))
        self.bias_mu = nn.Parameter(torch.zeros(out_features))
        self.bias_sigma = nn.Parameter(torch.zeros(out_features))
        self.register_buffer("weight_epsilon", torch.zeros(out_features, in_features))
        self.register_buffer("bias_epsilon", torch.zeros(out_features))

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight_mu + self.weight_sigma * self.weight_epsilon
        bias = self.bias_mu + self.bias_sigma * self.bias_epsilon
        return F.linear(x, weight, bias)


class Hidden(nn.Module):
    """``LReLU([LayerNorm](Linear(x)))``."""

    def __init__(self, linear: nn.Module, width: int, layer_norm: bool) -> None:
        super().__init__()
        self.linear = linear
        self.norm = nn.LayerNorm(width) if layer_norm else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return F.leaky_relu(self.norm(self.linear(x)))


class Head(nn.Module):
    """One hidden layer and a readout: ``(R, D) -> (R, out)``."""

    def __init__(self, config: Config, in_dim: int, out_dim: int, *, noisy_readout: bool) -> None:
        super().__init__()
        half = max(1, config.nn.decoder.dense_hidden_dimension // 2)
        linear = NoisyLinear if config.btr.use_noisy_linear else nn.Linear
        hidden = Hidden(linear(in_dim, half), half, config.btr.use_layer_norm)
        self.hidden = nn.Sequential(hidden)
        self.readout = NoisyLinear(half, out_dim) if noisy_readout else nn.Linear(half, out_dim)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.readout(self.hidden(x))
        return out


class ConvStem(nn.Module):
    """Four convolutions, each with a LeakyReLU."""

    def __init__(self, in_channels: int) -> None:
        super().__init__()
        self.convs = nn.ModuleList(
            [
                nn.Conv2d(in_channels, 16, 4, 2),
                nn.Conv2d(16, 32, 4, 2),
                nn.Conv2d(32, 64, 3, 2),
                nn.Conv2d(64, 32, 3, 1),
            ]
        )

    def forward(self, img: Tensor) -> Tensor:
        for conv in self.convs:
            img = F.leaky_relu(conv(img))
        return img.flatten(1)


class Residual(nn.Module):
    """``x + Conv(ReLU(Conv(ReLU(x))))``."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = spectral_norm(nn.Conv2d(channels, channels, 3, padding=1))
        self.conv2 = spectral_norm(nn.Conv2d(channels, channels, 3, padding=1))

    def forward(self, x: Tensor) -> Tensor:
        residual: Tensor = self.conv2(F.relu(self.conv1(F.relu(x))))
        return x + residual


class Stage(nn.Module):
    """Convolution, max-pool, two residual blocks."""

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        self.conv = spectral_norm(nn.Conv2d(in_channels, channels, 3, padding=1))
        self.blocks = nn.Sequential(Residual(channels), Residual(channels))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.blocks(F.max_pool2d(self.conv(x), 3, 2, 1))
        return out


class ImpalaStem(nn.Module):
    """Three stages, ReLU, adaptive max-pool."""

    def __init__(self, in_channels: int, size: int, pool: int) -> None:
        super().__init__()
        self.pool_size = pool
        self.stages = nn.Sequential(
            Stage(in_channels, 16 * size), Stage(16 * size, 32 * size), Stage(32 * size, 32 * size)
        )

    def forward(self, img: Tensor) -> Tensor:
        return F.adaptive_max_pool2d(F.relu(self.stages(img)), self.pool_size).flatten(1)


class FloatNormalization(nn.Module):
    """``(x − mean) / std``."""

    mean: Tensor
    std: Tensor

    def __init__(self, n_floats: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(n_floats))
        self.register_buffer("std", torch.ones(n_floats))

    def forward(self, floats: Tensor) -> Tensor:
        return (floats - self.mean) / self.std


class FloatMLP(nn.Module):
    """Two hidden layers: ``(B, F) -> (B, h)``."""

    def __init__(self, n_floats: int, width: int, layer_norm: bool) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            Hidden(nn.Linear(n_floats, width), width, layer_norm),
            Hidden(nn.Linear(width, width), width, layer_norm),
        )

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.layers(x)
        return out


class ClassicEncoder(nn.Module):
    """``s = concat(stem(img), MLP(floats))``; the floats alone without a stem."""

    def __init__(self, config: Config, stem: nn.Module | None) -> None:
        super().__init__()
        n_floats, width = config.float_input_dim, config.nn.float.mlp.hidden_dim
        self.stem = stem
        self.float_normalization = FloatNormalization(n_floats)
        self.float_mlp = FloatMLP(n_floats, width, config.btr.use_layer_norm)

    def forward(self, img: Tensor | None, floats: Tensor) -> Tensor:
        f: Tensor = self.float_mlp(self.float_normalization(floats))
        return f if self.stem is None else torch.cat([self.stem(img), f], dim=1)


class ImageToken(nn.Module):
    """``Linear(stem(img))``: ``(B, C, H, W) -> (B, 1, d)``."""

    def __init__(self, stem: nn.Module, stem_dim: int, d_model: int) -> None:
        super().__init__()
        self.stem = stem
        self.projection = nn.Linear(stem_dim, d_model)

    def forward(self, img: Tensor | None) -> Tensor:
        vector: Tensor = self.projection(self.stem(img))
        return vector.unsqueeze(1)


class FloatTokens(nn.Module):
    """``w·x[i] + b + slot[i]``: ``(B, F) -> (B, F, d)``."""

    def __init__(self, n_floats: int, d_model: int) -> None:
        super().__init__()
        self.projection = nn.Linear(1, d_model)
        self.slot_embedding = nn.Parameter(torch.zeros(n_floats, d_model))

    def forward(self, x: Tensor) -> Tensor:
        tokens: Tensor = self.projection(x.unsqueeze(-1))
        return tokens + self.slot_embedding


class Trunk(nn.Module):
    """The mean of encoded tokens: ``(B, T, d) -> (B, d)``."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        block = config.nn.encoder.transformer
        layer = nn.TransformerEncoderLayer(
            block.d_model,
            block.n_heads,
            max(64, block.ff_mult * block.d_model),
            block.dropout,
            activation="gelu",
            batch_first=True,
        )
        self.encoder = nn.TransformerEncoder(layer, block.n_layers, enable_nested_tensor=False)

    def forward(self, tokens: Tensor) -> Tensor:
        encoded: Tensor = self.encoder(tokens)
        return encoded.mean(1)


class TokenEncoder(nn.Module):
    """``s = Linear(trunk([image, float 1, …, float F] + position))``."""

    def __init__(self, config: Config, stem: nn.Module, stem_dim: int) -> None:
        super().__init__()
        n_floats, d_model = config.float_input_dim, config.nn.encoder.transformer.d_model
        self.vision = ImageToken(stem, stem_dim, d_model)
        self.float_normalization = FloatNormalization(n_floats)
        self.float_tokens = FloatTokens(n_floats, d_model)
        self.position = nn.Parameter(torch.zeros(1, 1 + n_floats, d_model))
        self.trunk = Trunk(config)
        self.output = nn.Linear(d_model, config.nn.decoder.dense_hidden_dimension)

    def forward(self, img: Tensor | None, floats: Tensor) -> Tensor:
        float_tokens = self.float_tokens(self.float_normalization(floats))
        tokens = torch.cat([self.vision(img), float_tokens], dim=1)
        state: Tensor = self.output(self.trunk(tokens + self.position))
        return state


class TauEmbedding(nn.Module):
    """``φ = LReLU(Linear(cos(π·i·τ)))``, ``i = 1 … E``: ``(R, 1) -> (R, D)``."""

    def __init__(self, cosines: int, state_dim: int) -> None:
        super().__init__()
        self.projection = nn.Linear(cosines, state_dim)

    def forward(self, tau: Tensor) -> Tensor:
        cosines = self.projection.in_features
        i = torch.arange(1, cosines + 1, device=tau.device, dtype=tau.dtype)
        return F.leaky_relu(self.projection(torch.cos(math.pi * i * tau)))


class LiteralIQN(nn.Module):
    """The network of a scenario, with the weights and the noise that ``net`` has now."""

    def __init__(self, net: IQN) -> None:
        super().__init__()
        config = net.config
        state_dim = net.state_dim
        self.acting_quantiles = config.nn.iqn.k
        self.encoder = _encoder(net)
        self.tau_embedding = TauEmbedding(config.nn.iqn.embedding_dimension, state_dim)
        self.advantage_head = Head(
            config, state_dim, config.n_actions, noisy_readout=config.btr.use_noisy_linear
        )
        self.value_head = Head(config, state_dim, 1, noisy_readout=config.btr.noisy_value_readout)
        self.load(net)

    def forward(self, img: Tensor | None, floats: Tensor, tau: Tensor) -> Tensor:
        """``(B, C, H, W), (B, F), (K·B, 1) -> (K·B, A)``."""
        state = self.encoder(img, floats)
        x = state.repeat(len(tau) // len(state), 1) * self.tau_embedding(tau)
        value, advantage = self.value_head(x), self.advantage_head(x)
        q: Tensor = value + advantage - advantage.mean(-1, keepdim=True)
        return q

    def q_values(self, img: Tensor | None, floats: Tensor) -> Tensor:
        """Mean over ``K`` midpoints: ``(B, C, H, W), (B, F) -> (B, A)``."""
        batch, k = len(floats), self.acting_quantiles
        tau = (torch.arange(k, device=floats.device, dtype=floats.dtype) + 0.5) / k
        q = self(img, floats, tau.repeat_interleave(batch).unsqueeze(1))
        mean: Tensor = q.view(k, batch, -1).mean(0)
        return mean

    @torch.no_grad()
    def load(self, net: IQN) -> None:
        """Take over weights, statistics, spectral vectors and noise of the library's network."""
        source = net.state_dict()
        state = {}
        for name in self.state_dict():
            path, _, last = name.rpartition(".")
            conv = path.removesuffix(".parametrizations.weight.0")
            if last in ("_u", "_v"):
                state[name] = source[f"{conv}.{last[1]}"]
            elif last == "original":
                state[name] = source[f"{path.removesuffix('.parametrizations.weight')}.weight"]
            elif last == "weight_epsilon":
                noise_in, noise_out = source[f"{path}.epsilon_in"], source[f"{path}.epsilon_out"]
                state[name] = torch.outer(noise_out, noise_in)
            elif last == "bias_epsilon":
                state[name] = source[f"{path}.epsilon_out"]
            else:
                state[name] = source[name]
        self.load_state_dict(state)


def _encoder(net: IQN) -> nn.Module:
    config = net.config
    if config.nn.vis.no_image:
        return ClassicEncoder(config, None)
    cnn, in_channels = config.nn.vis.cnn, config.nn.vis.in_channels
    assert cnn is not None
    stem: nn.Module = ConvStem(in_channels)
    if cnn.use_impala_cnn:
        stem = ImpalaStem(in_channels, cnn.impala_model_size, cnn.adaptive_maxpool_size)
    if route(config) == "classic":
        return ClassicEncoder(config, stem)
    stem_dim = 32 * cnn.impala_model_size * cnn.adaptive_maxpool_size**2
    return TokenEncoder(config, stem, stem_dim)
