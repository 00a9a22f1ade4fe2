"""What a stranger writes into a configuration runs nothing and fetches nothing.

Each way is shown to work where the caller trusts the folder, so that the refusal is the reason why
it does not work otherwise.
"""

from __future__ import annotations

import contextlib
import json
import shutil

import huggingface_hub
import pytest

import iqn_blocks
from iqn_blocks import CheckpointError, ConfigError
from iqn_blocks.hf import load_model, model_from_config
from iqn_blocks.hf.foreign import leads_elsewhere
from tests import tiny_models
from tests.checkpoint.networks import CONFIG, change_settings
from tests.configs import merge
from tests.hf.test_errors import damage_config
from tests.hf.test_models import trunk_config, vision_config


class Trace:
    """Where foreign code lies, and whether it ran or the hub was asked."""

    def __init__(self, folder):
        self.folder = folder
        self.mark = folder / "the code ran"
        self.asked = []
        folder.mkdir()
        (folder / "m.py").write_text(
            f"open({str(self.mark)!r}, 'w').close()\n"
            "from transformers import ViTModel, BertModel\n"
            "class Evil(ViTModel):\n    pass\n"
        )

    def __bool__(self):
        return self.mark.exists() or bool(self.asked)


@pytest.fixture
def trace(tmp_path, monkeypatch):
    trace = Trace(tmp_path / "foreign")
    modules = str(tmp_path / "modules")
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", modules)
    monkeypatch.syspath_prepend(modules)

    def ask(*args, **_):
        trace.asked.append(args[1:])
        raise OSError("cut off")

    monkeypatch.setattr(huggingface_hub.HfApi, "repo_exists", ask)
    monkeypatch.setattr("socket.socket.connect", ask)
    monkeypatch.setattr("builtins.input", ask)
    return trace


def code(trace):
    return dict.fromkeys(("AutoConfig", "AutoModel"), f"{trace.folder}--m.Evil")


WAYS = {
    "auto_map": lambda config, trace: {**config, "auto_map": code(trace)},
    "another key that means auto_map": lambda config, trace: {
        "attribute_map": {"zz": "auto_map"},
        **config,
        "zz": code(trace),
    },
    "the attributes themselves": lambda config, trace: {
        **config,
        "__dict__": {
            **config,
            "auto_map": code(trace),
            "_name_or_path": "x",
            "_output_attentions": False,
            "_attn_implementation_internal": None,
        },
    },
    "a backbone of the hub": lambda config, trace: {
        "model_type": "detr",
        "use_timm_backbone": False,
        "backbone": "someone/model",
    },
    "a backbone of the hub without a name": lambda config, trace: {
        "model_type": "detr",
        "use_timm_backbone": False,
        "backbone": "",
    },
}
CASES = {
    "vision": ("vit", vision_config, ("vis", "transformer")),
    "trunk": ("bert", trunk_config, ("encoder", "hf_embedding")),
}


@pytest.fixture(params=CASES)
def stranger(request, folders, tmp_path):
    """The folder of a network that says of itself that it may be trusted; the recipe's name."""
    model, config, keys = CASES[request.param]
    net = iqn_blocks.build(config(folders[model]))
    net.save_pretrained(tmp_path / "network")
    return tmp_path / "network", request.param, keys


def change_recipe(stranger, change):
    """Put another recipe into the folder, with a digest that holds."""
    folder, name, (block, key) = stranger
    data = json.loads((folder / CONFIG).read_text())
    data["config"]["nn"][block][key]["trust_remote_code"] = True
    data["backbones"][name]["config"] = change(data["backbones"][name]["config"])
    change_settings(folder, **data)
    return folder


@pytest.mark.parametrize("way", WAYS)
def test_a_network_of_a_stranger(way, stranger, trace):
    folder = change_recipe(stranger, lambda config: WAYS[way](config, trace))
    with pytest.raises(CheckpointError, match=r"model\.safetensors: .*pass trust_remote_code=True"):
        iqn_blocks.from_pretrained(folder)
    assert not trace
    with contextlib.suppress(CheckpointError):
        iqn_blocks.from_pretrained(folder, trust_remote_code=True)
    assert trace  # the way is open to those who trust


@pytest.mark.parametrize("way", WAYS)
def test_a_recipe_alone(way, folders, trace):
    """Its own word on trust is overruled, the configuration's is not asked."""
    with open(f"{folders['vit']}/config.json") as file:
        config = WAYS[way](json.load(file), trace)
    with pytest.raises(ConfigError, match="pass trust_remote_code=True"):
        model_from_config(config, "pixel_values")
    assert not trace


