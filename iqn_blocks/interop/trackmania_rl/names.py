"""trackmania_rl's names of the parts of a network."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from torch import nn

from iqn_blocks.blocks import Head
from iqn_blocks.config import Config, route, vision_branch
from iqn_blocks.interop._naming import SPECTRAL_HOOK, Naming
from iqn_blocks.network import IQN, config_of

# Names there that belong to the quantile path; all others belong to the state encoder.
QUANTILE_PATH = ("iqn_fc.", "A_head.", "A_head_multi.", "V_head.")


def parts(net: IQN) -> dict[str, str]:
    """The path there of each module or tensor, by its path here."""
    config = config_of(net)
    names = {"tau_embedding.projection": "iqn_fc.0"}
    for ours, theirs in _encoder(config).items():
        names[f"encoder.{ours}"] = theirs
    layer_norm = config.btr.use_layer_norm
    multi = "A_head_multi" if config.n_actions_per_block > 1 else None
    names |= dict(_head(net.advantage_head, "advantage_head", "A_head", multi, layer_norm))
    names |= dict(_head(net.value_head, "value_head", "V_head", None, layer_norm))
    return names


NAMING = Naming(
    "trackmania_rl",
    parts,
    SPECTRAL_HOOK,
    "build it of the parts that its configurations name, with nn.decoder.dueling: per_level, or "
    "keep it with save_pretrained",
    rows=("encoder.float_tokens.slot_embedding",),
)


def _head(
    head: nn.Module | None, ours: str, theirs: str, readout: str | None, layer_norm: bool
) -> Iterator[tuple[str, str]]:
    """One sequence: [trunk], (Linear, [LayerNorm], activation)…, readout."""
    assert isinstance(head, Head)  # other types are refused before
    has_trunk = head.trunk is not None
    if has_trunk:
        yield f"{ours}.trunk.encoder", f"{theirs}.0.enc"
    position = 1 if has_trunk else 0
    for i in range(len(head.hidden)):
        yield f"{ours}.hidden.{i}.linear", f"{theirs}.{position}"
        yield f"{ours}.hidden.{i}.norm", f"{theirs}.{position + 1}"
        position += 3 if layer_norm else 2
    yield f"{ours}.readout", readout or f"{theirs}.{position}"


def _encoder(config: Config) -> Mapping[str, str]:
    topology = route(config)
    if topology == "classic":
        return dict([*_stem("stem", "img_head"), *_floats(3 if config.btr.use_layer_norm else 2)])
    if topology == "hf_vision":
        return {ours: f"fusion.{theirs}" for ours, theirs in _hf_vision()}
    if topology == "multimodal":
        return {ours: f"fusion.{theirs}" for ours, theirs in _multimodal(config)}
    return {}


def _stem(ours: str, theirs: str) -> Iterator[tuple[str, str]]:
    """Both kinds of stem; a network has one of them."""
    for i in range(4):
        yield f"{ours}.convs.{i}", f"{theirs}.{2 * i}"
    for s in range(3):
        yield f"{ours}.stages.{s}.conv", f"{theirs}.{s}.conv"
        for b in range(2):
            block = f"{ours}.stages.{s}.blocks.{b}"
            yield f"{block}.conv1", f"{theirs}.{s}.residual_{b}.conv_0"
            yield f"{block}.conv2", f"{theirs}.{s}.residual_{b}.conv_1"


def _floats(step: int) -> Iterator[tuple[str, str]]:
    yield "float_normalization.mean", "float_inputs_mean"
    yield "float_normalization.std", "float_inputs_std"
    for i in range(2):
        yield f"float_mlp.layers.{i}.linear", f"float_feature_extractor.{step * i}"
        yield f"float_mlp.layers.{i}.norm", f"float_feature_extractor.{step * i + 1}"


def _hf_vision() -> Iterator[tuple[str, str]]:
    yield from _floats(2)
    yield "float_projection", "float_to_hidden"
    yield "vision.backbone", "backbone"
    yield "vision.projection", "vis_proj"
    yield "vision.refinement.layers", "vis_refine.layers"


def _multimodal(config: Config) -> Iterator[tuple[str, str]]:
    """Every part that some multimodal network has; no network has them all."""
    mode, encoder = config.nn.fusion_mode, config.nn.encoder
    per_feature = mode == "post_concat" and encoder.float_token_layout == "per_feature"
    yield from _floats(2)
    yield from _stem("vision.stem", "img_head")
    yield "vision.projection", _vision_projection(config)
    yield "vision.patch_embedding", "patch_embed.proj"
    yield "vision.position", "pos_vis"
    yield "vision.encoder.layers", "enc_vis.layers"
    yield "vision.backbone", "_hf_vis_backbone"
    yield "vision.refinement.layers", "vis_refine.layers"
    yield "vision.token_projection", "vis_to_fuse"
    yield "float_tokens.projection", "float_scalar_to_tok" if per_feature else "float_to_tokens"
    yield "float_tokens.slot_embedding", "float_per_feat_slot_emb"
    yield "to_tokens", "visfloat_to_seq" if mode == "vision_transformer" else "fused_to_seq"
    positions = {"vision_transformer": "pos_vf", "post_concat": "pos_pc", "unified": "pos_uni"}
    yield "position", positions.get(mode, "")
    yield from _trunk(config)
    yield "output", "bridge"


def _vision_projection(config: Config) -> str:
    branch = vision_branch(config)
    if branch == "cnn":
        names = {
            "vision_transformer": "cnn_to_vis",
            "post_concat": "postconcat_cnn_to_fuse",
            "unified": "cnn_to_fuse",
        }
        return names.get(config.nn.fusion_mode, "")
    return "hf_vis_proj" if branch == "hf_transformer" else "vis_to_fuse"


def _trunk(config: Config) -> Iterator[tuple[str, str]]:
    encoder = config.nn.encoder
    yield "trunk.encoder.layers", "enc_fusion_native.layers"
    step, hidden = (3 if encoder.fusion_mlp.dropout else 2), encoder.fusion_mlp.n_layers - 1
    for i in range(hidden):
        yield f"trunk.hidden.{i}", f"fusion_mlp_mod.{step * i}"
    yield "trunk.output", f"fusion_mlp_mod.{step * hidden}"
    step = 3 if encoder.fusion_cnn.dropout else 2
    for i in range(len(encoder.fusion_cnn.hidden_channels)):
        yield f"trunk.convs.{i}", f"fusion_cnn_mod.0.{step * i}"
    yield "trunk.projection", "fusion_cnn_mod.1.2"
    yield "trunk.input_projection", "hf_fusion_proj_in"
    yield "trunk.backbone", "_hf_fusion_bb"
    yield "trunk.output_projection", "hf_fusion_proj_out"
