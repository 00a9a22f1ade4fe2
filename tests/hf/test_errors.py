"""Pretrained models that cannot be used: one error each, with the key, the path and the way out."""

from __future__ import annotations

import json
import os
import shutil
import time

import pytest
import torch
from safetensors.torch import load_file, save_file

import iqn_blocks
from iqn_blocks import ConfigError
from iqn_blocks.hf import load_model
from iqn_blocks.hf.loading import as_config_error
from tests import tiny_models
from tests.configs import merge, tiny
from tests.hf.test_models import trunk_config, vision_config

VISION_KEY = "nn.vis.transformer.model_name_or_path"
TRUNK_KEY = "nn.encoder.hf_embedding.model_name_or_path"


@pytest.fixture
def vit(folders, tmp_path):
    """A copy that a test may damage."""
    return shutil.copytree(folders["vit"], tmp_path / "vit")


def refused(config, *texts):
    """Building fails with one ConfigError that holds every text."""
    with pytest.raises(ConfigError) as caught:
        iqn_blocks.build(config)
    message = str(caught.value)
    assert "\n" not in message
    for text in texts:
        assert text in message, message
    return message


def damage_config(folder, **keys):
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | keys))


# Paths


@pytest.mark.parametrize("path", ["/no/such/folder", "./vit", "a/b/c", "~/vit", "a\\b"])
@pytest.mark.parametrize(
    ("config", "key"), [(vision_config, VISION_KEY), (trunk_config, TRUNK_KEY)]
)
def test_no_such_folder(path, config, key):
    refused(config(path), f"{key}: found {path!r}", "no such folder", "a hub id (name, or owner")


def test_a_path_that_is_too_long_for_a_file():
    path = "x" * 100_000
    message = refused(
        vision_config(path), f"{VISION_KEY}: found 'xxx", "no such folder", "correct the path"
    )
    assert len(message) < 2000
    warm = merge(tiny(), {"nn": {"init_from_pretrained": path}})
    with pytest.raises(iqn_blocks.CheckpointError, match="set a path that exists") as error:
        iqn_blocks.build(warm)
    assert len(str(error.value)) < 2000


def test_a_file_instead_of_a_folder(vit):
    refused(vision_config(vit / "config.json"), VISION_KEY, "config.json'", "no such folder")


def test_a_folder_without_a_configuration(tmp_path):
    refused(vision_config(tmp_path), f"{VISION_KEY}: found '{tmp_path}'", "without config.json")


@pytest.mark.parametrize("block", ["hf_embedding", "transformer"])
def test_the_key_is_where_the_path_stands(block):
    encoder = {"transformer": {"d_model": 6}, "fusion_encoder": "hf_embedding"}
    encoder = merge(encoder, {block: {"model_name_or_path": "/no/folder"}})
    config = trunk_config("")
    config["nn"]["encoder"] = encoder
    refused(config, f"nn.encoder.{block}.model_name_or_path: found '/no/folder'")


# Configurations


@pytest.mark.parametrize(
    "text",
    ["{", "[]", '{"model_type": "no_such_model"}', '{"hidden_size": 8}'],
    ids=["not JSON", "no object", "unknown model", "no model"],
)
def test_an_unreadable_configuration(vit, text):
    (vit / "config.json").write_text(text)
    refused(vision_config(vit), f"{VISION_KEY}: found '{vit}'", "config.json cannot be read (")


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("{", "preprocessor_config.json cannot be read (JSONDecodeError"),
        ("[1]", "preprocessor_config.json cannot be read (ValueError: it holds list)"),
        ('{"size": "large"}', "no image size of 1 to 4096 pixels can be read from 'large'"),
        (
            '{"size": {"longest_edge": 9}}',
            "no image size of 1 to 4096 pixels can be read from {'longest_edge': 9}",
        ),
        ('{"size": [16, 0]}', "no image size of 1 to 4096 pixels can be read from [16, 0]"),
        ('{"size": [1, 4097]}', "no image size of 1 to 4096 pixels can be read from [1, 4097]"),
        ('{"size": true}', "no image size of 1 to 4096 pixels can be read from True"),
        ('{"image_mean": [0.5]}', "image_mean: expected three numbers, found [0.5]"),
        ('{"image_mean": [0.5, NaN, 0]}', "image_mean: expected three numbers, found [0.5, nan"),
        (
            f'{{"image_mean": [0, 0, {10**400}]}}',
            "image_mean: expected three numbers, found [0, 0, 1",
        ),
        ('{"image_std": [0.5, 0, 1]}', "image_std: expected three numbers above 0, found [0.5, 0"),
    ],
)
def test_an_unusable_processor(vit, text, found):
    (vit / "preprocessor_config.json").write_text(text)
    refused(vision_config(vit), f"{VISION_KEY}: found '{vit}'", found)


