"""trackmania_rl state dicts of networks with a fusion body: the same values, exact round trips."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

import iqn_blocks
from iqn_blocks.errors import CheckpointError
from iqn_blocks.interop import trackmania_rl
from tests import compare, grid, tiny_models
from tests.configs import merge
from tests.reference.literal_fusion import Network

# Models stand by their names until the session's folder is known.
VISION = {name: name for name in tiny_models.VISION}
TEXT = {name: name for name in tiny_models.TEXT}
GRID = grid.multimodal_grid(VISION, TEXT) | grid.hf_vision_grid(VISION)
FLOATS = {
    "n_actions": 3,
    "float_input_dim": 2,
    "nn": {
        "fusion_mode": "post_concat",
        "vis": {"no_image": True},
        "encoder": {"transformer": {"d_model": 8}},
        "decoder": {"dense_hidden_dimension": 8},
    },
}
HF_VISION = {
    "n_actions": 3,
    "float_input_dim": 2,
    "nn": {
        "vis": {
            "transformer": {"use_hf_backbone": True, "model_name_or_path": "vit", "d_model": 8}
        },
        "float": {"mlp": {"hidden_dim": 4}},
        "decoder": {"dense_hidden_dimension": 8},
    },
}


def _is_fast(index: int, name: str) -> bool:
    """All bodies without pretrained models but for the second kind of stem; one of 20 with them."""
    pretrained = any(model in name.split("-") for model in (*VISION, "hf_embedding", "hf_block"))
    return index % 20 == 7 if pretrained else "impala" not in name


NAMES = [
    name if _is_fast(index, name) else pytest.param(name, marks=pytest.mark.slow)
    for index, name in enumerate(GRID)
]


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return tiny_models.save_all(tmp_path_factory.mktemp("models"))


def placed(config: Any, folders: Mapping[str, str]) -> Any:
    """The configuration with folders in place of names."""
    if not isinstance(config, dict):
        return config
    return {
        key: folders[value] if key == "model_name_or_path" else placed(value, folders)
        for key, value in config.items()
    }


def whole_models(config: Any) -> dict[str, nn.Module]:
    """The pretrained models that the other system has: from which nothing is left out."""
    from transformers import AutoModel

    vision, encoder = config.nn.vis.transformer, config.nn.encoder
    paths = {}
    if vision is not None and vision.use_hf_backbone and not config.nn.vis.no_image:
        name = "backbone" if config.nn.fusion_mode == "none" else "_hf_vis_backbone"
        paths[name] = vision.model_name_or_path
    path = encoder.hf_embedding.model_name_or_path or encoder.transformer.model_name_or_path
    if path:
        paths["_hf_fusion_bb"] = path
    return {name: AutoModel.from_pretrained(path) for name, path in paths.items()}


def pair(config: dict[str, Any], folders: Mapping[str, str]) -> tuple[Any, Network]:
    """A network of ours and a literal one, with different weights, in float64."""
    torch.manual_seed(0)
    net = iqn_blocks.build(placed(config, folders)).double()
    models = whole_models(net.config)
    torch.set_default_dtype(torch.float64)
    try:
        literal = Network(net.config, {name: model.double() for name, model in models.items()})
    finally:
        torch.set_default_dtype(torch.float32)
    with torch.no_grad():
        for name, parameter in literal.named_parameters():
            if "backbone" in name or "_bb" in name:
                parameter += 0.1 * torch.randn_like(parameter)
    return net.eval(), literal.eval()


def assert_same_values(net: Any, literal: Network) -> None:
    inputs = compare.draw_inputs(net.config, torch.float64, torch.Generator().manual_seed(1))
    with torch.no_grad():
        q, _ = net(inputs.img, inputs.floats, compare.QUANTILES, inputs.per_sample)
        expected = literal(inputs.img, inputs.floats, inputs.per_sample)
    compare.assert_agrees(q, expected, 1e-10, "q")


def assert_same_state(found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.equal(found[name], tensor), name


@pytest.mark.parametrize("name", NAMES)
def test_values_and_round_trip(name: str, folders: dict[str, str]) -> None:
    net, literal = pair(GRID[name], folders)
    state = literal.state_dict()
    trackmania_rl.load_state_dict(net, state)
    assert_same_values(net, literal)

    exported = trackmania_rl.to_state_dict(net)
    unused = {key for key in state if key not in exported}
    assert all("backbone." in key or "_bb." in key for key in unused)
    assert_same_state(exported, {key: state[key] for key in state if key not in unused})
    other = copy.deepcopy(net)
    compare.randomize(other, torch.Generator().manual_seed(2))
    trackmania_rl.load_state_dict(other, exported)
    assert_same_state(other.state_dict(), net.state_dict())


@pytest.mark.parametrize("trunk", ["fusion_mlp", "fusion_cnn"])
def test_dropout_moves_the_positions_in_a_trunk(trunk: str, folders: dict[str, str]) -> None:
    keys = {
        "fusion_mlp": {"n_layers": 3, "hidden_dim": 5},
        "fusion_cnn": {"hidden_channels": [5, 6]},
    }
    block = {
        "fusion_encoder": trunk.removeprefix("fusion_"),
        trunk: {**keys[trunk], "dropout": 0.1},
    }
    net, literal = pair(merge(FLOATS, {"nn": {"encoder": block}}), folders)
    trackmania_rl.load_state_dict(net, literal.state_dict())
    assert_same_values(net, literal)
    assert_same_state(trackmania_rl.to_state_dict(net), literal.state_dict())


@pytest.mark.parametrize("shape", [(1, 2, 8), (2, 8)])
def test_slot_embeddings_with_and_without_a_batch(
    shape: tuple[int, ...], folders: dict[str, str]
) -> None:
    keys = {"post_concat_layout": "token_sequence", "float_token_layout": "per_feature"}
    net, literal = pair(merge(FLOATS, {"nn": {"encoder": keys}}), folders)
    state = literal.state_dict()
    name = "fusion.float_per_feat_slot_emb"
    state[name] = state[name].reshape(shape)
    trackmania_rl.load_state_dict(net, state)
    assert_same_values(net, literal)


def test_names_of_older_transformers(folders: dict[str, str], tmp_path: Path) -> None:
    net, literal = pair(HF_VISION, folders)
    literal.fusion.backbone.save_pretrained(tmp_path)
    older = safetensors.torch.load_file(tmp_path / "model.safetensors")
    assert "encoder.layer.0.attention.attention.query.weight" in older
    state = {key: value for key, value in literal.state_dict().items() if ".backbone." not in key}
    state |= {f"fusion.backbone.{key}": value for key, value in older.items()}
    trackmania_rl.load_state_dict(net, state)
    assert_same_values(net, literal)

    before = {key: value.clone() for key, value in net.state_dict().items()}
    del state["fusion.backbone.encoder.layer.1.output.dense.weight"]
    state["fusion.backbone.encoder.layer.1.output.dense.bias"] = torch.zeros(2)
    state["fusion.backbone.encoder.layer.7.zzz"] = torch.zeros(2)
    with pytest.raises(CheckpointError) as error:
        trackmania_rl.load_state_dict(net, state)
    for part in ("missing: fusion.backbone.layers.1.mlp.fc2.weight", "layers.7.zzz", r"\(2,\)"):
        assert error.match(part)
    assert_same_state(net.state_dict(), before)


def test_faults_inside_a_backbone(folders: dict[str, str]) -> None:
    net, literal = pair(HF_VISION, folders)
    state = literal.state_dict()
    del state["fusion.backbone.layernorm.weight"]
    state["fusion.backbone.layernorm.bias"] = torch.zeros(3)
    state["fusion.float_to_hidden.zzz"] = torch.zeros(3)
    with pytest.raises(CheckpointError) as error:
        trackmania_rl.load_state_dict(net, state)
    for part in (
        "missing: fusion.backbone.layernorm.weight",
        "fusion.backbone.layernorm.bias: expected shape",
        "not in the network: fusion.float_to_hidden.zzz",
    ):
        assert part in str(error.value)


@pytest.mark.parametrize("name", ["swin", "convnext", "vit"])
def test_a_file_takes_the_first_token(name: str, folders: dict[str, str]) -> None:
    """Also of models without a class token, whose mean is what a network of ours takes."""
    file = {
        "environment": {"n_zone_centers_in_inputs": 0, "n_prev_actions_in_inputs": 0},
        "inputs": {"actions": [{}, {}]},
        "nn": placed(merge(HF_VISION["nn"], {"vis": {"transformer": {"n_layers": 0}}}), folders),
    }
    file["nn"]["vis"]["transformer"]["model_name_or_path"] = folders[name]
    net = iqn_blocks.build(trackmania_rl.load_config(file)).eval()
    img, floats = net.example_inputs(2)
    vision = net.encoder.vision
    with torch.no_grad():
        first = vision.projection(vision.tokens(img)[:, 0])
        assert torch.equal(net.encoder(img, floats)[:, :8], first)


def test_an_encoder_starts_from_a_fusion_policy(folders: dict[str, str], tmp_path: Path) -> None:
    config = placed(FLOATS, folders)
    net = iqn_blocks.build(config)
    policy = {
        name.replace("fusion.", "policy."): value
        for name, value in trackmania_rl.to_state_dict(net).items()
        if name.startswith("fusion.")
    }
    policy["policy.policy_head.weight"] = torch.zeros(3, 8)
    safetensors.torch.save_file(policy, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text('{"model_type": "rulka_ppo_fusion"}')
    start = {"nn": {"init_from_pretrained": str(tmp_path)}}
    other = iqn_blocks.build(merge(config, start))
    assert_same_state(other.encoder.state_dict(), net.encoder.state_dict())
