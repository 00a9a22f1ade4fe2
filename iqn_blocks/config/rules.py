"""Rules between keys: each gives a line that names the keys, what was found, and the way out.

A rule applies only where the network that the keys describe has the parts it is about.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from iqn_blocks._arguments import nearest_divisor
from iqn_blocks.config.routing import TOPOLOGIES, Parts, parts
from iqn_blocks.errors import UnsupportedTopologyError

if TYPE_CHECKING:
    from iqn_blocks.config.heads import HeadSlot
    from iqn_blocks.config.schema import Config


def cross_faults(config: Config) -> list[str]:
    """All faults between keys of a configuration whose single keys are valid."""
    faults = [*_one_of_two(config), *_float_stats(config)]
    topology = config.nn.topology
    if topology is not None and topology not in TOPOLOGIES:
        return faults
    if len(_stems(config)) > 1:
        return faults  # no telling which network is meant
    try:
        p = parts(config)
    except UnsupportedTopologyError as error:
        # Without a name this is for `route` to say: the keys are valid, only nothing builds them.
        if topology is not None:
            faults.append(f"nn.topology: found {topology!r}; {error}")
        return faults
    if topology is not None and topology != p.topology:
        faults.append(
            f"nn.topology: found {topology!r}, but the other keys describe {p.topology}; accepted: "
            f"{p.topology} or null; set it so, or change nn.fusion_mode and nn.vis"
        )
    faults += [*_inputs(config, p), *_vision(config, p)]
    if p.fusion is not None:
        faults += [*_tokens(config, p), *_trunk(config, p)]
    return faults


def _one_of_two(config: Config) -> Iterator[str]:
    floats = [part.name for part in config.nn.float.parts]
    chosen = {"nn.vis": _stems(config), "nn.float": floats}
    chosen |= {f"nn.decoder.{n}": [part.name for part in s.parts] for n, s in _slots(config)}
    for path, names in chosen.items():
        if len(names) > 1:
            ways_out = " or ".join(f"{path}.{name}" for name in names)
            yield (
                f"{path}: found both {' and '.join(names)}; accepted: one of them; remove "
                f"{ways_out}"
            )


def _stems(config: Config) -> list[str]:
    vis = config.nn.vis
    blocks = [name for name in ("cnn", "transformer") if getattr(vis, name) is not None]
    return blocks + [part.name for part in vis.parts]


def _slots(config: Config) -> tuple[tuple[str, HeadSlot], ...]:
    return ("advantage", config.nn.decoder.advantage), ("value", config.nn.decoder.value)


def _float_stats(config: Config) -> Iterator[str]:
    for key in ("float_inputs_mean", "float_inputs_std"):
        numbers = getattr(config, key)
        if numbers is not None and len(numbers) != config.float_input_dim:
            yield (
                f"{key}: found {len(numbers)} numbers; accepted: float_input_dim = "
                f"{config.float_input_dim} numbers; change {key} or float_input_dim"
            )


def _inputs(config: Config, p: Parts) -> Iterator[str]:
    if config.float_input_dim == 0 and (p.topology != "classic" or p.branch == "none"):
        why = (
            "in a classic network with no_image" if p.topology == "classic" else f"in {p.topology}"
        )
        yield (
            f"float_input_dim: found 0 {why}; accepted: at least 1 there; give float inputs, or "
            "build a classic network with an image (nn.fusion_mode: none, nn.vis.no_image: false, "
            "nn.vis.cnn)"
        )


def _vision(config: Config, p: Parts) -> Iterator[str]:
    vis, t = config.nn.vis, config.nn.vis.transformer
    if t is None:
        return
    if p.vision_encoder:
        yield from _heads_divide("nn.vis.transformer", t.d_model, t.n_heads)
    if p.branch == "hf_transformer":
        if not t.model_name_or_path:
            yield (
                "nn.vis.transformer.model_name_or_path: found '' with use_hf_backbone true; "
                "accepted: a hub id or folder; set it, or set use_hf_backbone to false"
            )
        if vis.in_channels not in (1, 3):
            yield (
                f"nn.vis.in_channels: found {vis.in_channels} with "
                "nn.vis.transformer.use_hf_backbone true; accepted: 1 (repeated to 3) or 3; "
                "convert the image, or use nn.vis.cnn"
            )
    if p.branch == "native_transformer":
        width, height = vis.image_size.width, vis.image_size.height
        if width % t.patch_size or height % t.patch_size:
            near = nearest_divisor((width, height), t.patch_size)
            yield (
                f"nn.vis.transformer.patch_size: found {t.patch_size}, which does not divide "
                f"nn.vis.image_size {width} x {height} (width x height); accepted: a divisor of "
                f"both; set patch_size to {near}, or change image_size"
            )


def _tokens(config: Config, p: Parts) -> Iterator[str]:
    nn, vision = config.nn, config.nn.vis.transformer
    own, shared = vision.d_model if vision else 0, nn.encoder.transformer.d_model
    if p.fusion == "unified" and p.branch == "native_transformer" and own != shared:
        yield (
            f"nn.vis.transformer.d_model: found {own}, but nn.encoder.transformer.d_model is "
            f"{shared}; accepted: equal widths with nn.fusion_mode unified; set both to one value"
        )
    if nn.fusion_mode != "post_concat":
        return
    sequence = nn.encoder.post_concat_layout == "token_sequence"
    has_patches = p.branch in ("native_transformer", "hf_transformer")
    if has_patches and not sequence and vision and vision.fusion_tokens == "patch_tokens":
        yield (
            "nn.vis.transformer.fusion_tokens: found patch_tokens with "
            "nn.encoder.post_concat_layout fused_vector; accepted: summary there; set "
            "fusion_tokens to summary, or post_concat_layout to token_sequence"
        )
    if nn.encoder.float_token_layout == "per_feature":
        if not sequence:
            yield (
                "nn.encoder.float_token_layout: found per_feature with "
                "nn.encoder.post_concat_layout fused_vector; accepted: dense there; set "
                "post_concat_layout to token_sequence, or float_token_layout to dense"
            )
        if nn.encoder.float_token_input != "raw":
            yield (
                "nn.encoder.float_token_layout: found per_feature with "
                "nn.encoder.float_token_input mlp_hidden; accepted: dense there; set "
                "float_token_input to raw, or float_token_layout to dense"
            )


def _trunk(config: Config, p: Parts) -> Iterator[str]:
    encoder = config.nn.encoder
    t, own_path = encoder.transformer, encoder.hf_embedding.model_name_or_path
    if p.trunk == "native_transformer":
        if isinstance(encoder.fusion_encoder, str | None) and t.n_layers > 0:
            yield from _heads_divide("nn.encoder.transformer", t.d_model, t.n_heads)
        if t.use_hf_backbone:
            yield (
                "nn.encoder.fusion_encoder: found native_transformer with "
                "nn.encoder.transformer.use_hf_backbone true; accepted: one of them; set "
                "fusion_encoder to hf_embedding, or use_hf_backbone to false"
            )
    if p.trunk != "hf_embedding" or not isinstance(encoder.fusion_encoder, str | None):
        return  # where it stands over its options, they are all there is
    if not own_path and not t.model_name_or_path:
        yield (
            "nn.encoder.hf_embedding.model_name_or_path: found '', and "
            "nn.encoder.transformer.model_name_or_path is '' too; accepted: a hub id or folder in "
            "one of them; set one, or choose another nn.encoder.fusion_encoder (and "
            "nn.encoder.transformer.use_hf_backbone: false)"
        )
    if own_path and t.model_name_or_path and own_path != t.model_name_or_path:
        yield (
            f"nn.encoder.hf_embedding.model_name_or_path: found {own_path!r}, but "
            f"nn.encoder.transformer.model_name_or_path is {t.model_name_or_path!r}; accepted: one "
            "path; remove one of the two"
        )


def _heads_divide(path: str, d_model: int, n_heads: int) -> Iterator[str]:
    if d_model % n_heads:
        near = nearest_divisor((d_model,), n_heads)
        yield (
            f"{path}.n_heads: found {n_heads}, which does not divide {path}.d_model = {d_model}; "
            f"accepted: a divisor of it; set n_heads to {near}, or change d_model"
        )