# Weights


def test_no_weights(vit):
    (vit / "model.safetensors").unlink()
    refused(vision_config(vit), f"{VISION_KEY}: found '{vit}'", "accepted: model.safetensors")


def test_pickled_weights_are_not_read(vit):
    weights = vit / "model.safetensors"
    torch.save(load_file(weights), vit / "pytorch_model.bin")
    weights.unlink()
    refused(vision_config(vit), VISION_KEY, "weights in other files are not read")


def split(folder, files):
    """The weights in other files, and the index that names them."""
    weights = folder / "model.safetensors"
    tensors, half = load_file(weights), {}
    weights.unlink()
    for i, name in enumerate(tensors):
        half.setdefault(files[i % len(files)], {})[name] = tensors[name]
    index = {name: file for file, part in half.items() for name in part}
    text = json.dumps({"metadata": {}, "weight_map": index})
    (folder / "model.safetensors.index.json").write_text(text)
    return half


def test_weights_in_several_files(vit, folders):
    for file, tensors in split(vit, ["a.safetensors", "b.safetensors"]).items():
        save_file(tensors, vit / file, metadata={"format": "pt"})
    found, expected = (load_model(str(f), "pixel_values") for f in (vit, folders["vit"]))
    assert found.state_dict().keys() == expected.state_dict().keys()
    assert all(map(torch.equal, found.state_dict().values(), expected.state_dict().values()))


def test_an_index_that_names_pickled_weights(vit):
    for file, tensors in split(vit, ["evil.bin"]).items():
        torch.save(tensors, vit / file)
    refused(vision_config(vit), VISION_KEY, "SafetensorError", "other files are not read")


@pytest.mark.parametrize("file", ["../elsewhere.safetensors", "/dev/zero"])
def test_an_index_that_leads_out_of_the_folder(vit, folders, file):
    shutil.copy(f"{folders['vit']}/model.safetensors", vit.parent / "elsewhere.safetensors")
    split(vit, [file])
    refused(vision_config(vit), VISION_KEY, f"{file} is no file in that folder")


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_pipe_is_no_file(vit, name):
    (vit / name).unlink()
    os.mkfifo(vit / name)
    refused(vision_config(vit), VISION_KEY, name)


def test_damaged_weights(vit):
    weights = vit / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    refused(vision_config(vit), f"{VISION_KEY}: found '{vit}'", "its weights cannot be loaded")


def test_missing_weights(vit):
    file = vit / "model.safetensors"
    kept = {name: x for name, x in load_file(file).items() if "cls_token" not in name}
    save_file(kept, file, metadata={"format": "pt"})
    refused(vision_config(vit), "lack 1 of the parameters of ViTModel: embeddings.cls_token;")


def test_weights_of_another_shape(vit):
    damage_config(vit, intermediate_size=30)
    message = refused(vision_config(vit), "lack 6 of the parameters", "(of another shape)", ", …")
    assert message.count("of another shape") == 3


@pytest.mark.parametrize(
    ("keys", "text"),
    [
        (
            {"num_hidden_layers": 10**9},
            "num_hidden_layers: expected at most 131072, found 10000000",
        ),
        ({"num_labels": 10**9}, "num_labels: expected at most 131072, found 1000000000"),
        ({"num_hidden_layers": 10**5}, "num_hidden_layers: expected at most 1000, found 100000"),
        ({"intermediate_size": 10**10}, "mlp.fc1.weight is (10000000000, 16), too large for what"),
        ({"image_size": 10**9}, "position_embeddings is (1, 15625000000000001, 16), too large"),
    ],
)
def test_sizes_that_a_configuration_only_claims(vit, keys, text):
    damage_config(vit, **keys)
    start = time.process_time()
    refused(vision_config(vit), VISION_KEY, text)
    assert time.process_time() - start < 1


