"""State width and parameter count of the built-in networks, by arithmetic alone.

What depends on a Hugging Face model (its weights, the projections from and to its hidden size, its
patch tokens) counts as nothing: the numbers are exact without such parts, a lower bound with them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from iqn_blocks.config.arithmetic import (
    conv_out,
    encoder_layers,
    float_mlp,
    linear,
    native,
    projection,
    stem,
    vision_width,
)
from iqn_blocks.config.routing import TOPOLOGIES, Parts, float_hidden_dim, parts

if TYPE_CHECKING:
    from iqn_blocks.config.heads import Slot
    from iqn_blocks.config.schema import Config

MAX_PARAMETERS = 2**31


def state_dim(config: Config) -> int:
    """State width D of the built-in network that the keys describe."""
    p = parts(config)
    if p.topology == "multimodal":
        return config.nn.decoder.dense_hidden_dimension
    if p.topology == "hf_vision":
        return 2 * vision_width(config)
    floats = float_hidden_dim(config) if p.float_mlp else 0
    return floats + (conv_out(config) if p.branch == "cnn" else 0)


def parameter_count(config: Config, topology: str) -> int:
    """Parameters of the network; of a user's own topology, those that do not depend on it."""
    if topology not in TOPOLOGIES:
        return quantile_path(config, 1)
    p = parts(config)
    encoders = {"classic": _classic, "hf_vision": _hf_vision, "multimodal": _multimodal}
    return encoders[p.topology](config, p) + quantile_path(config, state_dim(config))


def quantile_path(config: Config, width: int) -> int:
    """Parameters of τ projection and heads behind a state of that width."""
    outputs = config.n_actions_per_block * config.n_actions
    decoder, btr = config.nn.decoder, config.btr
    return (
        linear(config.nn.iqn.embedding_dimension, width)
        + _head(config, decoder.advantage, width, outputs, noisy_readout=btr.use_noisy_linear)
        + _head(config, decoder.value, width, 1, noisy_readout=btr.noisy_value_readout)
    )


def _head(config: Config, slot: Slot, width: int, outputs: int, *, noisy_readout: bool) -> int:
    half = max(1, config.nn.decoder.dense_hidden_dimension // 2)
    total, hidden, n_hidden = 0, half, 1
    if slot.transformer is not None:
        t = slot.transformer
        total, width = encoder_layers(t.d_model, t.n_layers, t.ff_mult), t.d_model
    elif slot.mlp is not None:
        hidden, n_hidden = slot.mlp.hidden_dim or half, slot.mlp.n_hidden_layers
    noisy = 2 if config.btr.use_noisy_linear else 1  # μ and σ
    norm = 2 * hidden if config.btr.use_layer_norm else 0
    total += noisy * linear(width, hidden) + norm
    total += (n_hidden - 1) * (noisy * linear(hidden, hidden) + norm)
    return total + (2 if noisy_readout else 1) * linear(hidden, outputs)


def _classic(config: Config, p: Parts) -> int:
    image = stem(config) if p.branch == "cnn" else 0
    floats = float_mlp(config, layer_norm=config.btr.use_layer_norm) if p.float_mlp else 0
    return image + floats


def _hf_vision(config: Config, p: Parts) -> int:
    vision = config.nn.vis.transformer
    assert vision is not None
    return float_mlp(config) + linear(float_hidden_dim(config), vision.d_model) + native(vision)


def _multimodal(config: Config, p: Parts) -> int:
    width = config.nn.encoder.transformer.d_model
    state = config.nn.decoder.dense_hidden_dimension
    total = _vision(config, p) + (float_mlp(config) if p.float_mlp else 0)
    if p.fusion == "direct":
        return total + linear(_fused_width(config, p), state)
    tokens = token_count(config)
    if p.fusion == "vector":
        total += linear(_fused_width(config, p), tokens * width)
    else:
        total += _float_tokens(config, p)
    position = tokens * width
    return total + position + _trunk(config, p, tokens) + linear(width, state)


def token_count(config: Config) -> int:
    """Tokens T that the trunk of a multimodal network sees, without those of a HF vision model."""
    p, encoder, vision = parts(config), config.nn.encoder, config.nn.vis.transformer
    if p.fusion == "direct":
        return 0
    if p.fusion == "vector":
        return encoder.transformer.post_concat_seq_len
    per_feature = p.fusion == "sequence" and encoder.float_token_layout == "per_feature"
    floats = config.float_input_dim if per_feature else encoder.transformer.unified_float_tokens
    summary = p.fusion == "sequence" and (vision is None or vision.fusion_tokens == "summary")
    if p.branch == "none":
        return floats
    if p.branch == "cnn" or summary:
        return floats + 1
    return floats + (patch_count(config) if p.branch == "native_transformer" else 0)


def patch_count(config: Config) -> int:
    """Patches of the native vision encoder."""
    vis = config.nn.vis
    assert vis.transformer is not None
    patch = vis.transformer.patch_size
    return (vis.image_size.height // patch) * (vis.image_size.width // patch)


def _fused_width(config: Config, p: Parts) -> int:
    """Width of [v, MLP(floats)]; in post_concat v is nothing or the flat stem output as it is."""
    vision = vision_width(config)
    if config.nn.fusion_mode == "post_concat" and p.branch in ("none", "cnn"):
        vision = conv_out(config) if p.branch == "cnn" else 0
    return vision + float_hidden_dim(config)


def _vision(config: Config, p: Parts) -> int:
    vis, width = config.nn.vis, config.nn.encoder.transformer.d_model
    total = 0
    if p.branch == "cnn":
        total = stem(config)
        if p.fusion in ("sequence", "unified"):
            return total + projection(conv_out(config), width)
        flat = config.nn.fusion_mode == "post_concat"
        return total + (0 if flat else projection(conv_out(config), vision_width(config)))
    if p.branch == "none" or vis.transformer is None:
        return 0
    own = vis.transformer.d_model
    if p.branch == "native_transformer":
        total += linear(vis.in_channels * vis.transformer.patch_size**2, own)
        total += patch_count(config) * own if p.fusion != "unified" else 0  # position
    total += native(vis.transformer) if p.vision_encoder else 0
    return total + (projection(own, width) if p.fusion == "sequence" else 0)


def _float_tokens(config: Config, p: Parts) -> int:
    encoder, floats = config.nn.encoder, config.float_input_dim
    width, tokens = encoder.transformer.d_model, encoder.transformer.unified_float_tokens
    if p.fusion == "sequence" and encoder.float_token_layout == "per_feature":
        return linear(1, width) + floats * width
    return linear(float_hidden_dim(config) if p.float_mlp else floats, tokens * width)


def _trunk(config: Config, p: Parts, tokens: int) -> int:
    encoder = config.nn.encoder
    width = encoder.transformer.d_model
    if p.trunk == "native_transformer":
        return native(encoder.transformer)
    if p.trunk == "mlp":
        mlp, before, total = encoder.fusion_mlp, tokens * width, 0
        for _ in range(mlp.n_layers - 1):
            total, before = total + linear(before, mlp.hidden_dim), mlp.hidden_dim
        return total + linear(before, width)
    if p.trunk == "cnn":
        before, total = width, 0
        for channels in encoder.fusion_cnn.hidden_channels:
            total += linear(before * encoder.fusion_cnn.kernel_size, channels)
            before = channels
        return total + projection(before, width)
    return 0
