"""Which multimodal configurations are allowed, as a list of rules."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Config = dict[str, Any]


def _vit(config: Config) -> Config:
    return config["nn"]["vis"].get("transformer") or {}


def _native_vision(config: Config) -> bool:
    vis = config["nn"]["vis"]
    if vis.get("no_image") or "transformer" not in vis:
        return False
    return not vis["transformer"].get("use_hf_backbone")


def _vision_tokens_are_a_choice(config: Config) -> bool:
    """`fusion_tokens` is read by post_concat with a vision transformer, and nowhere else."""
    vis = config["nn"]["vis"]
    sequence = config["nn"]["encoder"].get("post_concat_layout") == "token_sequence"
    return bool(sequence and "transformer" in vis and not vis.get("no_image"))


def _patches_fit(config: Config) -> bool:
    if not _native_vision(config):
        return True
    size, patch = config["nn"]["vis"]["image_size"], _vit(config).get("patch_size", 8)
    return bool(size["height"] % patch == 0 and size["width"] % patch == 0)


def _widths_agree(config: Config) -> bool:
    if config["nn"]["fusion_mode"] != "unified" or not _native_vision(config):
        return True
    return bool(_vit(config)["d_model"] == config["nn"]["encoder"]["transformer"]["d_model"])


def _features_are_raw_tokens(config: Config) -> bool:
    encoder: Config = config["nn"]["encoder"]
    if encoder.get("float_token_layout", "dense") != "per_feature":
        return True
    sequence = encoder.get("post_concat_layout") == "token_sequence"
    return sequence and "float_token_input" not in encoder


def _one_way_to_a_text_model(config: Config) -> bool:
    encoder = config["nn"]["encoder"]
    block = encoder["transformer"]
    if block.get("use_hf_backbone"):
        named = bool(block.get("model_name_or_path"))
        return named and encoder.get("fusion_encoder") != "native_transformer"
    if encoder.get("fusion_encoder") == "hf_embedding":
        return bool(encoder.get("hf_embedding", {}).get("model_name_or_path"))
    return True


def _heads_divide(config: Config) -> bool:
    blocks = [config["nn"]["encoder"]["transformer"], _vit(config)]
    built = [block for block in blocks if block.get("n_layers", 0) > 0]
    return all(block["d_model"] % block.get("n_heads", 4) == 0 for block in built)


RULES: list[tuple[str, Callable[[Config], bool]]] = [
    (
        "patch tokens are a choice of token_sequence with a vision transformer",
        lambda c: (
            _vit(c).get("fusion_tokens", "summary") == "summary" or _vision_tokens_are_a_choice(c)
        ),
    ),
    (
        "cnn and a vision transformer exclude each other",
        lambda c: len({"cnn", "transformer"} & set(c["nn"]["vis"])) < 2,
    ),
    ("patch_size divides both sides of the image", _patches_fit),
    ("unified native vision has the width of the trunk", _widths_agree),
    ("per_feature tokens come from raw floats in a token_sequence", _features_are_raw_tokens),
    ("a text model has one path and no native trunk beside it", _one_way_to_a_text_model),
    ("n_heads divides d_model of every native encoder", _heads_divide),
]


def valid(config: Config) -> bool:
    """Whether every rule allows this multimodal configuration."""
    return all(rule(config) for _, rule in RULES)
