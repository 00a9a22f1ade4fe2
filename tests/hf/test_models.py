"""Pretrained models inside networks: what of them is kept, and what they are fed with."""

from __future__ import annotations

import copy
import json
import pickle
import subprocess
import sys

import pytest
import torch
from torch import nn

import iqn_blocks
from iqn_blocks.assembly import assemble
from iqn_blocks.hf import HFVisionTokens, Models, PixelSpec, PixelValues, load_model
from iqn_blocks.hf.models import recipes
from tests import tiny_models
from tests.configs import merge

PIXELS = PixelValues(PixelSpec((16, 16)), in_channels=1)


def vision_config(path, **change):
    """An hf_vision network around a model."""
    transformer = {"use_hf_backbone": True, "model_name_or_path": str(path), "d_model": 6}
    base = {
        "n_actions": 3,
        "float_input_dim": 2,
        "nn": {
            "vis": {"transformer": {**transformer, "n_layers": 0}},
            "float": {"mlp": {"hidden_dim": 5}},
            "iqn": {"embedding_dimension": 4, "n": 4},
            "decoder": {"dense_hidden_dimension": 8},
        },
    }
    return merge(base, change)


def trunk_config(path, **change):
    """A float-only network with a model as trunk."""
    base = {
        "n_actions": 3,
        "float_input_dim": 2,
        "nn": {
            "fusion_mode": "unified",
            "vis": {"no_image": True},
            "encoder": {
                "fusion_encoder": "hf_embedding",
                "transformer": {"d_model": 6, "unified_float_tokens": 4},
                "hf_embedding": {"model_name_or_path": str(path)},
            },
            "iqn": {"embedding_dimension": 4, "n": 4},
            "decoder": {"dense_hidden_dimension": 8},
        },
    }
    return merge(base, change)


def network(name, folders):
    torch.manual_seed(0)
    config = vision_config if name in tiny_models.VISION else trunk_config
    return iqn_blocks.build(config(folders[name]))


def part(net):
    """The module that holds the HF model."""
    return net.encoder.vision if hasattr(net.encoder, "float_projection") else net.encoder.trunk


@pytest.fixture(params=[*tiny_models.VISION, *tiny_models.TEXT])
def name(request):
    return request.param


def test_building_without_gradients_gives_the_same_network(folders):
    name = next(iter(tiny_models.VISION))
    with torch.no_grad():
        quiet = network(name, folders)
    assert quiet.state_dict().keys() == network(name, folders).state_dict().keys()
    assert all(parameter.requires_grad for parameter in quiet.parameters())


def test_transformers_is_imported_with_the_first_model_only():
    code = "import sys, iqn_blocks, iqn_blocks.blocks; print('transformers' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "False"


def test_every_parameter_receives_a_gradient(name, folders):
    net = network(name, folders)
    net(*net.example_inputs(3), 4)[0].square().sum().backward()
    assert [n for n, p in net.named_parameters() if p.grad is None] == []
    names = " ".join(net.state_dict())
    for gone in ("pooler", "mask_token", "word_embeddings", "wte", "embed_tokens"):
        assert gone not in names


def test_what_is_left_out_does_not_change_the_tokens(name, folders):
    net, model = network(name, folders).eval(), tiny_models.load(folders[name])
    own = part(net).backbone
    if name in tiny_models.VISION:
        arguments = {"pixel_values": torch.randn(2, 3, 16, 24)}
        if name in ("vit", "swin"):
            arguments["interpolate_pos_encoding"] = True
    else:
        arguments = {"inputs_embeds": torch.randn(2, 4, model.config.hidden_size)}
    with torch.no_grad():
        found, expected = own(**arguments), model(**arguments)
    torch.testing.assert_close(found.last_hidden_state, expected.last_hidden_state)


def test_attention_is_sdpa_where_there_is_any(name, folders):
    attention = part(network(name, folders)).backbone.config._attn_implementation
    assert attention == ("eager" if name == "convnext" else "sdpa")  # which has no attention


def test_a_model_starts_in_training_mode_and_follows(name, folders):
    net = network(name, folders)
    assert all(module.training for module in net.modules())
    assert not any(module.training for module in net.eval().modules())


def test_own_dropout_stays_as_the_model_says(tmp_path, monkeypatch):
    plain = tiny_models.VISION["vit"]()
    plain.hidden_dropout_prob = 0.5
    monkeypatch.setitem(tiny_models.VISION, "vit", lambda: plain)
    net = iqn_blocks.build(vision_config(tiny_models.save("vit", tmp_path)))
    inputs, tau = net.example_inputs(2), torch.rand(8, 1)
    assert not torch.equal(net(*inputs, tau=tau)[0], net(*inputs, tau=tau)[0])
    net.eval()
    assert torch.equal(net(*inputs, tau=tau)[0], net(*inputs, tau=tau)[0])


def test_weights_saved_in_another_dtype(tmp_path):
    folder = tiny_models.save("vit", tmp_path)
    tiny_models.load(folder).bfloat16().save_pretrained(folder)
    net = iqn_blocks.build(vision_config(folder))
    assert {p.dtype for p in net.parameters()} == {torch.float32}


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("batch", [0, 1, 3])
def test_dtypes_and_batches(name, folders, dtype, batch):
    net = network(name, folders).to(dtype).eval()
    q, tau = net(*net.example_inputs(batch), 4)
    assert q.shape == (4 * batch, 3) and q.dtype == dtype
    assert tau.dtype == torch.promote_types(dtype, torch.float32)
    q.sum().backward()


