"""Image stems against their equations, their readouts, and what they refuse."""

from __future__ import annotations

from functools import partial

import pytest
import torch

import iqn_blocks
from iqn_blocks import ConfigError, blocks, registry
from tests.blocks.compare import compare_both
from tests.configs import merge, tiny
from tests.reference.parts.hadamax import hadamax
from tests.reference.parts.impala import impala, impoola
from tests.reference.parts.minatar import minatar
from tests.reference.parts.nature import nature

POOLED = [("flatten", 1), ("max", 2), ("avg", 2), ("tokens", 1)]


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def images(channels, size, generator):
    return [torch.rand((2, channels, *size), generator=generator, dtype=torch.float64) * 2 - 1]


@pytest.mark.parametrize(("readout", "size"), POOLED)
@pytest.mark.parametrize(
    ("stem", "equation", "image_size"),
    [
        (blocks.NatureStem, nature, (44, 53)),
        (blocks.MinAtarStem, minatar, (10, 11)),
        (blocks.HadamaxStem, hadamax, (17, 22)),
    ],
)
def test_stem_is_its_equation(stem, equation, image_size, readout, size):
    part = stem(3, image_size, readout=readout, readout_size=size)
    compare_both(part, partial(equation, kind=readout, size=size), partial(images, 3, image_size))


@pytest.mark.parametrize("layer_norm", [False, True])
@pytest.mark.parametrize(("readout", "size"), POOLED)
def test_impala_is_its_equation(readout, size, layer_norm):
    part = blocks.ImpalaStem(
        2, (17, 22), width=1, layer_norm=layer_norm, readout=readout, readout_size=size
    )
    equation = partial(impala, width=1, layer_norm=layer_norm, kind=readout, size=size)
    compare_both(part, equation, partial(images, 2, (17, 22)))


@pytest.mark.parametrize("layer_norm", [False, True])
def test_impoola_is_the_mean_of_impalas_map(layer_norm):
    part = blocks.impoola_stem(2, (17, 22), width=1, layer_norm=layer_norm)
    assert part.out_dim == 32
    equation = partial(impoola, width=1, layer_norm=layer_norm)
    compare_both(part, equation, partial(images, 2, (17, 22)))


@pytest.mark.parametrize(
    ("stem", "features"),
    [
        # 84: (84 − 8)/4 + 1 = 20, (20 − 4)/2 + 1 = 9, 9 − 2 = 7
        (blocks.NatureStem, 64 * 7 * 7),
        # 84 = 4·21, ⌈21/2⌉ = 11
        (blocks.HadamaxStem, 64 * 11 * 11),
        (blocks.MinAtarStem, 16 * 82 * 82),
        (blocks.impoola_stem, 64),
    ],
)
def test_features_of_an_atari_frame(stem, features):
    assert stem(4, (84, 84)).out_dim == features


@pytest.mark.parametrize(
    ("stem", "least", "title"),
    [(blocks.NatureStem, 36, "DQN network"), (blocks.MinAtarStem, 3, "MinAtar stem")],
)
def test_smallest_image(stem, least, title):
    part = stem(1, (least, least))
    assert part(torch.zeros(1, 1, least, least)).shape == (1, part.out_dim)
    message = (
        rf"image_size: found {least} x {least - 1} \(width x height\), too small for the {title}; "
        rf"accepted: at least {least} x {least}; enlarge the image"
    )
    with pytest.raises(ValueError, match=message):
        stem(1, (least - 1, least))


def test_images_of_another_size_than_a_layer_norm_was_made_for():
    stem = blocks.ImpalaStem(1, (16, 16), width=1, layer_norm=True)
    with pytest.raises(RuntimeError, match="normalized_shape"):
        stem(torch.zeros(1, 1, 24, 16))


@pytest.mark.parametrize("options", [{}, {"layer_norm": True}], ids=["plain", "layer_norm"])
@pytest.mark.parametrize("name", registry.list_parts("stem"))
def test_one_sample_at_a_time_under_vmap(name, options):
    part = registry.find_part("stem", name)
    if not options.keys() <= registry.options_of(part, "stem").keys():
        options = {}
    net = iqn_blocks.build(with_stem({"image_size": {"height": 36, "width": 37}, name: options}))
    img, floats = net.example_inputs(3)
    tau = torch.rand(4, 1)
    expected = net.quantiles(img, floats, 4, tau)[0]
    found = torch.func.vmap(lambda i, f: net(i[None], f[None], 4, tau)[0])(img, floats)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    parameters = dict(net.named_parameters())

    def total(parameters, i, f):
        arguments = (i[None], f[None], 4, tau)
        return torch.func.functional_call(net, parameters, arguments)[0].square().sum()

    of_samples = torch.func.vmap(torch.func.grad(total), (None, 0, 0))(parameters, img, floats)
    together = torch.autograd.grad(expected.square().sum(), list(parameters.values()))
    for gradient, expected in zip(of_samples.values(), together, strict=True):
        torch.testing.assert_close(gradient.sum(0), expected, rtol=1e-3, atol=1e-5)


TOKENS = (
    {"fusion_mode": "unified"},
    {
        "fusion_mode": "post_concat",
        "encoder": {"post_concat_layout": "token_sequence"},
    },
)
VECTORS = {}, {"fusion_mode": "post_concat"}, {"fusion_mode": "vision_transformer"}


def with_stem(options, **nn):
    base = tiny(nn={"vis": options})
    if "fusion_mode" in nn:
        del base["nn"]["float"]
        nn = merge(nn, {"encoder": {"transformer": {"d_model": 8, "n_heads": 2, "n_layers": 1}}})
    return merge(base, {"nn": nn})


@pytest.mark.parametrize("nn", TOKENS)
@pytest.mark.parametrize("stem", ["conv", "hadamax", "impala", "minatar", "nature"])
def test_a_map_as_tokens(stem, nn):
    image = {"image_size": {"height": 36, "width": 44}}
    net = iqn_blocks.build(with_stem({**image, stem: {"readout": "tokens"}}, **nn))
    vision = net.encoder.vision
    tokens = vision(torch.rand(2, 1, 36, 44))
    # One token more: the floats.
    assert tokens.shape == (2, vision.n_tokens, 8)
    assert net.encoder.position.shape == (1, vision.n_tokens + 1, 8)
    # A token is a position: what is far from it does not reach the first one.
    img = torch.rand(1, 1, 36, 44, requires_grad=True)
    reach = torch.autograd.grad(vision(img)[0, 0].sum(), img)[0][0, 0]
    assert reach[0].any()
    if stem in ("conv", "minatar"):  # others see all of so small an image
        assert not reach[-1].any()
    q, _ = net(*net.example_inputs(2))
    q.sum().backward()
    assert all(p.grad is not None for p in net.parameters())


@pytest.mark.parametrize("nn", VECTORS)
def test_tokens_where_one_vector_is_wanted(nn):
    message = (
        r"nn\.vis\.impala: found a stem that gives tokens, where the network takes one vector; "
        r"accepted: the readout flatten, max or avg; .*fusion_mode: unified"
    )
    with pytest.raises(ConfigError, match=message):
        iqn_blocks.build(with_stem({"impala": {"width": 1, "readout": "tokens"}}, **nn))
