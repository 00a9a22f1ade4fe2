"""Every part of every slot, as the registry lists them: shapes, gradients, compile, export, saving.

A part is tested here the day it is registered. What a slot needs to get its part into a small
configuration is in :data:`PLACES`; a part that needs more than its name has a line in
:data:`OPTIONS`. At the end each part meets each topology that has its slot.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, get_args

import pytest
import torch

import iqn_blocks
from iqn_blocks import IQN, list_parts
from iqn_blocks.config import parse
from iqn_blocks.registry import Slot, find_part, options_of
from tests.configs import merge, tiny, tiny_float, tiny_image
from tests.grid.test_multimodal import placed
from tests.network.test_compile import assert_equal, run

Config = dict[str, Any]
TOKENS: Config = {
    "fusion_mode": "unified",
    "encoder": {"transformer": {"d_model": 8, "n_heads": 2, "n_layers": 1}},
}
HF_VIT: Config = {"use_hf_backbone": True, "model_name_or_path": "vit", "d_model": 8, "n_heads": 2}
NARROW: Config = {"hidden_dim": 8}

# Options that make a part small, or that it cannot do without.
OPTIONS: Mapping[tuple[Slot, str], Config] = {
    ("stem", "hadamax"): {"readout": "avg", "readout_size": 1},
    ("stem", "impala"): {"width": 1, "readout": "max", "readout_size": 2},
    ("stem", "impoola"): {"width": 1},
    ("stem", "minatar"): {"readout": "avg", "readout_size": 2},
    ("trunk", "mlp"): NARROW,
    ("trunk", "cnn"): {"hidden_channels": [6, 4]},
    ("trunk", "hf_embedding"): {"model_name_or_path": "bert"},
    ("trunk", "native_transformer"): {"n_layers": 1, "n_heads": 2},
    ("mixer", "film"): {"phi_dim": 6},
    ("head", "transformer"): {"d_model": 4, "n_heads": 2, **NARROW},
    ("head", "block"): {"n_layers": 1, "n_heads": 2, **NARROW},
    ("head", "monotone"): {"n_levels": 4, **NARROW},
    **{("head", name): NARROW for name in ("mlp", "simba", "simba_v2")},
    **{("floats", name): NARROW for name in ("mlp", "simba", "simba_v2")},
}


def _topology(part: Config) -> Config:
    """The library's are chosen by what they are made of."""
    if "hf_vision" in part:
        config = tiny(nn={"vis": {"transformer": HF_VIT}})
        config["nn"]["vis"]["image_size"] = {"width": 16, "height": 12}
    elif "multimodal" in part:
        config = _without_float_mlp(nn=TOKENS)
    elif "classic" in part:
        config = tiny()
    else:
        config = tiny(nn={"topology": part})
    (name,) = part
    assert iqn_blocks.route(config) == name
    return config


def _floats(part: Config) -> Config:
    config = tiny_float()
    config["nn"]["float"] = part
    return config


def _trunk(part: Config) -> Config:
    config = _without_float_mlp(nn=TOKENS)
    config["nn"]["encoder"] = {"fusion_encoder": part, "transformer": {"d_model": 8}}
    return config


def _head(part: Config) -> Config:
    """The dueling that all of them allow."""
    decoder = {"dueling": "at_midpoints", "advantage": part, "value": part}
    config = tiny_float(n_actions_per_block=2, nn={"decoder": decoder})
    del config["nn"]["decoder"]["dense_hidden_dimension"]
    return config


def _without_float_mlp(**change: Any) -> Config:
    config = tiny()
    del config["nn"]["float"]
    return merge(config, change)


PLACES: Mapping[Slot, Callable[[Config], Config]] = {
    "topology": _topology,
    "stem": lambda part: tiny(nn={"vis": {"image_size": {"width": 36, "height": 36}, **part}}),
    "floats": _floats,
    "trunk": _trunk,
    "core": lambda part: tiny_float(nn={"core": part}),
    "mixer": lambda part: tiny_float(nn={"iqn": {"mixer": part}}),
    "head": _head,
}
PARTS = [(slot, name) for slot in get_args(Slot) for name in list_parts(slot)]
every_part = pytest.mark.parametrize(("slot", "name"), PARTS)


@pytest.fixture(autouse=True)
def fresh_dynamo() -> None:
    torch._dynamo.reset()


def build(slot: Slot, name: str, folders: Mapping[str, str]) -> IQN:
    """A small network with the part, of which it reads every key."""
    torch.manual_seed(0)
    part = {name: dict(OPTIONS.get((slot, name), {}))}
    net = iqn_blocks.build(placed(PLACES[slot](part), folders), strict=True)
    net.reset_noise()
    return net


