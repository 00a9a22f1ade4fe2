"""Which network a configuration describes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from iqn_blocks.errors import UnsupportedTopologyError

if TYPE_CHECKING:
    from iqn_blocks.config.schema import Config

TOPOLOGIES = ("classic", "hf_vision", "multimodal")

VisionBranch = Literal["none", "cnn", "native_transformer", "hf_transformer"]
Trunk = Literal["linear", "native_transformer", "mlp", "cnn", "hf_embedding"]


def route(config: Config) -> str:
    """The topology's name: ``nn.topology``, or where that is null what the other keys describe.

    Raises:
        UnsupportedTopologyError: for a native vision transformer without fusion.
    """
    return config.nn.topology or route_by_keys(config)


def route_by_keys(config: Config) -> str:
    """The built-in topology that the keys describe, whatever ``nn.topology`` says."""
    branch = vision_branch(config)
    if config.nn.fusion_mode != "none":
        return "multimodal"
    if branch == "hf_transformer":
        return "hf_vision"
    if branch in ("cnn", "none"):
        return "classic"
    raise UnsupportedTopologyError(
        "nn.vis.transformer: found a native vision transformer with nn.fusion_mode none; accepted: "
        "one that is fused; set nn.fusion_mode to vision_transformer, post_concat or unified, or "
        "set nn.vis.transformer.use_hf_backbone to true"
    )


def vision_branch(config: Config) -> VisionBranch:
    """What reads the image."""
    vis = config.nn.vis
    if vis.no_image:
        return "none"
    if vis.transformer is None:
        return "cnn"
    return "hf_transformer" if vis.transformer.use_hf_backbone else "native_transformer"


def trunk(config: Config) -> Trunk:
    """What turns the tokens of a multimodal network into one (``nn.encoder.fusion_encoder``)."""
    encoder = config.nn.encoder
    if encoder.fusion_encoder is not None:
        return encoder.fusion_encoder
    if encoder.transformer.use_hf_backbone:
        return "hf_embedding"
    return "linear" if config.nn.fusion_mode == "vision_transformer" else "native_transformer"


def float_hidden_dim(config: Config) -> int:
    """Width h of the float MLP that the network builds."""
    encoder = config.nn.encoder
    if config.nn.fusion_mode != "none" and encoder.mlp is not None:
        return encoder.mlp.hidden_dim
    return config.nn.float.mlp.hidden_dim
