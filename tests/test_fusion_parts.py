"""Parts of the token networks on their own: pixels, tokens, trunks, where dropout acts."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import iqn_blocks
from iqn_blocks.blocks import (
    ConvTrunk,
    DenseTokens,
    FeatureTokens,
    MeanTrunk,
    MLPTrunk,
    PatchTokens,
    PatchVision,
    as_tokens,
)
from iqn_blocks.hf import PixelSpec, PixelValues
from tests.configs import merge
from tests.test_multimodal_grid import CONFIGS, placed

# Pixels: three channels of which each has its own statistics

SPEC = PixelSpec((2, 2), mean=(0.5, 0.25, 0.0), std=(0.5, 0.25, 2.0))


@pytest.mark.parametrize(
    ("value", "unit"), [(-1.0, 0.0), (0.0, 0.5), (0.5, 0.75), (1.0, 1.0), (7.0, 1.0), (-3.0, 0.0)]
)
def test_pixels_are_clamped_and_normalised(value, unit):
    expected = [(unit - 0.5) / 0.5, (unit - 0.25) / 0.25, unit / 2]
    for channels in (1, 3):
        out = PixelValues(SPEC, channels)(torch.full((1, channels, 5, 3), value), torch.float32)
        assert out.shape == (1, 3, 2, 2)
        torch.testing.assert_close(out[0, :, 0, 0], torch.tensor(expected))


@pytest.mark.parametrize(
    ("scaling", "byte", "unit"),
    [
        ("signed", 0, 0.0),
        ("signed", 128, 0.5),
        ("signed", 255, (255 - 128) / 256 + 0.5),
        ("unit", 0, 0.5),
        ("unit", 51, 0.6),
        ("unit", 255, 1.0),
    ],
)
def test_bytes_are_scaled_before(scaling, byte, unit):
    img = torch.full((1, 1, 4, 4), byte, dtype=torch.uint8)
    out = PixelValues(SPEC, 1, uint8_scaling=scaling)(img, torch.float32)
    torch.testing.assert_close(out[0, 2], torch.full((2, 2), unit / 2))


def test_pixels_are_resized_first():
    """Halving 4×4 samples between the two middle rows and columns of each 2×2 block."""
    img = torch.zeros(1, 1, 4, 4)
    img[0, 0, 0, :2] = torch.tensor([3.0, -1.0])  # mean of the block: (3 − 1 + 0 + 0) / 4
    out = PixelValues(PixelSpec((2, 2), (0.0,) * 3, (1.0,) * 3), 1)(img, torch.float32)
    torch.testing.assert_close(out[0, 0], torch.tensor([[0.75, 0.5], [0.5, 0.5]]))


def test_pixels_are_computed_in_full_precision():
    img = torch.rand(2, 3, 9, 9)
    values = PixelValues(SPEC, 3)
    assert torch.equal(values(img, torch.bfloat16), values(img, torch.float32).bfloat16())
    assert values(img.double(), torch.float64).dtype == torch.float64


def test_channels_of_pixels():
    with pytest.raises(ValueError, match="in_channels: got 4, accepted are 1"):
        PixelValues(SPEC, 4)


@pytest.mark.parametrize(
    ("processor", "size"),
    [
        ({"crop_size": {"height": 3, "width": 4}, "size": {"shortest_edge": 9}}, (3, 4)),
        ({"crop_size": 3, "size": 9}, (3, 3)),
        ({"size": {"height": 3, "width": 4}}, (3, 4)),
        ({"size": {"shortest_edge": 9}}, (9, 9)),
        ({"size": [3, 4]}, (3, 4)),
        ({}, (7, 8)),
    ],
)
def test_size_of_a_processor(processor, size):
    spec = PixelSpec.from_processor(processor, [7, 8])
    assert spec == (size, (0.5,) * 3, (0.5,) * 3)
    assert PixelSpec.from_processor(spec.to_processor(), None) == spec


def test_statistics_of_a_processor():
    found = PixelSpec.from_processor({"image_mean": 0.4, "image_std": [1, 2, 3]}, 5)
    assert found == ((5, 5), (0.4, 0.4, 0.4), (1.0, 2.0, 3.0))


# Tokens


def test_patches_come_row_by_row():
    patches = PatchTokens(1, (4, 6), 2, d_model=1)
    nn.init.constant_(patches.patch_embedding.weight, 0.25)  # the mean of a patch
    nn.init.zeros_(patches.patch_embedding.bias)
    img = torch.arange(24.0).view(1, 1, 4, 6)
    found = patches(img)[0, :, 0].tolist()
    assert found == [3.5, 5.5, 7.5, 15.5, 17.5, 19.5]
    assert patches.n_tokens == 6


def test_patches_that_do_not_fit():
    with pytest.raises(ValueError, match="patch_size: 4 does not divide the image, 4×6"):
        PatchVision(1, (4, 6), 4, 8, nn.Identity(), summary=True, out_dim=8)


def test_dense_tokens_cut_one_vector():
    tokens = DenseTokens(2, 3, 4)
    x = torch.randn(5, 2, dtype=torch.float64)
    expected = tokens.projection(x.float())
    for i in range(3):
        assert torch.equal(tokens(x)[:, i], expected[:, 4 * i : 4 * i + 4])


def test_feature_tokens_share_their_projection():
    tokens = FeatureTokens(2, 3)
    assert torch.equal(tokens.slot_embedding, torch.zeros(2, 3))
    nn.init.normal_(tokens.slot_embedding)
    out = tokens(torch.tensor([[2.0, -1.0]]))[0]
    weight, bias = tokens.projection.weight[:, 0], tokens.projection.bias
    torch.testing.assert_close(out[0], 2 * weight + bias + tokens.slot_embedding[0])
    torch.testing.assert_close(out[1], -weight + bias + tokens.slot_embedding[1])


def test_a_vector_is_one_token():
    assert as_tokens(torch.zeros(4, 3)).shape == (4, 1, 3)
    assert as_tokens(torch.zeros(4, 2, 3)).shape == (4, 2, 3)


# Trunks


def test_mean_trunk():
    tokens = torch.tensor([[[1.0, 2.0], [3.0, 6.0]]])
    assert MeanTrunk()(tokens).tolist() == [[2.0, 4.0]]


@pytest.mark.parametrize("kernel_size", [1, 2, 3, 4])
def test_conv_trunk_pads_by_half_a_kernel(kernel_size):
    trunk = ConvTrunk(3, 1, hidden_channels=(1,), kernel_size=kernel_size)
    nn.init.ones_(trunk.convs[0].weight)
    nn.init.zeros_(trunk.convs[0].bias)
    tokens = torch.ones(1, 3, 1)
    padding = kernel_size // 2
    ones = [0] * padding + [1] * 3 + [0] * padding
    sums = [sum(ones[i : i + kernel_size]) for i in range(len(ones) - kernel_size + 1)]
    torch.testing.assert_close(trunk(tokens), torch.tensor([[sum(sums) / len(sums)]]))


def test_mlp_trunk_of_one_layer_is_a_linear():
    trunk = MLPTrunk(3, 2, hidden_dim=9, n_layers=1)
    tokens = torch.randn(4, 3, 2)
    assert torch.equal(trunk(tokens), trunk.output(tokens.flatten(1)))
    assert len(trunk.hidden) == 0


# Dropout, and networks of every kind in both modes

DROPOUTS = {
    "vis.transformer.dropout": ("sequence+dense-native-patch_tokens-linear", "vision.encoder"),
    "vis.transformer.hidden_dropout_prob": ("unified-vit-summary-linear", "vision.dropout"),
    "encoder.transformer.dropout": (
        "unified-none-summary-native_transformer",
        "trunk.encoder",
    ),
    "encoder.fusion_mlp.dropout": ("unified-none-summary-mlp", "trunk.dropout"),
    "encoder.fusion_cnn.dropout": ("unified-none-summary-cnn", "trunk.dropout"),
    "encoder.hf_embedding.hidden_dropout_prob": (
        "unified-none-summary-hf_embedding",
        "trunk.dropout",
    ),
    "encoder.transformer.hidden_dropout_prob": ("unified-none-summary-hf_block", "trunk.dropout"),
}


def build_with(config, key, value):
    block = value
    for part in reversed(key.split(".")):
        block = {part: block}
    return iqn_blocks.build(merge(config, {"nn": block}), strict=True)


@pytest.mark.parametrize("key", DROPOUTS)
def test_each_dropout_acts_where_it_should(key, folders):
    name, place = DROPOUTS[key]
    config = placed(CONFIGS[name], folders)
    for block, layers in (("vis", 1), ("encoder", 1)):
        transformer = config["nn"][block].get("transformer", {})
        if "n_layers" in transformer:
            config["nn"][block]["transformer"] = {"d_model": 8, **transformer, "n_layers": layers}
    if "fusion_mlp" in config["nn"]["encoder"]:
        config["nn"]["encoder"]["fusion_mlp"] = {"n_layers": 2, "hidden_dim": 7}
    net = build_with(config, key, 0.5)
    found = {
        module_name
        for module_name, module in net.named_modules()
        if isinstance(module, nn.Dropout | nn.Dropout1d) and module.p == 0.5
    }
    assert found and all(n.startswith(f"encoder.{place}") for n in found)
    inputs, tau = net.example_inputs(3), torch.rand(6, 1)
    assert not torch.equal(net(*inputs, tau=tau)[0], net(*inputs, tau=tau)[0])
    net.eval()
    torch.testing.assert_close(net(*inputs, tau=tau)[0], net(*inputs, tau=tau)[0], atol=0, rtol=0)