@every_part
def test_shapes(slot: Slot, name: str, folders: Mapping[str, str]) -> None:
    net = build(slot, name, folders)
    rows = (net.n_offsets, net.n_actions) if net.n_offsets > 1 else (net.n_actions,)
    for batch in (0, 1, 3):
        inputs = net.example_inputs(batch)
        assert net.encode(*inputs).shape == (batch, net.encoder.state_dim)
        assert net(*inputs, 2)[0].shape == (2 * batch, *rows)
        values = net.q_values(*inputs)
        assert getattr(values, "q", values).shape == (batch, *rows)  # named where memory is too


@every_part
def test_gradients_reach_every_parameter(slot: Slot, name: str, folders: Mapping[str, str]) -> None:
    net = build(slot, name, folders).double()
    q, *_ = net(*net.example_inputs(4))
    q.square().sum().backward()
    for key, parameter in net.named_parameters():
        assert parameter.grad is not None, key
        assert parameter.grad.isfinite().all(), key
    heads = net.value_head, net.advantage_head
    for module in (net.encoder, net.tau_embedding, *heads):
        assert any(p.grad is not None and p.grad.any() for p in module.parameters())


@every_part
def test_one_graph(slot: Slot, name: str, folders: Mapping[str, str]) -> None:
    net = build(slot, name, folders).eval()
    compiled = torch.compile(net, fullgraph=True, backend="aot_eager")
    inputs, tau = net.example_inputs(3), torch.rand(6, 1)
    assert_equal(run(compiled, net, inputs, tau), run(net, net, inputs, tau), 1e-4)


@every_part
def test_export_with_a_dynamic_batch(slot: Slot, name: str, folders: Mapping[str, str]) -> None:
    net = build(slot, name, folders).eval()
    batch, tau = torch.export.Dim("batch", min=2, max=4096), torch.rand(4, 1)
    inputs = net.example_inputs(3)
    shapes = [None if x is None else {0: batch} for x in inputs]
    program = torch.export.export(
        net, (*inputs, 4, tau), dynamic_shapes=(*shapes, None, None), strict=False
    )
    inputs = net.example_inputs(8)
    found, expected = program.module()(*inputs, 4, tau)[0], net(*inputs, 4, tau)[0]
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


@every_part
def test_saved_and_loaded(
    slot: Slot, name: str, folders: Mapping[str, str], tmp_path: Path
) -> None:
    net = build(slot, name, folders).eval()
    net.save_pretrained(tmp_path / "net")
    loaded = iqn_blocks.from_pretrained(tmp_path / "net").eval()
    assert loaded.config == net.config
    inputs, tau = net.example_inputs(2), torch.rand(4, 1)
    assert torch.equal(loaded(*inputs, tau=tau)[0], net(*inputs, tau=tau)[0])


@every_part
def test_its_configuration_as_plain_data(slot: Slot, name: str, folders: Mapping[str, str]) -> None:
    config = build(slot, name, folders).config
    assert config is not None
    assert parse(config.to_dict()) == config
    assert hash(parse(config.to_dict())) == hash(config)


@every_part
def test_every_option_is_described(slot: Slot, name: str) -> None:
    part = find_part(slot, name)
    assert part.__doc__
    for key, option in options_of(part, slot).items():
        assert option.meaning or option.kind is None, f"{name}: {key} has no line under Args"


READOUT: Config = {"readout": "flatten", "readout_size": 6}
IMPALA: Config = {"width": 2, "layer_norm": False, "spectral_norm": None}
SIMBA: Config = {"n_blocks": 2, "expansion": 4}
LAYERS: Config = {"n_heads": 4, "ff_mult": 4}
NOISY: Config = {"noisy": False, "noisy_readout": False, "sigma0": 0.5}
HEAD: Config = {"hidden_dim": None, "layer_norm": False, **NOISY, "activation": "leaky_relu"}
MLP_HEAD: Config = {**HEAD, "n_hidden_layers": 1}
# The papers' values, or what the library has always had: networks of users are made of them.
DEFAULTS: Mapping[tuple[Slot, str], Config] = {
    ("stem", "conv"): {**READOUT, "activation": "leaky_relu", "spectral_norm": None},
    ("stem", "hadamax"): READOUT,
    ("stem", "impala"): {**IMPALA, **READOUT},
    ("stem", "impoola"): IMPALA,
    ("stem", "minatar"): READOUT,
    ("stem", "nature"): READOUT,
    ("floats", "mlp"): {"hidden_dim": 256, "layer_norm": False, "activation": "relu"},
    ("floats", "simba"): {"hidden_dim": 512, **SIMBA},
    ("floats", "simba_v2"): {"hidden_dim": 512, **SIMBA, "shift": 3.0},
    ("trunk", "cnn"): {"hidden_channels": (256, 256), "kernel_size": 3, "dropout": 0.0},
    ("trunk", "mlp"): {"hidden_dim": 512, "n_layers": 2, "dropout": 0.0},
    ("trunk", "native_transformer"): {"n_layers": 2, **LAYERS, "dropout": 0.0},
    ("core", "gru"): {"hidden_dim": None},
    ("core", "lstm"): {"hidden_dim": None},
    ("mixer", "film"): {"phi_dim": 128},
    ("head", "mlp"): MLP_HEAD,
    ("head", "block"): {**MLP_HEAD, "n_layers": 0, **LAYERS},
    ("head", "monotone"): {**MLP_HEAD, "n_levels": 32},
    ("head", "simba"): {"hidden_dim": None, **SIMBA},
    ("head", "simba_v2"): {"hidden_dim": None, **SIMBA, "shift": 3.0},
    ("head", "transformer"): {**HEAD, "d_model": 128, "n_layers": 1, **LAYERS, "dropout": 0.0},
}


