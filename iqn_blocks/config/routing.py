"""Which network a configuration describes, and which of its parts are there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from iqn_blocks.config.part import Part
from iqn_blocks.errors import UnsupportedTopologyError

if TYPE_CHECKING:
    from iqn_blocks.config.schema import Config

TOPOLOGIES = ("classic", "hf_vision", "multimodal")

VisionBranch = Literal["none", "cnn", "native_transformer", "hf_transformer"]
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


def trunk(config: Config) -> str:
    """The name of what turns the tokens of a multimodal network into one."""
    encoder = config.nn.encoder
    chosen = encoder.fusion_encoder
    if chosen is not None:
        return chosen if isinstance(chosen, str) else chosen.name
    if encoder.transformer.use_hf_backbone:
        return "hf_embedding"
    return "linear" if config.nn.fusion_mode == "vision_transformer" else "native_transformer"


def trunk_part(config: Config) -> Part:
    """The trunk of a multimodal network with its options.

    Where ``fusion_encoder`` gives a bare name, the options are in blocks of ``nn.encoder``.
    """
    encoder, name = config.nn.encoder, trunk(config)
    block = encoder.transformer
    if isinstance(encoder.fusion_encoder, Part):
        return encoder.fusion_encoder
    options: dict[str, Any] = {}
    if name == "native_transformer":
        options["n_layers"] = block.n_layers
        if block.n_layers > 0:
            options |= {key: getattr(block, key) for key in ("n_heads", "ff_mult", "dropout")}
    elif name == "mlp":
        return encoder.fusion_mlp
    elif name == "cnn":
        return encoder.fusion_cnn
    elif name == "hf_embedding":
        own, keys = encoder.hf_embedding, type(encoder.hf_embedding).model_fields
        source, place = (own, "hf_embedding") if own.model_name_or_path else (block, "transformer")
        options |= {key: getattr(source, key) for key in keys}
        options["key"] = f"nn.encoder.{place}.model_name_or_path"
    return Part(name, options)


def stem_part(config: Config) -> Part:
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


def floats_part(config: Config) -> Part:
    """The float branch with its options: a part by name, or the float MLP.

    In multimodal networks ``nn.encoder.mlp`` takes the place of ``nn.float.mlp``.
    """
    if config.nn.float.parts:
        return config.nn.float.parts[0]
    override = config.nn.encoder.mlp if config.nn.fusion_mode != "none" else None
    return Part("mlp", {"hidden_dim": (override or config.nn.float.mlp).hidden_dim})


class Parts(NamedTuple):
    """What there is in the built-in network that the keys describe.

    ``fusion`` and ``trunk`` are None outside the multimodal topology.
    """

    topology: str
    branch: VisionBranch
    fusion: Fusion | None
    trunk: str | None
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
