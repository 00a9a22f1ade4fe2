"""Which parameters each freeze flag freezes, name by name."""

from __future__ import annotations

from functools import reduce

import pytest

import iqn_blocks
from tests import tiny_models
from tests.configs import merge
from tests.grid.test_multimodal import placed

BASE = {
    "n_actions": 2,
    "float_input_dim": 3,
    "nn": {
        "float": {"mlp": {"hidden_dim": 5}},
        "iqn": {"embedding_dimension": 4},
        "decoder": {"dense_hidden_dimension": 8},
    },
}
LAYER = {"n_layers": 1, "n_heads": 2}
CNN = {"vis": {"image_size": {"width": 34, "height": 34}}}
NATIVE = {
    "vis": {
        "image_size": {"width": 4, "height": 4},
        "transformer": {"d_model": 6, "patch_size": 2, **LAYER},
    }
}
HF_ALONE = {"use_hf_backbone": True, "model_name_or_path": "vit"}
HF = {"vis": {"transformer": {**HF_ALONE, "d_model": 6, **LAYER}}}
NO_IMAGE = {"vis": {"no_image": True}}
SEQUENCE = {"fusion_mode": "post_concat", "encoder": {"post_concat_layout": "token_sequence"}}


def trunk(**keys):
    return {"encoder": {"transformer": {"d_model": 8}, **keys}}


CONFIGS = {
    "classic": [CNN],
    "hf_vision": [HF],
    "direct": [CNN, {"fusion_mode": "vision_transformer"}],
    "vector": [NATIVE, trunk(fusion_encoder="mlp"), {"fusion_mode": "vision_transformer"}],
    "fused": [
        CNN,
        trunk(fusion_encoder="cnn", fusion_cnn={"hidden_channels": [5]}),
        {"fusion_mode": "post_concat"},
    ],
    "sequence": [
        NATIVE,
        {"vis": {"transformer": {"fusion_tokens": "patch_tokens"}}},
        trunk(transformer={"d_model": 8, **LAYER}),
        SEQUENCE,
    ],
    "stem token": [CNN, trunk(fusion_encoder="linear"), SEQUENCE],
    "features": [
        NO_IMAGE,
        trunk(fusion_encoder="linear", float_token_layout="per_feature"),
        SEQUENCE,
    ],
    "hidden": [
        HF,
        trunk(
            fusion_encoder="hf_embedding",
            hf_embedding={"model_name_or_path": "gpt2"},
            float_token_input="mlp_hidden",
        ),
        SEQUENCE,
    ],
    "unified": [
        {"vis": {"transformer": HF_ALONE}},
        trunk(fusion_encoder="linear"),
        {"fusion_mode": "unified"},
    ],
}


def linears(*names):
    return {f"{name}.{part}" for name in names for part in ("weight", "bias")}


def layer(name):
    """A layer of PyTorch's transformer encoder."""
    parts = linears("self_attn.out_proj", "linear1", "linear2", "norm1", "norm2")
    parts |= {"self_attn.in_proj_weight", "self_attn.in_proj_bias"}
    return {f"{name}.{part}" for part in parts}


STEM = linears(*(f"stem.convs.{i}" for i in range(4)))
VISION_STEM = {f"vision.{name}" for name in STEM}
PATCHES = linears("vision.patch_embedding") | {"vision.position"}
FLOAT_MLP = linears("float_mlp.layers.0.linear", "float_mlp.layers.1.linear")
VIT = {"the parameters of vit under vision.backbone"}
GPT2 = {"the parameters of gpt2 under trunk.backbone"}