@pytest.mark.parametrize("found", ["x", {"input_size": 5}, {"mean": 3}])
def test_what_a_model_says_of_its_pixels(tmp_path, found):
    from transformers import ResNetConfig, ResNetModel

    sizes = {"embedding_size": 8, "hidden_sizes": [8], "depths": [1]}
    ResNetModel(ResNetConfig(**sizes, pretrained_cfg=found)).save_pretrained(tmp_path)
    by_model = {"nn": {"vis": {"transformer": {"missing_processor": "model"}}}}
    message = "its preprocessor_config.json, or its config.json without one, does not say how to"
    refused(merge(vision_config(tmp_path), by_model), VISION_KEY, message)


# Models for something else


def test_a_model_without_pixel_values(folders):
    refused(
        vision_config(folders["bert"]),
        f"{VISION_KEY}: found '{folders['bert']}' (BertModel), which takes no pixel_values",
        "such as ViT",
    )


def test_a_model_without_inputs_embeds(folders):
    refused(
        trunk_config(folders["vit"]),
        f"{TRUNK_KEY}: found '{folders['vit']}' (ViTModel), which takes no inputs_embeds",
        "such as BERT",
    )


def test_a_model_that_needs_more_than_pixels(tmp_path):
    from transformers import CLIPConfig, CLIPModel

    small = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1}
    small |= {"num_attention_heads": 2, "projection_dim": 8}
    text = {**small, "vocab_size": 9, "eos_token_id": 2, "bos_token_id": 1, "pad_token_id": 0}
    image = {**small, "image_size": 16, "patch_size": 8}
    CLIPModel(CLIPConfig(text_config=text, vision_config=image)).save_pretrained(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text('{"size": 16}')
    refused(
        vision_config(tmp_path), f"'{tmp_path}' (CLIPModel), which does not run on pixel_values"
    )


@pytest.mark.parametrize("name", tiny_models.TEXT)
def test_more_tokens_than_positions(name, folders):
    """All have 32 positions; those of RoBERTa are counted from behind the padding position."""
    tokens = {"unified_float_tokens": 33}
    path = folders[name]
    config = merge(trunk_config(path), {"nn": {"encoder": {"transformer": tokens}}})
    refused(config, f"{TRUNK_KEY}: found '{path}'", "32 positions", "33 tokens", "at most 32")
    config["nn"]["encoder"]["transformer"]["unified_float_tokens"] = 32
    net = iqn_blocks.build(config).eval()
    assert net(*net.example_inputs(2), 4)[0].shape == (8, 3)


def test_the_number_of_channels(folders):
    for channels in (1, 3):
        change = {"nn": {"vis": {"in_channels": channels}}}
        iqn_blocks.build(merge(vision_config(folders["vit"]), change))
    change = {"nn": {"vis": {"in_channels": 2}}}
    refused(merge(vision_config(folders["vit"]), change), "nn.vis.in_channels: found 2")


def test_a_model_of_timm_without_timm(tmp_path, monkeypatch):
    from transformers.utils import import_utils

    missing = (lambda: False, "{0} needs the timm library")
    monkeypatch.setitem(import_utils.BACKENDS_MAPPING, "timm", missing)
    (tmp_path / "config.json").write_text('{"architecture": "test_vit", "pretrained_cfg": {}}')
    refused(vision_config(tmp_path), VISION_KEY, "pip install 'iqn-blocks[timm]'")


def test_a_torchvision_that_does_not_fit():
    """transformers names the class, and keeps what its import raised as the cause."""
    message = "Could not import module 'ViTConfig'"
    with (
        pytest.raises(ConfigError, match=r"\(RuntimeError: operator torchvision::nms") as error,
        as_config_error("path", "x", "it cannot be read", "a known model"),
    ):
        raise ImportError(message) from RuntimeError("operator torchvision::nms does not exist")
    way_out = f"install a torchvision that is built for PyTorch {torch.__version__}"
    assert str(error.value).endswith(f"; accepted: a known model; {way_out}")
