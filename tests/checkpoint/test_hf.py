"""Folders of networks with Hugging Face models and with tokens: the models are inside."""

from __future__ import annotations

import copy
import json
import shutil
import time

import pytest
import torch
from transformers import AutoModel

import iqn_blocks
from iqn_blocks import CheckpointError
from iqn_blocks.checkpoint.card import model_card
from tests import compare, grid, tiny_models
from tests.checkpoint.networks import CONFIG, WEIGHTS, assert_same, change_settings, to_version_1
from tests.grid.test_multimodal import CASES, CONFIGS, TEXT, VISION, placed
from tests.hf.test_models import trunk_config, vision_config

HF_VISION = list(grid.hf_vision_grid(CASES))
MODELS = {
    name: {model for model in (VISION | TEXT) if f"'{model}'" in str(CONFIGS[name])}
    for name in CONFIGS
}
WITHOUT = [name for name in CONFIGS if not MODELS[name]]
FUSED = [name for name in CONFIGS if MODELS[name] and name not in HF_VISION]
WITH_TEXT = [next(name for name in FUSED if model in MODELS[name]) for model in TEXT]
SAMPLE = sorted({*WITHOUT[::17], *HF_VISION[::13], *FUSED[::31], *WITH_TEXT})
VIT = next(name for name in HF_VISION if name.startswith("vit-"))


@pytest.fixture
def models(tmp_path):
    """Folders of every model; a test may remove them."""
    return tiny_models.save_all(tmp_path / "models")


def build(name, folders):
    torch.manual_seed(0)
    net = iqn_blocks.build(placed(CONFIGS[name], folders))
    compare.randomize(net, torch.Generator().manual_seed(1))
    return net


@pytest.fixture
def offline(monkeypatch):
    """Any look-up of a model fails."""

    def refuse(*_, **__):
        raise AssertionError("loading asked for a model")

    for name in ("load_model", "read_processor"):
        monkeypatch.setattr(f"iqn_blocks.hf.models.{name}", refuse)
    monkeypatch.setattr("transformers.AutoModel.from_pretrained", refuse)
    monkeypatch.setattr("transformers.AutoConfig.from_pretrained", refuse)


def test_the_sample_has_every_model():
    assert set.union(*(MODELS[name] for name in SAMPLE)) == set(VISION | TEXT)


@pytest.mark.parametrize("name", SAMPLE)
def test_every_structure_comes_back(name, models, tmp_path, request):
    net = build(name, models)
    request.getfixturevalue("offline")
    shutil.rmtree(tmp_path / "models")
    before = torch.get_rng_state()
    net.save_pretrained(tmp_path / "network")
    loaded = iqn_blocks.from_pretrained(tmp_path / "network")
    assert torch.equal(torch.get_rng_state(), before)
    assert_same(loaded, net)


@pytest.mark.slow
def test_every_structure_of_the_grid_comes_back(models, tmp_path):
    for name in CONFIGS:
        net = build(name, models)
        net.save_pretrained(tmp_path / "network")
        assert_same(iqn_blocks.from_pretrained(tmp_path / "network"), net)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_dtype_comes_back(dtype, models, tmp_path):
    net = build(VIT, models).to(dtype).eval()
    net.save_pretrained(tmp_path / "network")
    assert_same(iqn_blocks.from_pretrained(tmp_path / "network"), net)


def test_saving_a_loaded_network_writes_the_same_files(models, tmp_path):
    build(VIT, models).save_pretrained(tmp_path / "a")
    iqn_blocks.from_pretrained(tmp_path / "a").save_pretrained(tmp_path / "b")
    for file in (tmp_path / "a").iterdir():
        assert (tmp_path / "b" / file.name).read_bytes() == file.read_bytes()


def test_the_models_folder_is_named_in_the_config_alone(models, tmp_path):
    build(VIT, models).save_pretrained(tmp_path / "network")
    data = json.loads((tmp_path / "network" / CONFIG).read_text())
    assert set(data["backbones"]) == {"vision"}
    assert str(tmp_path) in json.dumps(data.pop("config"))
    assert str(tmp_path) not in json.dumps(data)


def test_other_defaults_change_nothing(models, tmp_path):
    net = build(VIT, models)
    net.save_pretrained(tmp_path / "network")
    with torch.device("meta"):
        loaded = iqn_blocks.from_pretrained(tmp_path / "network")
    assert_same(loaded, net)


def test_card(models):
    net = build(VIT, models)
    card = model_card(net, "me/racer")
    assert iqn_blocks.describe(net) in card
    assert "| `nn.vis.transformer.use_hf_backbone` | `true` |" in card