def test_copies_and_pickles(name, folders):
    net = network(name, folders).eval()
    inputs, tau = net.example_inputs(2), torch.rand(8, 1)
    expected = net(*inputs, tau=tau)[0]
    for twin in (copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
        assert torch.equal(twin(*inputs, tau=tau)[0], expected)


def test_a_recipe_rebuilds_the_structure(name, folders):
    net = network(name, folders)
    kept = json.loads(json.dumps(recipes(net.encoder)))
    assert list(kept) == ["vision" if name in tiny_models.VISION else "trunk"]
    assert folders[name] not in str(kept)
    config = net.config.to_dict()
    for block in (
        config["nn"]["vis"].get("transformer", {}),
        config["nn"]["encoder"]["hf_embedding"],
    ):
        block["model_name_or_path"] = "not/there"
    twin = assemble(iqn_blocks.Config.model_validate(config), Models(kept))
    twin.load_state_dict(net.state_dict())
    inputs, tau = net.example_inputs(2), torch.rand(8, 1)
    assert torch.equal(twin.eval()(*inputs, tau=tau)[0], net.eval()(*inputs, tau=tau)[0])


# Tokens and positions


def test_tokens_of_a_feature_map_are_its_positions(folders):
    model = load_model(folders["convnext"], "pixel_values")
    vision = HFVisionTokens(model, PIXELS, nn.Identity(), d_model=16, out_dim=16).eval()
    img = torch.rand(2, 1, 9, 9)
    tokens, features = vision(img), model(pixel_values=PIXELS(img, torch.float32)).last_hidden_state
    assert tokens.shape == (2, vision.n_tokens, 16) and features.shape == (2, 16, 2, 2)
    assert torch.equal(tokens[:, 1], features[:, :, 0, 1])
    assert not vision.has_class_token
    torch.testing.assert_close(vision.summary(tokens), features.mean((2, 3)))


@pytest.mark.parametrize(("name", "has"), [("vit", True), ("dinov2", True), ("swin", False)])
def test_summary(name, has, folders):
    model = load_model(folders[name], "pixel_values")
    for kind, first in (("auto", has), ("first", True), ("mean", False)):
        vision = HFVisionTokens(
            model, PIXELS, nn.Identity(), d_model=16, out_dim=16, summary_token=kind
        )
        tokens = torch.randn(2, vision.n_tokens, vision.hidden_dim)
        assert vision.has_class_token is has
        assert torch.equal(vision.summary(tokens), tokens[:, 0] if first else tokens.mean(1))
    with pytest.raises(ValueError, match="summary_token: got 'last', accepted are 'auto', 'firs"):
        HFVisionTokens(model, PIXELS, nn.Identity(), d_model=16, out_dim=16, summary_token="last")


@pytest.mark.parametrize("name", ["vit", "dinov2"])
@pytest.mark.parametrize("size", [(24, 24), (16, 32), (17, 29)])
def test_positions_are_interpolated_to_the_pixels(name, size, folders):
    model = load_model(folders[name], "pixel_values").eval()  # made for 16×16 and patches of 8
    pixels = PixelValues(PixelSpec(size), in_channels=3)
    vision = HFVisionTokens(model, pixels, nn.Identity(), d_model=16, out_dim=16).eval()
    assert vision.n_tokens == 1 + (size[0] // 8) * (size[1] // 8)
    img = torch.rand(2, 3, 20, 20)
    expected = model(
        pixel_values=pixels(img, torch.float32),
        **({"interpolate_pos_encoding": True} if name == "vit" else {}),
    )
    assert torch.equal(vision.tokens(img), expected.last_hidden_state)


def test_a_patch_size_that_does_not_divide_the_pixels(tmp_path):
    from transformers import Dinov2Config, Dinov2Model

    config = Dinov2Config(
        hidden_size=8, num_hidden_layers=1, num_attention_heads=2, image_size=42, patch_size=14
    )
    Dinov2Model(config).save_pretrained(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text('{"crop_size": {"height": 30, "width": 30}}')
    net = iqn_blocks.build(vision_config(tmp_path))
    tokens = net.encoder.vision.tokens(torch.rand(2, 1, 50, 40))
    assert tokens.shape == (2, 1 + 2 * 2, 8)


def test_any_frame_size_in_hf_vision_alone(folders):
    net = network("vit", folders).eval()
    floats = torch.zeros(2, 2)
    for side in (4, 16, 300):
        assert net(torch.rand(2, 1, side, side + 1), floats)[0].shape == (8, 3)
    fused = merge(vision_config(folders["vit"]), {"nn": {"fusion_mode": "unified"}})
    del fused["nn"]["float"], fused["nn"]["vis"]["transformer"]["n_layers"]
    fused["nn"]["vis"]["image_size"] = {"height": 8, "width": 9}
    fused["nn"]["encoder"] = {"transformer": {"d_model": 6, "n_layers": 0}}
    del fused["nn"]["vis"]["transformer"]["d_model"]
    net = iqn_blocks.build(fused).eval()
    assert net(torch.rand(2, 1, 8, 9), floats)[0].shape == (8, 3)
    with pytest.raises(ValueError, match=r"img: expected shape \(B, 1, 8, 9\).*\(2, 1, 9, 9\)"):
        net(torch.rand(2, 1, 9, 9), floats)
