"""Pretrained models of the hub, and models that bring their own code."""

from __future__ import annotations

import shutil

import pytest
import torch
from safetensors.torch import save_file

import iqn_blocks
from tests import tiny_models
from tests.configs import merge
from tests.hf.test_errors import TRUNK_KEY, VISION_KEY, damage_config, refused
from tests.hf.test_models import trunk_config, vision_config


@pytest.fixture
def vit(folders, tmp_path):
    """A copy that a test may change."""
    return shutil.copytree(folders["vit"], tmp_path / "vit")


@pytest.mark.parametrize("path", ["nobody/nothing", "nothing"])
@pytest.mark.parametrize(
    ("config", "key"), [(vision_config, VISION_KEY), (trunk_config, TRUNK_KEY)]
)
def test_a_hub_that_is_offline(monkeypatch, path, config, key):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    refused(config(path), f"{key}: found {path!r}", "no such folder, and the hub gave no")


@pytest.fixture
def cached(vit, tmp_path, monkeypatch):
    """The hub's cache with the model `own/vit` in it, and no connection; gives its snapshot."""
    root = tmp_path / "cache" / "models--own--vit"
    snapshot = root / "snapshots" / ("0" * 40)
    shutil.copytree(vit, snapshot)
    (root / "refs").mkdir()
    (root / "refs" / "main").write_text("0" * 40)
    for name in ("HF_HUB_CACHE", "HF_HUB_OFFLINE"):
        monkeypatch.setattr(
            f"huggingface_hub.constants.{name}",
            {"HF_HUB_CACHE": str(tmp_path / "cache")}.get(name, True),
        )
    return snapshot


def test_a_model_of_the_hub(cached, folders):
    net = iqn_blocks.build(vision_config("own/vit")).eval()
    spec = net.encoder.vision.pixels.spec
    assert spec.mean == tuple(tiny_models.PROCESSORS["sides"]["image_mean"])
    twin = iqn_blocks.build(vision_config(folders["vit"])).eval()
    pixels = torch.randn(2, 3, 16, 16)
    found, expected = (n.encoder.vision.backbone(pixel_values=pixels) for n in (net, twin))
    assert torch.equal(found.last_hidden_state, expected.last_hidden_state)


def test_a_model_of_the_hub_that_has_no_processor(cached):
    (cached / "preprocessor_config.json").unlink()
    # Offline nobody knows whether the model has one that was not downloaded.
    refused(vision_config("own/vit"), "preprocessor_config.json cannot be read (LocalEntryNotFound")
    known_absent = cached.parents[1] / ".no_exist" / cached.name
    known_absent.mkdir(parents=True)
    (known_absent / "preprocessor_config.json").touch()
    spec = iqn_blocks.build(vision_config("own/vit")).encoder.vision.pixels.spec
    assert spec == ((16, 16), (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


@pytest.fixture
def own_code(vit, tmp_path, monkeypatch):
    """A folder whose model brings its own code, and the file that this code leaves when it runs."""
    trace = tmp_path / "the code ran"
    (vit / "modeling_own.py").write_text(
        f"open({str(trace)!r}, 'w').close()\n"
        "from transformers import ViTConfig, ViTModel\n"
        "class OwnConfig(ViTConfig):\n    model_type = 'own'\n"
        "class OwnModel(ViTModel):\n    config_class = OwnConfig\n"
    )
    code = {"AutoConfig": "modeling_own.OwnConfig", "AutoModel": "modeling_own.OwnModel"}
    model = tiny_models.load(str(vit))  # without a pooler, whose weights may be missing
    damage_config(vit, model_type="own", auto_map=code)
    save_file(model.state_dict(), vit / "model.safetensors", metadata={"format": "pt"})
    modules = str(tmp_path / "modules")
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", modules)
    monkeypatch.syspath_prepend(modules)

    def ask(*_):
        raise AssertionError("asked a question")

    monkeypatch.setattr("builtins.input", ask)
    return vit, trace


def test_own_code_does_not_run_unless_trusted(own_code):
    folder, trace = own_code
    refused(vision_config(folder), VISION_KEY, "set nn.vis.transformer.trust_remote_code to true")
    assert not trace.exists()


def test_own_code_runs_when_trusted(own_code):
    folder, trace = own_code
    trusted = {"nn": {"vis": {"transformer": {"trust_remote_code": True}}}}
    net = iqn_blocks.build(merge(vision_config(folder), trusted))
    assert trace.exists()
    assert type(net.encoder.vision.backbone).__name__ == "OwnModel"
    assert net(*net.example_inputs(2), 4)[0].shape == (8, 3)


def test_a_folder_that_chooses_its_own_attention_is_not_heard(vit):
    damage_config(vit, _attn_implementation="eager", attn_implementation="eager")
    net = iqn_blocks.build(vision_config(vit))
    assert net.encoder.vision.backbone.config._attn_implementation == "sdpa"