def test_deeply_nested_recipe(models, tmp_path):
    folder = tmp_path / "network"
    build(VIT, models).save_pretrained(folder)
    to_version_1(folder)
    text = (folder / CONFIG).read_text()
    for depth in (100, 300, 900, 3000):
        deep = text.replace('"vision": {', '"vision": {"x": ' + "[" * depth + "]" * depth + ",", 1)
        (folder / CONFIG).write_text(deep)
        with pytest.raises(CheckpointError, match=r"config\.json"):
            iqn_blocks.from_pretrained(folder)


@pytest.mark.parametrize("nested", [False, True])
def test_code_of_a_model_runs_only_if_the_caller_says_so(nested, models, tmp_path):
    """Also where the folder itself, which anybody may have written, says that it is trusted."""
    folder = tmp_path / "network"
    build(VIT, models).save_pretrained(folder)
    data = json.loads((folder / CONFIG).read_text())
    data["config"]["nn"]["vis"]["transformer"]["trust_remote_code"] = True
    vision = data["backbones"]["vision"]["config"]
    target = vision.setdefault("parts", [{}])[0] if nested else vision
    target["auto_map"] = {"AutoConfig": "someone/model--code.Config"}
    change_settings(folder, **data)
    with pytest.raises(
        CheckpointError, match=r"model\.safetensors: .*needs code of its own.*trust_remote"
    ):
        iqn_blocks.from_pretrained(folder)


def test_recipe_that_no_model_can_be_built_from(models, tmp_path):
    folder = tmp_path / "network"
    build(VIT, models).save_pretrained(folder)
    data = json.loads((folder / CONFIG).read_text())
    for path, value in [
        (("vision", "config", "model_type"), "no_such_model"),
        (("vision", "config", "hidden_size"), "wide"),
        (("vision", "config", "hidden_size"), 8),
        (("vision", "config"), None),
        (("vision", "processor"), {"size": {"height": -1, "width": 1e3}}),
        (("vision",), {}),
        (("vision",), []),
    ]:
        backbones = copy.deepcopy(data["backbones"])
        inner = backbones
        for key in path[:-1]:
            inner = inner[key]
        inner[path[-1]] = value
        change_settings(folder, backbones=backbones)
        with pytest.raises(CheckpointError, match=r"model\.safetensors: "):
            iqn_blocks.from_pretrained(folder)


def test_a_model_is_never_looked_up(models, tmp_path, request):
    """Not even where a folder that anybody may have written names one, and says it is trusted."""
    folder = tmp_path / "network"
    build(VIT, models).save_pretrained(folder)
    data = json.loads((folder / CONFIG).read_text())
    data["config"]["nn"]["vis"]["transformer"]["trust_remote_code"] = True
    change_settings(folder, config=data["config"], backbones={})
    request.getfixturevalue("offline")
    for trust in (False, True):
        with pytest.raises(CheckpointError) as caught:
            iqn_blocks.from_pretrained(folder, trust_remote_code=trust)
        assert str(caught.value) == (
            f"{folder / WEIGHTS}: backbones: expected vision (config, processor), found none"
        )


TOO_LARGE = {
    "width": ({"hidden_size": 10**6}, r"is \(1, 1, 1000000\), saved is \(1, 1, 16\)"),
    "layers": ({"num_hidden_layers": 10**9}, "num_hidden_layers: expected at most 1000, found 10"),
    "hidden layers": ({"intermediate_size": 10**13}, r"is \(10000000000000, 16\), saved is \(24, "),
    "image": ({"image_size": 10**6}, r"position_embeddings is \(1, 15625000001, 16\), saved is"),
    "words": ({"vocab_size": 10**10}, r"is \(10000000000, 16\), too large for what is saved"),
    "absent layers": ({"num_hidden_layers": 999}, r"\.\d+\..* is not among the \d+ tensors saved"),
    "labels": ({"num_labels": 10**9}, "num_labels: expected at most 1000, found 10"),
}


@pytest.mark.parametrize("name", TOO_LARGE)
def test_sizes_are_compared_before_anything_is_allocated(name, folders, tmp_path, monkeypatch):
    changes, reason = TOO_LARGE[name]
    model, config = ("bert", trunk_config) if name == "words" else ("vit", vision_config)
    iqn_blocks.build(config(folders[model])).save_pretrained(tmp_path)
    backbones = json.loads((tmp_path / CONFIG).read_text())["backbones"]
    backbones["trunk" if name == "words" else "vision"]["config"] |= changes
    change_settings(tmp_path, backbones=backbones)
    make = AutoModel.from_config

    def on_meta(*args, **kwargs):
        assert torch.empty(1).is_meta
        return make(*args, **kwargs)

    monkeypatch.setattr("transformers.AutoModel.from_config", on_meta)
    start = time.monotonic()
    with pytest.raises(CheckpointError, match=reason):
        iqn_blocks.from_pretrained(tmp_path)
    assert time.monotonic() - start < 5
