"""The folded copy, its engine and its files give the network's values."""

from __future__ import annotations

import threading

import numpy as np
import onnxruntime
import pytest
import torch

import iqn_blocks
from iqn_blocks import IQN, export, optimize_for_inference
from iqn_blocks.blocks import Head, TauEmbedding
from tests.configs import (
    merge,
    tiny,
    tiny_btr,
    tiny_float,
    tiny_image,
    tiny_multimodal,
    tiny_transformer,
)

CONFIGS = {
    "classic": tiny(),
    "btr": tiny_btr(),
    "float": tiny_float(),
    "image": tiny_image(),
    "transformer": tiny_transformer(),
    "multimodal": tiny_multimodal(),
    "offsets": tiny(n_actions_per_block=2),
    "film": tiny_float(nn={"iqn": {"mixer": "film"}}),
    "no dueling": tiny_float(nn={"decoder": {"dueling": "none"}}),
    "at midpoints": tiny_float(nn={"decoder": {"dueling": "at_midpoints"}}),
    "fqf": tiny_float(nn={"iqn": {"fractions": "fqf"}}),
}


def build(name: str, seed: int = 0) -> IQN:
    torch.manual_seed(seed)
    net = iqn_blocks.build(CONFIGS[name]).eval()
    net.reset_noise()
    return net


def close(found, expected) -> None:
    found, expected = torch.as_tensor(found), torch.as_tensor(expected)
    assert (found - expected).abs().max() <= 1e-5 * expected.abs().max()


@pytest.mark.parametrize("name", CONFIGS)
@torch.no_grad()
def test_the_copy_gives_the_networks_values_also_after_a_refresh(name: str) -> None:
    net = build(name)
    fast, inputs, tau = optimize_for_inference(net), net.example_inputs(3), torch.rand(4, 1)
    for step in range(3):
        close(fast.q_values(*inputs), net.q_values(*inputs))
        close(fast.q_values(*inputs, tau=tau), net.q_values(*inputs, tau=tau))
        close(fast(*inputs, 4, tau)[0], net(*inputs, 4, tau)[0])
        if step == 0:
            net.reset_noise()
            fast.refresh_heads(net)
        else:
            for parameter in net.parameters():
                parameter.mul_(1.1).add_(0.01)
            fast.refresh(net)


class Doubled(Head):
    def forward(self, x):
        return 2 * super().forward(x)


class Shifted(TauEmbedding):
    def forward(self, tau):
        return super().forward(tau) + 1


@pytest.mark.parametrize("part", ["value_head", "tau_embedding"])
def test_parts_of_a_users_own_count(part: str) -> None:
    net = build("classic")
    before = net.q_values(*net.example_inputs(3))
    getattr(net, part).__class__ = Doubled if part == "value_head" else Shifted
    expected = net.q_values(*net.example_inputs(3))
    assert not torch.allclose(expected, before)
    close(optimize_for_inference(net).q_values(*net.example_inputs(3)), expected.detach())


def test_what_a_copy_would_lose_is_refused() -> None:
    net = build("classic")
    net.value_head.register_forward_hook(lambda *call: call[2] * 2)
    with pytest.raises(
        ValueError, match=r"found other values in the folded copy.*class of your own"
    ):
        optimize_for_inference(net)

    class Mine(IQN):
        pass

    net = build("classic")
    net.__class__ = Mine
    with pytest.raises(TypeError, match=r"found .*Mine, accepted is an iqn_blocks\.IQN itself"):
        optimize_for_inference(net)
    with pytest.raises(TypeError, match="found a copy made by optimize_for_inference"):
        optimize_for_inference(optimize_for_inference(build("classic")))
    with pytest.raises(ValueError, match="parameters on the meta device"):
        optimize_for_inference(build("classic").to("meta"))
    with pytest.raises(ValueError, match="engine: found 'tensorrt', accepted are 'torch'"):
        optimize_for_inference(build("classic"), engine="tensorrt")


def test_a_copy_without_noise() -> None:
    net = build("btr")
    fast = optimize_for_inference(net, noise=False)
    net.disable_noise()
    close(fast.q_values(*net.example_inputs(2)), net.q_values(*net.example_inputs(2)).detach())


@pytest.mark.parametrize("engine", ["torch", "onnxruntime"])
def test_actors_see_the_old_network_or_the_new(engine) -> None:
    nets = [build("float", seed) for seed in range(2)]
    inputs = nets[0].example_inputs(2)
    fast = optimize_for_inference(nets[0], engine=engine)
    versions = []
    for net in nets:
        fast.refresh(net)
        versions.append(fast.q_values(*inputs).clone())
    seen, done = [], threading.Event()

    def act() -> None:
        while not done.is_set():
            seen.append(fast.q_values(*inputs).clone())

    actors = [threading.Thread(target=act) for _ in range(8)]
    for actor in actors:
        actor.start()
    for i in range(60):
        fast.refresh(nets[i % 2])
    done.set()
    for actor in actors:
        actor.join()
    assert len(seen) >= 8
    assert all(any(torch.equal(q, version) for version in versions) for q in seen)


@pytest.mark.parametrize("name", ["btr", "float", "multimodal"])
def test_the_engine_gives_the_networks_values(name: str) -> None:
    net = build(name)
    fast = optimize_for_inference(net, engine="onnxruntime", image_dtype=torch.float32)
    for batch in (1, 5):
        inputs = net.example_inputs(batch)
        arrays = [None if x is None else x.numpy() for x in inputs]
        for _ in range(2):
            close(fast.q_values(*inputs), net.q_values(*inputs).detach())
            assert isinstance(fast.q_values(*arrays), np.ndarray)
            net.reset_noise()
            fast.refresh_heads(net)
    other = build(name, seed=5)
    fast.refresh(other)
    close(fast.q_values(*inputs), other.q_values(*inputs).detach())


@pytest.mark.parametrize("name", ["btr", "multimodal"])
def test_a_file_acts_as_the_network(name: str, tmp_path) -> None:
    net, path = build(name), tmp_path / "net.onnx"
    export.onnx(net, path)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    img, floats = net.example_inputs(1000)
    img = None if img is None else (img * 127 + 128).to(torch.uint8)
    feeds = {k: x.numpy() for k, x in (("img", img), ("floats", floats)) if x is not None}
    found = torch.from_numpy(session.run(["q"], feeds)[0])
    with torch.no_grad():
        expected = net.q_values(img, floats)
        close(export.program(net).module()(*map(torch.from_numpy, feeds.values())), expected)
    close(found, expected)
    assert torch.equal(found.argmax(-1), expected.argmax(-1))
    assert "config" in session.get_modelmeta().custom_metadata_map


def test_an_adaptive_pool_that_does_not_divide_its_map_exports(tmp_path) -> None:
    cnn = {"use_impala_cnn": True, "impala_model_size": 1, "use_adaptive_maxpool": True}
    vis = {"image_size": {"width": 36, "height": 44}, "cnn": {**cnn, "adaptive_maxpool_size": 3}}
    torch.manual_seed(0)
    net = iqn_blocks.build(merge(tiny_image(), {"nn": {"vis": vis}})).eval()
    export.onnx(net, tmp_path / "net.onnx", image_dtype=torch.float32)
    session = onnxruntime.InferenceSession(tmp_path / "net.onnx")
    img = net.example_inputs(4).img
    close(session.run(["q"], {"img": img.numpy()})[0], net.q_values(img).detach())
