"""Which network a configuration describes, and which of its parts are there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

from iqn_blocks.errors import UnsupportedTopologyError

if TYPE_CHECKING:
    from iqn_blocks.config.fusion import HfEmbedding
    from iqn_blocks.config.inputs import Transformer
    from iqn_blocks.config.schema import Config

TOPOLOGIES = ("classic", "hf_vision", "multimodal")

VisionBranch = Literal["none", "cnn", "native_transformer", "hf_transformer"]
Trunk = Literal["linear", "native_transformer", "mlp", "cnn", "hf_embedding"]
# How a multimodal network brings image and floats together: one vector that is the state but for a
# Linear, one vector cut into tokens, float tokens behind those of a vision encoder, or float tokens
# behind the bare image tokens.
Fusion = Literal["direct", "vector", "sequence", "unified"]


def route(config: Config) -> str:
    """The topology's name: ``nn.topology``, or where that is null what the other keys describe.

    Raises:
        UnsupportedTopologyError: for a native vision transformer without fusion.
    """
    return config.nn.topology or route_by_keys(config)


def route_by_keys(config: Config) -> str:
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


def vision_branch(config: Config) -> VisionBranch:
    """What reads the image."""
    vis = config.nn.vis
    if vis.no_image:
        return "none"
    if vis.transformer is None:
        return "cnn"
    return "hf_transformer" if vis.transformer.use_hf_backbone else "native_transformer"


def trunk(config: Config) -> Trunk:
    """What turns the tokens of a multimodal network into one."""
    encoder = config.nn.encoder
    if encoder.fusion_encoder is not None:
        return encoder.fusion_encoder
    if encoder.transformer.use_hf_backbone:
        return "hf_embedding"
    return "linear" if config.nn.fusion_mode == "vision_transformer" else "native_transformer"


def trunk_backbone(config: Config) -> HfEmbedding | Transformer:
    """The block with path, trust and dropout of the model in a ``hf_embedding`` trunk."""
    encoder = config.nn.encoder
    own_path = encoder.hf_embedding.model_name_or_path
    return encoder.hf_embedding if own_path else encoder.transformer


def float_hidden_dim(config: Config) -> int:
    """Width h of the float MLP; multimodal networks prefer ``nn.encoder.mlp``."""
    override = config.nn.encoder.mlp
    if config.nn.fusion_mode != "none" and override is not None:
        return override.hidden_dim
    return config.nn.float.mlp.hidden_dim


class Parts(NamedTuple):
    """What there is in the built-in network that the keys describe.

    ``fusion`` and ``trunk`` are None outside the multimodal topology.
    """

    topology: str
    branch: VisionBranch
    fusion: Fusion | None
    trunk: Trunk | None
    float_mlp: bool
    vision_encoder: bool  # native layers, sized by vis.transformer, over patches or HF tokens


def parts(config: Config) -> Parts:
    """The parts of the network that the keys describe, whatever ``nn.topology`` says.

    Raises:
        UnsupportedTopologyError: for a native vision transformer without fusion.
    """
    topology, branch = route_by_keys(config), vision_branch(config)
    fusion = _fusion(config) if topology == "multimodal" else None
    float_mlp = {
        None: config.float_input_dim > 0,
        "unified": False,
        "sequence": config.nn.encoder.float_token_input == "mlp_hidden",
    }.get(fusion, True)
    vision = config.nn.vis.transformer
    return Parts(
        topology=topology,
        branch=branch,
        fusion=fusion,
        trunk=trunk(config) if fusion else None,
        float_mlp=float_mlp,
        vision_encoder=(
            branch in ("native_transformer", "hf_transformer")
            and fusion != "unified"
            and vision is not None
            and vision.n_layers > 0
        ),
    )


def _fusion(config: Config) -> Fusion:
    mode = config.nn.fusion_mode
    if mode == "unified":
        return "unified"
    if mode == "post_concat" and config.nn.encoder.post_concat_layout == "token_sequence":
        return "sequence"
    return "direct" if mode == "vision_transformer" and trunk(config) == "linear" else "vector"
