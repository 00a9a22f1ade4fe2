"""Configurations of the multimodal topology."""

from __future__ import annotations

import itertools
import random
from collections.abc import Mapping

from .draws import NOISE, NORMS, SLOTS, SUMMARIES, Config, decoder, float_inputs, quantiles
from .rules import valid

# name -> fusion_mode and the keys of `encoder` that choose the kind of tokens
MODES: dict[str, tuple[str, Config]] = {
    "vision_transformer": ("vision_transformer", {}),
    "fused_vector": ("post_concat", {}),
    "sequence+dense": ("post_concat", {"post_concat_layout": "token_sequence"}),
    "sequence+feature": (
        "post_concat",
        {"post_concat_layout": "token_sequence", "float_token_layout": "per_feature"},
    ),
    "sequence+hidden": (
        "post_concat",
        {"post_concat_layout": "token_sequence", "float_token_input": "mlp_hidden"},
    ),
    "unified": ("unified", {}),
}
TRUNKS = ("default", "linear", "native_transformer", "mlp", "cnn", "hf_embedding", "hf_block")
FUSION_TOKENS = ("summary", "patch_tokens")


def _reads_trunk_width(mode: str, trunk: str) -> bool:
    return not (mode == "vision_transformer" and trunk in {"default", "linear"})


def _native_block(draw: random.Random, layers: int) -> Config:
    """Keys of a native encoder; without layers nothing else of it is read."""
    if layers == 0:
        return {"n_layers": 0}
    heads, mult = draw.choice([1, 2]), draw.choice([2, 9])
    return {"n_layers": layers, "n_heads": heads, "ff_mult": mult}


def vision_block(
    draw: random.Random, mode: str, vision: str, tokens: str, width: int, folders: Mapping[str, str]
) -> Config:
    """The block `vis`; `width` is d_v where there is one to choose."""
    transformer: Config = {}
    if tokens != "summary":
        transformer["fusion_tokens"] = tokens
    if vision == "none":
        if mode == "vision_transformer":
            transformer["d_model"] = width
            return {"no_image": True, "transformer": transformer}
        return {"no_image": True, **({"transformer": transformer} if transformer else {})}
    block: Config = {"in_channels": draw.choice([1, 3])}
    if vision == "cnn":
        cnn = {"use_adaptive_maxpool": True, "adaptive_maxpool_size": draw.choice([1, 2])}
        block |= {"image_size": {"height": 38, "width": 36}, "cnn": cnn}
    elif vision == "impala":
        cnn = {"use_impala_cnn": True, "impala_model_size": 1}
        block |= {"image_size": {"height": 9, "width": 15}, "cnn": cnn}
    elif vision == "native":
        block["image_size"] = {"height": 8, "width": 12}
        transformer |= {"d_model": width, "patch_size": draw.choice([2, 4])}
        if mode != "unified":
            transformer |= _native_block(draw, draw.choice([0, 1, 2]))
    else:
        block["image_size"] = {"height": 12, "width": 10}
        transformer |= {"use_hf_backbone": True, "model_name_or_path": folders[vision]}
        if mode != "unified":
            transformer["d_model"] = width
            transformer |= _native_block(draw, draw.choice([0, 1, 2]))
    if vision in {"cnn", "impala"}:
        return block | ({"transformer": transformer} if transformer else {})
    return {**block, "transformer": transformer}


def trunk_block(draw: random.Random, mode: str, trunk: str, text: Mapping[str, str]) -> Config:
    """The keys of `encoder` that concern the trunk, and the shape of its tokens."""
    transformer: Config = {}
    block: Config = {"transformer": transformer}
    if _reads_trunk_width(mode, trunk):
        transformer["d_model"] = draw.choice([8, 16])
        if mode in {"vision_transformer", "fused_vector"}:
            transformer["post_concat_seq_len"] = draw.choice([1, 3])
        elif mode != "sequence+feature":
            transformer["unified_float_tokens"] = draw.choice([1, 3])
    kind = trunk
    if trunk == "default":
        kind = "linear" if mode == "vision_transformer" else "native_transformer"
    elif trunk != "hf_block":
        block["fusion_encoder"] = trunk
    if kind == "native_transformer":
        transformer |= _native_block(draw, draw.choice([0, 1, 2]))
    elif kind == "mlp":
        layers = draw.choice([1, 2, 3])
        block["fusion_mlp"] = {"n_layers": layers, **({"hidden_dim": 7} if layers > 1 else {})}
    elif kind == "cnn":
        channels = draw.choice([[5], [6, 8], [16]])
        block["fusion_cnn"] = {"hidden_channels": channels, "kernel_size": draw.choice([1, 2, 3])}
    elif kind == "hf_embedding":
        block["hf_embedding"] = {"model_name_or_path": text[draw.choice(list(text))]}
    elif kind == "hf_block":
        transformer["use_hf_backbone"] = True
        transformer["model_name_or_path"] = text[draw.choice(list(text))]
    return block


def multimodal_grid(vision: Mapping[str, str], text: Mapping[str, str]) -> dict[str, Config]:
    """Every mode × vision branch × fusion tokens × trunk that is valid.

    `vision` and `text` give the folder of each HF model by name.
    """
    draw, draw_summary = random.Random(2), random.Random(4)
    grid: dict[str, Config] = {}
    branches = ["none", "cnn", "impala", "native", *vision]
    for mode, branch, tokens, trunk in itertools.product(MODES, branches, FUSION_TOKENS, TRUNKS):
        fusion_mode, keys = MODES[mode]
        block = {**keys, **trunk_block(draw, mode, trunk, text)}
        d = block["transformer"].get("d_model", 8)
        d_v = d if mode == "unified" else draw.choice([8, 16])
        slots = draw.choice(SLOTS), draw.choice(SLOTS)
        nn: Config = {
            "fusion_mode": fusion_mode,
            "activation": draw.choice(["leaky_relu", "relu"]),
            "vis": vision_block(draw, mode, branch, tokens, d_v, vision),
            "encoder": block,
            "iqn": quantiles(draw),
            "decoder": decoder(draw, *slots, dense=16),
        }
        if branch in vision and mode != "unified" and tokens == "summary":
            nn["vis"]["transformer"] |= draw_summary.choice(SUMMARIES)
        if mode in {"vision_transformer", "fused_vector", "sequence+hidden"}:
            if draw.random() < 0.5:
                block["mlp"] = {"hidden_dim": draw.choice([5, 8])}
            else:
                nn["float"] = {"mlp": {"hidden_dim": draw.choice([5, 8])}}
        config = {
            "n_actions": draw.choice([1, 2, 5]),
            "n_actions_per_block": draw.choice([1, 3]),
            **float_inputs(draw, draw.choice([1, 3])),
            "nn": nn,
            "btr": {**NORMS[draw.choice(list(NORMS))], **NOISE[draw.choice(list(NOISE))]},
        }
        if valid(config):
            grid["-".join([mode, branch, tokens, trunk])] = config
    return grid
