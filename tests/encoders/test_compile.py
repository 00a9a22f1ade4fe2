"""hf_vision and multimodal networks compiled as one graph, with a dynamic batch, and exported."""

from __future__ import annotations

import pytest
import torch

import iqn_blocks
from tests import tiny_models
from tests.configs import merge
from tests.grid.test_multimodal import CONFIGS, placed
from tests.network.test_compile import Counter, assert_equal, run

HF_VISION = {name: next(n for n in CONFIGS if n.startswith(name)) for name in ("vit", "convnext")}
# Each mode, vision branch, trunk, kind of token and text model at least once.
CASES = {
    name: CONFIGS[name]
    for name in (
        "vision_transformer-none-summary-default",
        "vision_transformer-vit-summary-default",
        "vision_transformer-cnn-summary-mlp",
        "fused_vector-impala-summary-cnn",
        "fused_vector-native-summary-native_transformer",
        "sequence+dense-native-patch_tokens-linear",
        "sequence+feature-none-summary-native_transformer",
        "sequence+hidden-dinov2-patch_tokens-cnn",
        "unified-convnext-summary-mlp",
        *HF_VISION.values(),
    )
} | {
    f"unified-none-{text}": merge(
        CONFIGS["unified-none-summary-hf_embedding"],
        {"nn": {"encoder": {"hf_embedding": {"model_name_or_path": text}}}},
    )
    for text in tiny_models.TEXT
}
SWIN = "vision_transformer-swin-summary-default"  # takes a minute with a dynamic batch
QUICK = (  # of the slow checks, what every run does: with convolutions, without, with a HF model
    "fused_vector-impala-summary-cnn",
    "sequence+feature-none-summary-native_transformer",
    "unified-none-bert",
    HF_VISION["vit"],
)


def slow_but(quick):
    """All cases, of which those not in ``quick`` are marked slow."""
    return [pytest.param(n, marks=() if n in quick else pytest.mark.slow) for n in CASES]


@pytest.fixture(autouse=True)
def fresh_dynamo():
    torch._dynamo.reset()


def build(name, folders):
    torch.manual_seed(0)
    net = iqn_blocks.build(placed(CASES.get(name, CONFIGS.get(name)), folders))
    net.reset_noise()
    return net


@pytest.mark.parametrize("name", [*CASES, SWIN])
@pytest.mark.parametrize("mode", ["train", "eval"])
def test_whole_graph(name, mode, folders):
    net = getattr(build(name, folders), mode)()
    compiled = torch.compile(net, fullgraph=True, backend="eager")
    inputs, tau = net.example_inputs(3), torch.rand(6, 1)
    assert_equal(run(compiled, net, inputs, tau), run(net, net, inputs, tau), 1e-5)
    nothing = [None if x is None else x[:0] for x in inputs]
    assert compiled(*nothing, 4)[0].shape[0] == 0


@pytest.mark.parametrize("name", slow_but(QUICK))
@pytest.mark.parametrize("mode", ["eval", pytest.param("train", marks=pytest.mark.slow)])
def test_graphs_of_a_dynamic_batch(name, mode, folders):
    net = getattr(build(name, folders), mode)()
    convolutions = any("Conv" in type(module).__name__ for module in net.modules())
    for sizes, accepted in [(range(2, 34), 2 if convolutions else 1), (range(16, 65, 8), 1)]:
        torch._dynamo.reset()
        counter = Counter()
        compiled = torch.compile(net, fullgraph=True, backend=counter, dynamic=True)
        for batch in sizes:
            compiled(*net.example_inputs(batch), 4)
        assert counter.graphs <= accepted


@pytest.mark.slow
@pytest.mark.parametrize("name", [*QUICK, "sequence+hidden-dinov2-patch_tokens-cnn"])
def test_inductor_forward_and_backward(name, folders):
    net = build(name, folders)
    inputs, tau = net.example_inputs(3), torch.rand(6, 1)
    compiled = torch.compile(net, fullgraph=True)
    assert_equal(run(compiled, net, inputs, tau), run(net, net, inputs, tau), 1e-4)


@pytest.mark.parametrize("name", [*CASES, SWIN])
def test_export_with_a_dynamic_batch(name, folders):
    net = build(name, folders).eval()
    batch = torch.export.Dim("batch", min=2, max=4096)
    inputs, tau = net.example_inputs(3), torch.rand(4, 1)
    shapes = [None if x is None else {0: batch} for x in inputs]
    program = torch.export.export(
        net, (*inputs, 4, tau), dynamic_shapes=(*shapes, None, None), strict=False
    )
    for size in (3, 8):
        inputs = net.example_inputs(size)
        found, expected = program.module()(*inputs, 4, tau)[0], net(*inputs, 4, tau)[0]
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)