@pytest.mark.parametrize("way", [way for way in WAYS if way != "auto_map"])
def test_a_pretrained_model_of_a_stranger(way, folders, tmp_path, trace):
    """A folder, or what the hub gave; ``auto_map`` itself is in test_hf_hub.py."""
    folder = shutil.copytree(folders["vit"], tmp_path / "vit")
    config = json.loads((folder / CONFIG).read_text())
    (folder / CONFIG).write_text(json.dumps(WAYS[way](config, trace)))
    key = "nn.vis.transformer.trust_remote_code"
    with pytest.raises(ConfigError, match=f"from elsewhere; .*set {key} to true"):
        iqn_blocks.build(vision_config(folder))
    assert not trace


def test_weights_alone_do_not_run_code(stranger, trace, folders):
    """load_weights and warm starts read tensors, whatever the configuration beside them says."""
    folder = change_recipe(stranger, lambda config: WAYS["auto_map"](config, trace))
    model, config, _ = CASES[stranger[1]]
    iqn_blocks.load_weights(iqn_blocks.build(config(folders[model])), folder)
    warm = {"nn": {"init_from_pretrained": str(folder)}}
    iqn_blocks.build(merge(config(folders[model]), warm))
    assert not trace


def test_a_hub_id_is_no_more_trusted(stranger, trace, monkeypatch):
    folder = change_recipe(stranger, lambda config: WAYS["auto_map"](config, trace))
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *_, **__: str(folder))
    with pytest.raises(CheckpointError, match="pass trust_remote_code=True"):
        iqn_blocks.from_pretrained("someone/racer")
    assert not trace


KEYS = {
    "auto_map": {"AutoModel": "m.Evil"},
    "attribute_map": {"zz": "auto_map"},
    "quantization_config": {"quant_method": "bitsandbytes"},
    "backbone": "resnet50",
    "architecture": "hf-hub:someone/model",
    "model_args": {"checkpoint_path": "x.pth"},
    "timm_kwargs": {"checkpoint_path": "x.pth"},
    "transformers_weights": "x.bin",
    "configuration_files": ["config.4.0.0.json"],
    "fusion_config": {"patch_embeddings": True},
    "_experts_implementation": "sonicmoe",
    "__class__": "x",
}


@pytest.mark.parametrize("key", KEYS)
def test_keys_at_any_depth(key):
    found = {key: KEYS[key]}
    for config in (found, {"text_config": found}, {"x": [{"y": (found,)}]}):
        assert leads_elsewhere(config) == key
    if not key.startswith("__"):
        assert leads_elsewhere({key: None}) == ""
    if isinstance(KEYS[key], dict | list):
        assert leads_elsewhere({key: type(KEYS[key])()}) == ""


def test_what_timm_may_be_told():
    for config in ({"architecture": "test_vit.r160_in1k"}, {"model_args": {"img_size": 224}}):
        assert leads_elsewhere({"x": config}) == ""
    for name in ("hf-hub:a/b", "local-dir:a", "a/b", "a\\b", ["test_vit"]):
        assert leads_elsewhere({"architecture": name}) == "architecture"
    for arguments in ({"img_size": 224, "pretrained": 1}, {"pretrained_cfg": {}}, ["img_size"]):
        assert leads_elsewhere({"model_args": arguments}) == "model_args"


def test_kernels_of_the_hub():
    """The whole model's attention is overruled; a part's is not, so that it must be PyTorch's."""
    assert leads_elsewhere({"_attn_implementation": "someone/kernel"}) == ""
    part = {"vision_config": {"_attn_implementation": "someone/kernel"}}
    assert leads_elsewhere(part) == "_attn_implementation"
    assert leads_elsewhere({"vision_config": {"_attn_implementation": "sdpa"}}) == ""


def test_weights_of_another_format(folders, tmp_path, trace):
    folder = shutil.copytree(folders["vit"], tmp_path / "vit")
    damage_config(folder, transformers_weights="pytorch_model.bin")
    with pytest.raises(ConfigError, match="whose configuration holds transformers_weights"):
        load_model(str(folder), "pixel_values")


def test_another_configuration_in_a_folder(folders, tmp_path, trace):
    folder = shutil.copytree(folders["vit"], tmp_path / "vit")
    shutil.copy(folder / CONFIG, folder / "config.4.0.0.json")
    damage_config(folder, configuration_files=["config.4.0.0.json"])
    with pytest.raises(ConfigError, match="whose configuration holds configuration_files"):
        load_model(str(folder), "pixel_values")


def test_no_model_of_transformers_gives_a_key_that_meaning():
    """Their own second names for keys lead to none of those that load something."""
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    kinds = [CONFIG_MAPPING[name] for name in tiny_models.VISION | tiny_models.TEXT]
    targets = {target for kind in kinds for target in kind.attribute_map.values()}
    assert targets  # GPT-2 has some
    assert not [name for name in targets if leads_elsewhere({name: "x"})]