# name -> what the flags of vis, float and encoder freeze, without the leading `encoder.`
FROZEN = {
    "classic": (STEM, FLOAT_MLP, set()),
    "hf_vision": (
        VIT | linears("vision.projection") | layer("vision.refinement.layers.0"),
        FLOAT_MLP | linears("float_projection"),
        set(),
    ),
    "direct": (VISION_STEM | linears("vision.projection"), FLOAT_MLP, linears("output")),
    "vector": (
        PATCHES | layer("vision.encoder.layers.0"),
        FLOAT_MLP,
        linears("to_tokens", "trunk.hidden.0", "trunk.output", "output") | {"position"},
    ),
    "fused": (
        VISION_STEM,
        FLOAT_MLP,
        linears("to_tokens", "trunk.convs.0", "trunk.projection", "output") | {"position"},
    ),
    "sequence": (
        PATCHES | layer("vision.encoder.layers.0"),
        set(),
        linears("vision.projection", "float_tokens.projection", "output")
        | layer("trunk.encoder.layers.0")
        | {"position"},
    ),
    "stem token": (
        VISION_STEM | linears("vision.projection"),
        set(),
        linears("float_tokens.projection", "output") | {"position"},
    ),
    "features": (
        set(),
        set(),
        linears("float_tokens.projection", "output") | {"float_tokens.slot_embedding", "position"},
    ),
    "hidden": (
        VIT | linears("vision.projection") | layer("vision.refinement.layers.0"),
        FLOAT_MLP,
        GPT2
        | linears("vision.token_projection")
        | linears("float_tokens.projection", "output")
        | linears("trunk.input_projection", "trunk.output_projection")
        | {"position"},
    ),
    "unified": (
        VIT | linears("vision.projection"),
        set(),
        linears("float_tokens.projection", "output") | {"position"},
    ),
}
HEADS = {
    "iqn": linears("tau_embedding.projection"),
    "decoder.advantage": linears("advantage_head.hidden.0.linear", "advantage_head.readout"),
    "decoder.value": linears("value_head.hidden.0.linear", "value_head.readout"),
}


def build(name, folders, *flags):
    config = reduce(merge, ({"nn": change} for change in CONFIGS[name]), BASE)
    for flag in flags:
        block = {"freeze": True}
        for key in reversed(flag.split(".")):
            block = {key: block}
        config = merge(config, {"nn": block})
    return iqn_blocks.build(placed(config, folders))


def frozen(net):
    return {name for name, parameter in net.named_parameters() if not parameter.requires_grad}


def expected(names, folders):
    """Full names, with those of HF models as the model in the folder has them."""
    found = {name for name in names if " " not in name}
    for group, model, place in ((VIT, "vit", "vision"), (GPT2, "gpt2", "trunk")):
        if group <= names:
            loaded = tiny_models.load(folders[model])
            found |= {f"{place}.backbone.{name}" for name, _ in loaded.named_parameters()}
    return {f"encoder.{name}" for name in found - {"trunk.backbone.wte.weight"}}


@pytest.mark.filterwarnings("ignore::iqn_blocks.UnusedConfigWarning")
@pytest.mark.parametrize("name", CONFIGS)
def test_each_flag_freezes_exactly_its_parameters(name, folders):
    everything = set()
    assert frozen(build(name, folders)) == set()
    for flag, names in zip(("vis", "float", "encoder"), FROZEN[name], strict=True):
        wanted = expected(names, folders)
        assert frozen(build(name, folders, flag)) == wanted, flag
        everything |= wanted
    for flag, wanted in HEADS.items():
        assert frozen(build(name, folders, flag)) == wanted, flag
        everything |= wanted
    net = build(name, folders, "vis", "float", "encoder", *HEADS)
    assert frozen(net) == everything == {name for name, _ in net.named_parameters()}


def test_frozen_parts_stay_while_the_others_learn(folders):
    net = build("hidden", folders, "vis", "float")
    net(*net.example_inputs(3), 4)[0].sum().backward()
    for name, parameter in net.named_parameters():
        branches = name.startswith(("encoder.vision", "encoder.float_mlp"))
        frozen = branches and "token_projection" not in name
        assert (parameter.grad is None) == frozen
