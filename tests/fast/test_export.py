"""ONNX files in onnxruntime, and torch.export programs, against the network."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import onnx
import onnxruntime
import pytest
import torch
import yaml
from torch import nn

import iqn_blocks
from iqn_blocks import IQN, InputSpec, export, presets
from iqn_blocks.blocks import Hadamard, Head, TauEmbedding
from tests.configs import merge, tiny, tiny_btr, tiny_float, tiny_image, tiny_multimodal

DEFAULT = yaml.safe_load(Path("docs/configs/default.yaml").read_text(encoding="utf-8"))
RAW = {"float_inputs_mean": [100.0, 0, -5, 1, 2], "float_inputs_std": [50.0, 1, 2, 0.1, 3]}
INPUTS = 10_000
LARGE = {"linesight": INPUTS, "btr_preset": 1000}  # networks of many pixels, and inputs


def tiny_hf_vision(path):
    vis = {"transformer": {"use_hf_backbone": True, "model_name_or_path": path, "d_model": 8}}
    return merge(tiny(), {"nn": {"vis": vis}})


def make(name, folders):
    configs = {
        "classic": tiny(**RAW),
        "floats": tiny_float(**RAW),
        "image": tiny_image(),
        "btr": tiny_btr(**RAW),
        "action_blocks": tiny_float(n_actions_per_block=2),
        "multimodal": tiny_multimodal(**RAW, nn={"encoder": {"transformer": {"dropout": 0.1}}}),
        "hf_vision": tiny_hf_vision(folders["vit"]),
        "default": DEFAULT,
        "btr_preset": presets.btr(n_actions=6),
        "linesight": presets.linesight(),
    }
    torch.manual_seed(0)
    net = iqn_blocks.build(configs[name])
    net.reset_noise()
    return net


def draw(net, batch):
    """Images and floats as an environment gives them."""
    img = floats = None
    if net.inputs.image_shape is not None:
        img = torch.randint(256, (batch, *net.inputs.image_shape), dtype=torch.uint8)
    if net.inputs.n_floats:
        mean, std = (
            torch.tensor(given or [fallback] * net.inputs.n_floats)
            for given, fallback in (
                (net.config.float_inputs_mean, 0.0),
                (net.config.float_inputs_std, 1.0),
            )
        )
        floats = torch.randn(batch, net.inputs.n_floats) * std + mean
    return img, floats


def run(session, **inputs):
    given = {name: x.numpy() for name, x in inputs.items() if x is not None}
    return [torch.from_numpy(x) for x in session.run(None, given)]


def start(path):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def batches(img, floats, largest):
    """One input, and the others in batches."""
    count = len(floats if img is None else img) - 1
    sizes = [1, *[largest] * (count // largest), *filter(None, [count % largest])]
    return zip(
        *([None] * len(sizes) if x is None else x.split(sizes) for x in (img, floats)), strict=True
    )


@pytest.mark.parametrize(
    ("name", "count"),
    [
        *((name, INPUTS) for name in ("classic", "floats", "action_blocks")),
        *((name, 200) for name in ("image", "btr", "multimodal", "hf_vision")),
        *(
            pytest.param(name, INPUTS, marks=pytest.mark.slow)
            for name in ("image", "btr", "multimodal", "hf_vision")
        ),
        ("default", 100),
        *((name, 20) for name in LARGE),
        *(pytest.param(name, count, marks=pytest.mark.slow) for name, count in LARGE.items()),
    ],
)
@torch.no_grad()
def test_onnxruntime_gives_the_network_s_values(name, count, folders, tmp_path):
    net = make(name, folders)
    export.onnx(net, tmp_path / "net.onnx")
    model = onnx.load(tmp_path / "net.onnx")
    kinds = {node.op_type for node in model.graph.node}
    assert not kinds & {"Dropout", "Bernoulli"}
    assert not any("Random" in kind for kind in kinds)

    net.eval()
    session, found, expected = start(tmp_path / "net.onnx"), [], []
    for img, floats in batches(*draw(net, count), largest=250 if name in LARGE else 5000):
        found += run(session, img=img, floats=floats)
        expected.append(net.q_values(img, floats))
    found, expected = torch.cat(found), torch.cat(expected)
    assert found.shape == expected.shape
    assert (found - expected).abs().max() <= 1e-5 * expected.abs().max()
    assert torch.equal(found.argmax(-1), expected.argmax(-1))


@torch.no_grad()
def test_quantiles_at_given_tau(tmp_path):
    net = iqn_blocks.build(tiny_btr()).eval()
    export.onnx(net, tmp_path / "net.onnx", quantiles=True)
    session = start(tmp_path / "net.onnx")
    assert [x.name for x in session.get_inputs()] == ["img", "floats", "tau"]
    assert [x.name for x in session.get_outputs()] == ["q", "quantiles"]
    assert [x.shape[0] for x in session.get_inputs()] == ["batch", "batch", "K"]
    assert [x.shape for x in session.get_outputs()] == [["batch", 3], ["batch", "K", 3]]
    for batch, k in ((1, 1), (2, 7), (5, 2)):
        img, floats = draw(net, batch)
        tau = torch.rand(k, 1)
        q, quantiles = run(session, img=img, floats=floats, tau=tau)
        torch.testing.assert_close(q, net.q_values(img, floats))
        torch.testing.assert_close(quantiles, net.quantiles(img, floats, k, tau)[0])


@torch.no_grad()
@pytest.mark.parametrize("name", ["btr", "floats"])
def test_program(name, folders, tmp_path):
    net = make(name, folders).eval()
    program = export.program(net, quantiles=True)
    torch.export.save(program, tmp_path / "net.pt2", extra_files=export.metadata(net))
    module = torch.export.load(tmp_path / "net.pt2").module()
    for batch, k in ((1, 1), (5, 7)):
        img, floats = draw(net, batch)
        tau = torch.rand(k, 1)
        q, quantiles = module(*(x for x in (img, floats, tau) if x is not None))
        torch.testing.assert_close(q, net.q_values(img, floats))
        torch.testing.assert_close(quantiles, net.quantiles(img, floats, k, tau)[0])


@torch.no_grad()
def test_floating_images_and_no_noise():
    net = iqn_blocks.build(tiny_btr()).eval()
    inputs = net.example_inputs(3)
    silent = net.q_values(*inputs)
    net.reset_noise()
    found = [
        export.program(net, image_dtype=torch.float32, noise=noise).module()(*inputs)
        for noise in (True, False)
    ]
    torch.testing.assert_close(found, [net.q_values(*inputs), silent])
    assert not torch.allclose(*found)


def test_metadata(tmp_path):
    net = iqn_blocks.build(tiny_float())
    export.onnx(net, tmp_path / "net.onnx")
    found = {p.key: p.value for p in onnx.load(tmp_path / "net.onnx").metadata_props}
    assert found["iqn_blocks_version"] == iqn_blocks.__version__
    assert iqn_blocks.build(json.loads(found["config"])).config == net.config

    twin = iqn_blocks.build(tiny_float())
    assert export.metadata(twin)["weights_sha256"] != found["weights_sha256"]
    twin.load_state_dict(net.state_dict())
    assert export.metadata(twin)["weights_sha256"] == found["weights_sha256"]


class Counting(nn.Module):
    state_dim = 4

    def __init__(self):
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, img, floats):
        self.calls += 1
        return floats


def test_a_part_that_changes_a_buffer_is_refused(tmp_path):
    heads = {"value_head": Head(4, [5], (1,)), "advantage_head": Head(4, [5], (3,))}
    inputs = InputSpec(n_floats=4)
    net = IQN(Counting(), TauEmbedding(6, 4), Hadamard(4), **heads, inputs=inputs)
    assert json.loads(export.metadata(net)["config"]) is None
    for write in (export.program, lambda net: export.onnx(net, tmp_path / "net.onnx")):
        with pytest.raises(ValueError, match=r"changes its buffer 'encoder.calls'.*leave it alone"):
            write(net)


def test_what_cannot_be_folded_is_refused():
    net = iqn_blocks.build(tiny_float())
    with pytest.raises(TypeError, match=r"copy made by optimize_for_inference"):
        export.program(iqn_blocks.optimize_for_inference(net))


def test_a_network_with_memory_is_refused(tmp_path):
    net = iqn_blocks.build(tiny_float(nn={"core": {"gru": {"hidden_dim": 4}}}))
    for use in (
        iqn_blocks.optimize_for_inference,
        export.program,
        lambda net: export.onnx(net, tmp_path / "net.onnx"),
    ):
        with pytest.raises(TypeError, match=r"found a RecurrentIQN, .*memory.*the network itself"):
            use(net)


def test_missing_packages(monkeypatch, tmp_path):
    def find(name):
        return None if name == missing else object()

    net = iqn_blocks.build(tiny_float())
    monkeypatch.setattr(importlib.util, "find_spec", find)
    for missing in ("onnx", "onnxscript"):
        with pytest.raises(ImportError, match=rf"^{missing} is missing: .*iqn-blocks\[onnx\]"):
            export.onnx(net, tmp_path / "net.onnx")
    missing = "onnxruntime"
    with pytest.raises(ImportError, match=r"^onnxruntime is missing: .*iqn-blocks\[onnx\]"):
        iqn_blocks.optimize_for_inference(net, engine="onnxruntime")
