"""Rules between keys: each gives a line that names the keys, what was found, and the way out.

A rule applies only where the network that the keys describe has the parts it is about.
"""

from __future__ import annotations

from collections.abc import Iterator

from iqn_blocks._arguments import heads_fault, nearest_divisor
from iqn_blocks.config.part import Part
from iqn_blocks.config.routing import TOPOLOGIES, route_by_keys, trunk
from iqn_blocks.config.schema import ConfigKeys
from iqn_blocks.errors import UnsupportedTopologyError


def cross_faults(config: ConfigKeys) -> list[str]:
    """All faults between keys of a configuration whose single keys are valid."""
    faults = [*_one_of_two(config), *_float_stats(config)]
    topology = config.nn.topology
    if topology not in (None, *TOPOLOGIES) or len(_image_branches(config)) > 1:
        return faults  # the other keys do not say which network is meant
    try:
        described = route_by_keys(config)
    except UnsupportedTopologyError as error:
        # Without a name `route` reports it: the keys are valid, but no topology builds them.
        if topology is not None:
            faults.append(f"nn.topology: found {topology!r}; {error}")
        return faults
    if topology not in (None, described):
        faults.append(
            f"nn.topology: found {topology!r}, but the other keys describe {described}; accepted: "
            f"{described} or null; set it so, or change nn.fusion_mode and nn.vis"
        )
    faults += [*_inputs(config, described), *_vision(config)]
    if config.nn.fusion_mode == "post_concat":
        faults += _post_concat(config)
    if described == "multimodal":
        faults += _trunk(config)
    return faults


def _one_of_two(config: ConfigKeys) -> Iterator[str]:
    floats, decoder = config.nn.float, config.nn.decoder
    blocks = {"nn.float": floats, "nn.decoder.advantage": decoder.advantage}
    blocks["nn.decoder.value"] = decoder.value
    chosen = {path: [part.name for part in block.parts] for path, block in blocks.items()}
    for path, names in {"nn.vis": _image_branches(config), **chosen}.items():
        if len(names) > 1:
            ways_out = " or ".join(f"{path}.{name}" for name in names)
            yield (
                f"{path}: found both {' and '.join(names)}; accepted: one of them; remove "
                f"{ways_out}"
            )


def _image_branches(config: ConfigKeys) -> list[str]:
    vis = config.nn.vis
    blocks = [name for name in vis.branches if getattr(vis, name) is not None]
    return blocks + [part.name for part in vis.parts]


def _float_stats(config: ConfigKeys) -> Iterator[str]:
    for key in ("float_inputs_mean", "float_inputs_std"):
        numbers = getattr(config, key)
        if numbers is not None and len(numbers) != config.float_input_dim:
            yield (
                f"{key}: found {len(numbers)} numbers; accepted: float_input_dim = "
                f"{config.float_input_dim} numbers; change {key} or float_input_dim"
            )


def _inputs(config: ConfigKeys, topology: str) -> Iterator[str]:
    no_image = topology == "classic" and config.nn.vis.no_image
    if config.float_input_dim == 0 and (no_image or topology != "classic"):
        network = "a classic network with no_image" if no_image else topology
        yield (
            f"float_input_dim: found 0 in {network}; accepted: at least 1 there; give float "
            "inputs, or build a classic network with an image (nn.fusion_mode: none, "
            "nn.vis.no_image: false, nn.vis.cnn)"
        )


def _vision(config: ConfigKeys) -> Iterator[str]:
    vis, t = config.nn.vis, config.nn.vis.transformer
    if t is None or vis.no_image:
        return
    has_layers = t.n_layers > 0 and config.nn.fusion_mode != "unified"
    if has_layers and t.d_model % t.n_heads:
        yield heads_fault(t.d_model, t.n_heads, "nn.vis.transformer.")
    if t.use_hf_backbone:
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
        return
    width, height = vis.image_size.width, vis.image_size.height
    if width % t.patch_size or height % t.patch_size:
        near = nearest_divisor((width, height), t.patch_size)
        yield (
            f"nn.vis.transformer.patch_size: found {t.patch_size}, which does not divide "
            f"nn.vis.image_size {width} x {height} (width x height); accepted: a divisor of both; "
            f"set patch_size to {near}, or change image_size"
        )
    shared = config.nn.encoder.transformer.d_model
    if config.nn.fusion_mode == "unified" and t.d_model != shared:
        yield (
            f"nn.vis.transformer.d_model: found {t.d_model}, but nn.encoder.transformer.d_model is "
            f"{shared}; accepted: equal widths with nn.fusion_mode unified; set both to one value"
        )


def _post_concat(config: ConfigKeys) -> Iterator[str]:
    vis, encoder = config.nn.vis, config.nn.encoder
    vision = None if vis.no_image else vis.transformer
    is_fused = encoder.post_concat_layout == "fused_vector"
    fused = "nn.encoder.post_concat_layout", "fused_vector", "token_sequence"
    if is_fused and vision is not None and vision.fusion_tokens == "patch_tokens":
        yield _conflict("nn.vis.transformer.fusion_tokens", "patch_tokens", "summary", fused)
    if encoder.float_token_layout == "per_feature":
        layout = "nn.encoder.float_token_layout", "per_feature", "dense"
        if is_fused:
            yield _conflict(*layout, fused)
        if encoder.float_token_input == "mlp_hidden":
            yield _conflict(*layout, ("nn.encoder.float_token_input", "mlp_hidden", "raw"))


def _conflict(path: str, value: str, instead: str, other: tuple[str, str, str]) -> str:
    """Two keys whose values exclude each other; each has a value that mends it."""
    other_path, other_value, other_instead = other
    key, other_key = path.rpartition(".")[2], other_path.rpartition(".")[2]
    return (
        f"{path}: found {value} with {other_path} {other_value}; accepted: {instead} there; set "
        f"{other_key} to {other_instead}, or {key} to {instead}"
    )


def _trunk(config: ConfigKeys) -> Iterator[str]:
    encoder, name = config.nn.encoder, trunk(config)
    t, own_path = encoder.transformer, encoder.hf_embedding.model_name_or_path
    has_own_options = isinstance(encoder.fusion_encoder, Part)
    if name == "native_transformer":
        if t.n_layers > 0 and not has_own_options and t.d_model % t.n_heads:
            yield heads_fault(t.d_model, t.n_heads, "nn.encoder.transformer.")
        if t.use_hf_backbone:
            yield (
                "nn.encoder.fusion_encoder: found native_transformer with "
                "nn.encoder.transformer.use_hf_backbone true; accepted: one of them; set "
                "fusion_encoder to hf_embedding, or use_hf_backbone to false"
            )
    if name != "hf_embedding" or has_own_options:
        return
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
