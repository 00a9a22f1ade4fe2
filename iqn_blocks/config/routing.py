"""Which network a configuration describes, and with which parts."""

from __future__ import annotations

from typing import Any, Literal

from iqn_blocks.config.part import Part
from iqn_blocks.config.schema import ConfigKeys
from iqn_blocks.errors import UnsupportedTopologyError

TOPOLOGIES = ("classic", "hf_vision", "multimodal")

VisionBranch = Literal["none", "cnn", "native_transformer", "hf_transformer"]


def route(config: ConfigKeys) -> str:
    """The topology's name: ``nn.topology``, or where that is null what the other keys describe.

    Raises:
        UnsupportedTopologyError: for a native vision transformer without fusion.
    """
    return config.nn.topology or route_by_keys(config)


def route_by_keys(config: ConfigKeys) -> str:
    """The built-in topology that the keys describe, whatever ``nn.topology`` says.

    Raises:
        UnsupportedTopologyError: for a native vision transformer without fusion.
    """
    branch = vision_branch(config)
    if config.nn.fusion_mode != "none":
        return "multimodal"
    if branch == "hf_transformer":
        return "hf_vision"
    if branch in ("cnn", "none"):
        return "classic"
    raise UnsupportedTopologyError(
        "nn.vis.transformer: found a native vision transformer with nn.fusion_mode none; accepted: "
        "a native one that is fused, or a Hugging Face one; set nn.fusion_mode to "
        "vision_transformer, post_concat or unified, or nn.vis.transformer.use_hf_backbone to true"
    )


def vision_branch(config: ConfigKeys) -> VisionBranch:
    """What reads the image."""
    vis = config.nn.vis
    if vis.no_image:
        return "none"
    if vis.transformer is None:
        return "cnn"
    return "hf_transformer" if vis.transformer.use_hf_backbone else "native_transformer"


def trunk(config: ConfigKeys) -> str:
    """The name of what turns the tokens of a multimodal network into one."""
    encoder = config.nn.encoder
    chosen = encoder.fusion_encoder
    if chosen is not None:
        return chosen if isinstance(chosen, str) else chosen.name
    if encoder.transformer.use_hf_backbone:
        return "hf_embedding"
    return "linear" if config.nn.fusion_mode == "vision_transformer" else "native_transformer"


def trunk_part(config: ConfigKeys) -> Part:
    """The trunk of a multimodal network with its options.

    Where ``fusion_encoder`` gives a bare name, the options are in blocks of ``nn.encoder``.
    """
    encoder, name = config.nn.encoder, trunk(config)
    block, embedding = encoder.transformer, encoder.hf_embedding
    if isinstance(encoder.fusion_encoder, Part):
        return encoder.fusion_encoder
    if name == "mlp":
        return encoder.fusion_mlp
    if name == "cnn":
        return encoder.fusion_cnn
    if name == "native_transformer":
        keys = ("n_layers", "n_heads", "ff_mult", "dropout") if block.n_layers else ("n_layers",)
        return Part(name, {key: getattr(block, key) for key in keys})
    if name == "hf_embedding":
        source, place = (
            (embedding, "hf_embedding") if embedding.model_name_or_path else (block, "transformer")
        )
        options = {key: getattr(source, key) for key in type(embedding).model_fields}
        return Part(name, {**options, "key": f"nn.encoder.{place}.model_name_or_path"})
    return Part(name)


def stem_part(config: ConfigKeys) -> Part:
    """The image stem with its options: a part by name, or what ``nn.vis.cnn`` describes."""
    vis, cnn = config.nn.vis, config.nn.vis.cnn
    if vis.parts:
        return vis.parts[0]
    assert cnn is not None
    impala, options = cnn.use_impala_cnn, dict[str, Any]()
    if impala:
        options["width"] = cnn.impala_model_size
    if cnn.use_spectral_norm:
        options["spectral_norm"] = cnn.spectral_norm_scope
    if cnn.use_adaptive_maxpool:
        options |= {"readout": "max", "readout_size": cnn.adaptive_maxpool_size}
    return Part("impala" if impala else "conv", options)


def floats_part(config: ConfigKeys) -> Part:
    """The float branch with its options: a part by name, or the float MLP.

    In multimodal networks ``nn.encoder.mlp`` takes the place of ``nn.float.mlp``.
    """
    if config.nn.float.parts:
        return config.nn.float.parts[0]
    override = config.nn.encoder.mlp if config.nn.fusion_mode != "none" else None
    return Part("mlp", {"hidden_dim": (override or config.nn.float.mlp).hidden_dim})
