"""Vision models of timm: built, loaded, frozen, saved; their pixels here and in trackmania_rl."""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

import iqn_blocks
from iqn_blocks.interop import trackmania_rl
from tests.configs import merge
from tests.hf.test_models import vision_config
from tests.reference import hf

pytestmark = [
    pytest.mark.timm,
    # These libraries warn on import, about themselves and what they import.
    pytest.mark.filterwarnings("default"),
]

DATA = {"input_size": [3, 160, 160], "mean": [0.5, 0.4, 0.3], "std": [0.2, 0.25, 0.3]}
ARCHITECTURES = ("test_vit", "test_resnet")  # with a class token, and with a feature map


@pytest.fixture(scope="module", autouse=True)
def _operators() -> Any:
    """torchvision's wheels are built for CUDA: beside PyTorch for CPUs its operators are missing.

    Its import needs two of them to be declared; no model here uses them.
    """
    if torch.version.cuda is not None or importlib.util.find_spec("torchvision") is None:
        yield
        return
    library = torch.library.Library("torchvision", "DEF")
    for name in ("nms", "qnms"):
        library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    yield


# What a torchvision without its operators does on import, and what one that is not there does.
BROKEN = {
    "operator torchvision::nms does not exist": "import torch\n"
    "torch.library.register_fake('torchvision::nms')(print)\n",
    "No module named 'torchvision.absent'": "import torchvision.absent\n",
}


@pytest.mark.parametrize("reason", BROKEN)
def test_a_torchvision_that_timm_cannot_import(reason: str, tmp_path: Path) -> None:
    saved("test_vit", tmp_path / "model")
    (tmp_path / "torchvision.py").write_text(BROKEN[reason])
    program = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
        "import iqn_blocks\n"
        f"iqn_blocks.hf.load_model({str(tmp_path / 'model')!r}, 'pixel_values')\n"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert ended.returncode == 1
    message = ended.stderr.splitlines()[-1]
    assert message.startswith("iqn_blocks.errors.ConfigError: path: found ")
    assert reason in message
    assert message.endswith(
        "it is a model of timm, which needs torchvision: install a torchvision that is built for "
        f"PyTorch {torch.__version__}"
    )


def saved(architecture: str, folder: Path, **arguments: Any) -> Any:
    """A model with random weights, in the folder as timm writes it for the hub."""
    import timm

    torch.manual_seed(0)
    model = timm.create_model(architecture, num_classes=0, **arguments)
    for name, parameter in model.named_parameters():
        # Class tokens and biases of zeros would hide that they are left out.
        if "weight" not in name:
            torch.nn.init.normal_(parameter, std=0.3)
    config = {"architecture": architecture, "num_classes": 0, "pretrained_cfg": DATA}
    config |= {"model_args": arguments} if arguments else {}
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    save_file(model.state_dict(), folder / "model.safetensors", metadata={"format": "pt"})
    return model.eval()


def tokens(model: Any, pixels: Tensor) -> Tensor:
    """All tokens ``(B, T, d)`` of timm's own model."""
    with torch.no_grad():
        out: Tensor = model.forward_features(pixels)
    return out.flatten(2).transpose(1, 2) if out.ndim == 4 else out


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_model_with_its_own_pixels(architecture: str, tmp_path: Path) -> None:
    model = saved(architecture, tmp_path)
    net = iqn_blocks.build(vision_config(tmp_path)).eval()
    img, _ = net.example_inputs(2)
    assert img is not None
    expected = tokens(model, hf.pixels(img, (160, 160), [0.5, 0.4, 0.3], [0.2, 0.25, 0.3]))
    vision = net.encoder.vision
    with torch.no_grad():
        torch.testing.assert_close(vision.tokens(img), expected, rtol=1e-4, atol=1e-4)
        summary = vision.summary(expected)
    has_class_token = architecture == "test_vit"
    assert vision.has_class_token is has_class_token
    assert torch.equal(summary, expected[:, 0] if has_class_token else expected.mean(1))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_model_learns_or_is_frozen(architecture: str, tmp_path: Path) -> None:
    saved(architecture, tmp_path)
    net = iqn_blocks.build(vision_config(tmp_path))
    net(*net.example_inputs(2), 4)[0].square().sum().backward()
    assert [name for name, p in net.named_parameters() if p.grad is None] == []
    net = iqn_blocks.build(vision_config(tmp_path, nn={"vis": {"freeze": True}}))
    frozen = {name for name, p in net.named_parameters() if not p.requires_grad}
    assert frozen == {n for n, _ in net.named_parameters() if n.startswith("encoder.vision.")}
    assert frozen


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_saved_network_needs_no_model_folder(architecture: str, tmp_path: Path) -> None:
    saved(architecture, tmp_path / "model")
    net = iqn_blocks.build(vision_config(tmp_path / "model")).eval()
    net.save_pretrained(tmp_path / "net")
    shutil.rmtree(tmp_path / "model")
    again = iqn_blocks.from_pretrained(tmp_path / "net")
    inputs, tau = net.example_inputs(2), torch.rand(8, 1)
    assert torch.equal(again(*inputs, tau=tau)[0], net(*inputs, tau=tau)[0])


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_file_of_trackmania_rl(architecture: str, tmp_path: Path) -> None:
    """224 × 224 pixels in [0, 1] without mean and std; the first token, whatever it is."""
    arguments = {"img_size": 224} if architecture == "test_vit" else {}
    model = saved(architecture, tmp_path / "model", **arguments)
    own = vision_config(tmp_path / "model")
    file = {
        "environment": {"n_zone_centers_in_inputs": 0, "n_prev_actions_in_inputs": 0},
        "inputs": {"actions": [{}, {}]},
        "nn": merge(own["nn"], {"iqn": {"k": 2}}),
    }
    net = iqn_blocks.build(trackmania_rl.load_config(file), strict=True).eval()
    img, floats = net.example_inputs(2)
    assert img is not None
    expected = tokens(model, hf.pixels(img, (224, 224), [0.0] * 3, [1.0] * 3))
    vision = net.encoder.vision
    with torch.no_grad():
        torch.testing.assert_close(vision.tokens(img), expected, rtol=1e-4, atol=1e-4)
        first = vision.projection(vision.tokens(img)[:, 0])
        assert torch.equal(net.encoder(img, floats)[:, : first.shape[1]], first)

    state = trackmania_rl.to_state_dict(net)
    assert any(name.startswith("fusion.backbone.timm_model.") for name in state)
    torch.save(state, tmp_path / "weights1.torch")
    again = trackmania_rl.load_checkpoint(tmp_path, file).eval()
    assert torch.equal(again.q_values(img, floats), net.q_values(img, floats))