@pytest.mark.parametrize(("slot", "name"), DEFAULTS)
def test_defaults(slot: Slot, name: str) -> None:
    options = options_of(find_part(slot, name), slot)
    assert {key: option.default for key, option in options.items()} == DEFAULTS[slot, name]


def _multimodal(mode: str, **encoder: Any) -> Config:
    """An image and floats through a fusion of width 8."""
    transformer = {"d_model": 8, "n_heads": 2, "n_layers": 1}
    config = _without_float_mlp(
        nn={"fusion_mode": mode, "encoder": {"transformer": transformer, **encoder}}
    )
    if mode == "vision_transformer":
        config["nn"]["float"] = {"mlp": NARROW}
        if "fusion_encoder" not in encoder:  # nothing but a Linear comes behind both
            del config["nn"]["encoder"]
    return config


# Every topology, and every way in which the multimodal one brings image and floats together.
TOPOLOGIES: Mapping[str, Config] = {
    "classic": tiny(),
    "classic, floats": tiny_float(),
    "classic, image": tiny_image(),
    "hf_vision": _topology({"hf_vision": {}}),
    "multimodal, direct": _multimodal("vision_transformer"),
    "multimodal, fused vector": _multimodal(
        "vision_transformer", fusion_encoder="native_transformer"
    ),
    "multimodal, post_concat": _multimodal("post_concat"),
    "multimodal, sequence": _multimodal("post_concat", post_concat_layout="token_sequence"),
    "multimodal, unified": _multimodal("unified"),
}
IMAGES = [name for name in TOPOLOGIES if name not in ("classic, floats", "hf_vision")]
FLOAT_BRANCH = ["classic", "classic, floats", "hf_vision", "multimodal, direct"]
FLOAT_BRANCH += ["multimodal, fused vector", "multimodal, post_concat"]
TRUNKS = ["multimodal, fused vector", "multimodal, post_concat"]
TRUNKS += ["multimodal, sequence", "multimodal, unified"]
WHERE: Mapping[Slot, list[str]] = {"stem": IMAGES, "floats": FLOAT_BRANCH, "trunk": TRUNKS}


def _with_part(config: Config, slot: Slot, part: Config) -> Config:
    """A configuration in which a part takes the place of what was there."""
    config = merge(config, {})
    nn = config["nn"] = dict(config["nn"])
    if slot == "stem":
        nn["vis"] = {"image_size": {"width": 36, "height": 36}, **part}
    elif slot == "floats":
        nn["float"] = part
    elif slot == "trunk":
        size = {"d_model": 8}
        if nn["encoder"].get("post_concat_layout") != "token_sequence":
            size |= {} if nn["fusion_mode"] == "unified" else {"post_concat_seq_len": 2}
        nn["encoder"] = {**nn["encoder"], "fusion_encoder": part, "transformer": size}
    elif slot == "core":
        nn["core"] = part
    elif slot == "mixer":
        nn["iqn"] = {**nn["iqn"], "mixer": part}
    else:
        nn["decoder"] = {"dueling": "at_midpoints", "advantage": part, "value": part}
    return config


@pytest.mark.parametrize(
    ("slot", "name", "topology"),
    [
        (slot, name, topology)
        for slot, name in PARTS
        if slot != "topology"
        for topology in WHERE.get(slot, list(TOPOLOGIES))
        if (name, topology) != ("linear", "multimodal, fused vector")  # that is the direct one
    ],
)
def test_in_every_topology(
    slot: Slot, name: str, topology: str, folders: Mapping[str, str]
) -> None:
    part = {name: dict(OPTIONS.get((slot, name), {}))}
    config = _with_part(TOPOLOGIES[topology], slot, part)
    net = iqn_blocks.build(placed(config, folders), seed=0)
    assert iqn_blocks.route(net.config) == topology.partition(",")[0]
    inputs = net.example_inputs(2)
    q, *_ = net(*inputs, 2)
    values = net.q_values(*inputs)
    assert q.shape == (4, 3) and getattr(values, "q", values).shape == (2, 3)
    q.square().sum().backward()
    slopes = [p.grad for p in net.parameters() if p.requires_grad]
    assert all(slope is not None and slope.isfinite().all() for slope in slopes)
