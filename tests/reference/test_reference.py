"""The reference itself, against numbers derived by hand and against PyTorch's own layers."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests import reference, tiny_models


def scoped(values: Any) -> reference.Parameters:
    """Parameters in float64 from plain numbers."""
    tensors = {name: torch.as_tensor(value, dtype=torch.float64) for name, value in values.items()}
    return reference.Parameters(tensors)


def of_module(module: nn.Module) -> reference.Parameters:
    return reference.Parameters(module.state_dict())


def close(found: Tensor, expected: Any) -> None:
    expected = torch.as_tensor(expected, dtype=found.dtype)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


def randn(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def test_parameters_note_what_is_read() -> None:
    params = scoped({"a.weight": [1.0], "a.bias": [2.0], "b": [3.0]})
    assert params.under("a")["weight"] == 1
    assert params.read == {"a.weight"}
    assert set(params.under("a").everything()) == {"weight", "bias"}
    assert params.read == {"a.weight", "a.bias"}


def test_parameters_refuse_another_shape() -> None:
    with pytest.raises(AssertionError, match=r"a\.weight has shape \(1,\), the equations: \(2"):
        scoped({"a.weight": [1.0]}).under("a").shaped("weight", 2)


def test_symmetric_tau_mirrors_its_first_half() -> None:
    u = torch.tensor([[0.0, 0.5], [0.25, 0.75]], dtype=torch.float64)  # K = 4, B = 2
    # (0 + u)/4 and (1 + u)/4, then one minus each in the same order; row k·2 + b.
    expected = [[0.0], [0.125], [0.3125], [0.4375], [1.0], [0.875], [0.6875], [0.5625]]
    close(reference.sample_tau("symmetric", 4, u), expected)


def test_midpoints_and_uniform() -> None:
    u = torch.tensor([[0.1, 0.2], [0.3, 0.4]], dtype=torch.float64)  # K = 2, B = 2
    close(reference.sample_tau("uniform", 2, u), [[0.1], [0.2], [0.3], [0.4]])
    close(reference.sample_tau("midpoints", 2, u), [[0.25], [0.25], [0.75], [0.75]])
    close(reference.tau_midpoints(4), [[0.125], [0.375], [0.625], [0.875]])


def test_cosines_of_one_half() -> None:
    half = torch.tensor([[0.5], [1.0]], dtype=torch.float64)
    # cos(π/2), cos(π) and cos(π), cos(2π); from 0 on the first column is cos(0).
    close(reference.cosine_features(half, 2), [[0.0, -1.0], [-1.0, 1.0]])
    close(reference.cosine_features(half, 2, start=0), [[1.0, 0.0], [1.0, -1.0]])


def test_cosines_are_float32_or_wider() -> None:
    tau = torch.tensor([[0.25]])
    assert reference.cosine_features(tau.bfloat16(), 3).dtype == torch.float32
    assert reference.cosine_features(tau.double(), 3).dtype == torch.float64


def test_hadamard_rows_are_quantile_major() -> None:
    state = torch.tensor([[1.0, 2.0], [3.0, 4.0]], dtype=torch.float64)
    shared = torch.tensor([[1.0, 10.0], [100.0, 1000.0]], dtype=torch.float64)
    expected = [[1.0, 20.0], [3.0, 40.0], [100.0, 2000.0], [300.0, 4000.0]]
    close(reference.hadamard_mix(state, shared, 2), expected)
    each = torch.tensor([[1.0, 1.0], [2.0, 2.0], [3.0, 3.0], [4.0, 4.0]], dtype=torch.float64)
    close(
        reference.hadamard_mix(state, each, 2), [[1.0, 2.0], [6.0, 8.0], [3.0, 6.0], [12.0, 16.0]]
    )


def test_dueling_by_hand() -> None:
    value = torch.tensor([[10.0], [20.0]], dtype=torch.float64)
    advantage = torch.tensor([[1.0, 2.0, 6.0], [0.0, 0.0, 3.0]], dtype=torch.float64)  # means 3, 1
    close(reference.dueling(value, advantage), [[8.0, 9.0, 13.0], [19.0, 19.0, 22.0]])


def test_dueling_takes_the_mean_per_offset() -> None:
    value = torch.tensor([[10.0]], dtype=torch.float64)
    advantage = torch.tensor([[[1.0, 3.0], [0.0, 8.0]]], dtype=torch.float64)  # means 2 and 4
    close(reference.dueling(value, advantage), [[[9.0, 11.0], [6.0, 14.0]]])


def test_activations() -> None:
    x = torch.tensor([-2.0, 0.0, 3.0], dtype=torch.float64)
    close(reference.activation("leaky_relu", x), [-0.02, 0.0, 3.0])
    close(reference.activation("relu", x), [0.0, 0.0, 3.0])
    close(reference.gelu(x), F.gelu(x))


def test_linear_by_hand() -> None:
    params = scoped({"weight": [[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]], "bias": [0.5, 0.0, -0.5]})
    close(reference.linear(params, torch.tensor([[1.0, 10.0]]).double(), 3), [[21.5, 43.0, 64.5]])
    same = torch.tensor([[1.0, 10.0]])
    assert reference.projection(scoped({}), same, 2) is same


def test_noisy_linear_by_hand() -> None:
    params = scoped(
        {
            "weight_mu": [[1.0, 2.0]],
            "weight_sigma": [[0.5, 0.25]],
            "bias_mu": [3.0],
            "bias_sigma": [0.5],
            "epsilon_in": [2.0, -4.0],
            "epsilon_out": [3.0],
        }
    )
    # weight: 1 + 0.5·6 = 4 and 2 + 0.25·(−12) = −1; bias: 3 + 0.5·3 = 4.5
    close(
        reference.noisy_linear(params, torch.tensor([[1.0, 1.0], [2.0, 0.0]]).double(), 1),
        [[7.5], [12.5]],
    )


def test_layer_norm_is_pytorchs() -> None:
    module = nn.LayerNorm(5).double()
    nn.init.normal_(module.weight)
    nn.init.normal_(module.bias)
    x = randn(3, 5)
    close(reference.layer_norm(of_module(module), x), module(x))


def test_attention_of_one_head_by_hand() -> None:
    # d = 1: q = k = 0, so that every token gets the mean of the values v = 2x + 1, doubled, plus 3.
    params = scoped(
        {
            "in_proj_weight": [[0.0], [0.0], [2.0]],
            "in_proj_bias": [0.0, 0.0, 1.0],
            "out_proj.weight": [[2.0]],
            "out_proj.bias": [3.0],
        }
    )
    x = torch.tensor([[[1.0], [2.0], [6.0]]]).double()  # mean 3, v = 7, 2·7 + 3 = 17
    close(reference.attention(params, x, 1), [[[17.0], [17.0], [17.0]]])


@pytest.mark.parametrize(("width", "n_heads", "ff_mult"), [(6, 1, 2), (6, 3, 2), (20, 4, 4)])
def test_encoder_layers_are_pytorchs(width: int, n_heads: int, ff_mult: int) -> None:
    layer = nn.TransformerEncoderLayer(
        width,
        n_heads,
        dim_feedforward=max(64, width * ff_mult),
        dropout=0.0,
        activation="gelu",
        batch_first=True,
    )
    stack = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False).double()
    for parameter in stack.parameters():
        nn.init.normal_(parameter, std=0.4)
    x = randn(3, 5, width)
    close(reference.encoder(of_module(stack), x, 2, n_heads, ff_mult), stack(x))
    assert reference.encoder(of_module(stack), x, 0, n_heads, ff_mult) is x


@pytest.mark.parametrize(("height", "width", "size"), [(6, 9, 3), (7, 10, 4), (3, 2, 5), (1, 1, 1)])
def test_adaptive_max_pool_is_pytorchs(height: int, width: int, size: int) -> None:
    x = randn(2, 3, height, width)
    close(reference.adaptive_max_pool(x, size), F.adaptive_max_pool2d(x, size))


def test_spectral_norm_converges_to_the_matrix_norm() -> None:
    weight = randn(5, 2, 3, 3)
    matrix = weight.reshape(5, 18)
    u, v = F.normalize(randn(5, seed=1), dim=0), F.normalize(randn(18, seed=2), dim=0)
    for _ in range(300):
        u, v = reference.power_iteration(matrix, u, v)
    params = scoped({"u": u, "v": v})
    expected = weight / torch.linalg.matrix_norm(matrix, 2)
    close(reference.spectral_weight(params, weight, training=False), expected)


def test_spectral_norm_by_hand() -> None:
    weight = torch.tensor([[3.0, 0.0], [0.0, 4.0]], dtype=torch.float64).reshape(2, 2, 1, 1)
    params = scoped({"u": [0.6, 0.8], "v": [0.0, 1.0]})
    # σ = uᵀWv = 0.8·4 as it stands. A step gives v ∝ (1.8, 3.2) and u ∝ (5.4, 12.8).
    close(reference.spectral_weight(params, weight, training=False), weight / 3.2)
    v = torch.tensor([1.8, 3.2], dtype=torch.float64) / math.hypot(1.8, 3.2)
    u = torch.tensor([5.4, 12.8], dtype=torch.float64) / math.hypot(5.4, 12.8)
    sigma = 3 * u[0] * v[0] + 4 * u[1] * v[1]
    close(reference.spectral_weight(params, weight, training=True), weight / sigma)


@pytest.mark.parametrize("training", [False, True])
def test_spectral_norm_leaves_a_zero_weight_alone(training: bool) -> None:
    weight = torch.zeros(2, 3, 1, 1, dtype=torch.float64)
    params = scoped({"u": [1.0, 0.0], "v": [1.0, 0.0, 0.0]})
    close(reference.spectral_weight(params, weight, training=training), weight)


def test_spectral_norm_holds_u_and_v_constant() -> None:
    weight = torch.tensor([[3.0, 1.0], [0.0, 4.0]], dtype=torch.float64, requires_grad=True)
    start = torch.tensor([0.6, 0.8], dtype=torch.float64)
    params = scoped({"u": start, "v": start})
    found = reference.spectral_weight(params, weight.reshape(2, 2, 1, 1), training=True)
    (slope,) = torch.autograd.grad(found.sum(), weight)
    # Σ W / σ with σ = uᵀWv: slope 1/σ − ΣW · u vᵀ / σ², u and v from one step.
    matrix = weight.detach()
    u, v = reference.power_iteration(matrix, start, start)
    sigma = u @ matrix @ v
    close(slope, 1 / sigma - matrix.sum() * torch.outer(u, v) / sigma**2)


def test_uint8_images() -> None:
    img = torch.tensor([0, 64, 128, 255], dtype=torch.uint8)

    def scaled(scaling: str) -> Tensor:
        config = SimpleNamespace(nn=SimpleNamespace(vis=SimpleNamespace(uint8_scaling=scaling)))
        return reference.image(config, img, torch.float64)

    close(scaled("signed"), [-1.0, -0.5, 0.0, 127 / 128])
    close(scaled("unit"), [0.0, 64 / 255, 128 / 255, 1.0])


def test_floats_are_normalized_in_float32_or_wider() -> None:
    params = scoped({"mean": [1.0, 2.0], "std": [2.0, 0.5]})
    floats = torch.tensor([[3.0, 3.0]], dtype=torch.bfloat16)
    close(reference.normalized_floats(params, floats, torch.float64), [[1.0, 2.0]])
    assert reference.normalized_floats(params, floats, torch.bfloat16).dtype == torch.bfloat16


@pytest.mark.parametrize(("source", "target"), [(5, 8), (8, 5), (4, 4), (1, 3), (9, 2)])
def test_bilinear_matrix_is_pytorchs_interpolation(source: int, target: int) -> None:
    x = randn(1, 1, source, source)
    expected = F.interpolate(x, size=(target, target), mode="bilinear", align_corners=False)
    matrix = reference.bilinear_matrix(source, target, torch.float64)
    close(matrix @ x @ matrix.transpose(0, 1), expected)


def test_pixels_by_hand() -> None:
    img = torch.tensor([-3.0, 0.0, 0.5, 1.0], dtype=torch.float64).reshape(1, 1, 2, 2)
    found = reference.pixels(img, (2, 2), [0.0, 0.5, 0.0], [1.0, 1.0, 0.5])
    unit = torch.tensor([[0.0, 0.5], [0.75, 1.0]], dtype=torch.float64)
    close(found, torch.stack([unit, unit - 0.5, unit / 0.5])[None])


def test_pixels_are_clamped_after_the_resize() -> None:
    img = torch.tensor([-3.0, 1.0], dtype=torch.float64).reshape(1, 1, 1, 2)
    # One column halfway between −3 and 1 is −1, and 0 on [0, 1]; clamped first it would be ½.
    close(reference.pixels(img, (1, 1), [0.0] * 3, [1.0] * 3), torch.zeros(1, 3, 1, 1))


@pytest.mark.parametrize(
    ("processor", "size"),
    [
        ("sides", (16, 16)),
        ("edge", (16, 16)),
        ("crop", (16, 16)),
        ("wide", (16, 24)),
        ("absent", (16, 16)),
    ],
)
def test_processor_files(tmp_path: Path, processor: str, size: tuple[int, int]) -> None:
    folder = tiny_models.save("vit", tmp_path, processor=processor)
    found, mean, std = reference.processor(folder, tiny_models.load(folder))
    values = tiny_models.PROCESSORS[processor]
    assert found == size
    assert mean == (values["image_mean"] if values else [0.5, 0.5, 0.5])
    assert std == (values["image_std"] if values else [0.5, 0.5, 0.5])


@pytest.mark.parametrize(
    ("name", "tokens", "class_token"),
    [("vit", 5, True), ("dinov2", 5, True), ("swin", 16, False), ("convnext", 4, False)],
)
def test_tokens_of_tiny_vision_models(
    tmp_path: Path, name: str, tokens: int, class_token: bool
) -> None:
    folder = tiny_models.save(name, tmp_path)
    model = tiny_models.load(folder)
    params = of_module(model)
    found = reference.backbone_tokens(params, torch.rand(2, 1, 12, 10), folder, model)
    assert found.shape[:2] == (2, tokens)
    assert reference.has_class_token(model) == class_token
    first = reference.summary_token(found, model)
    torch.testing.assert_close(first, found[:, 0] if class_token else found.mean(dim=1))


@pytest.mark.parametrize("name", list(tiny_models.TEXT))
def test_tiny_text_models_read_every_token(tmp_path: Path, name: str) -> None:
    model = tiny_models.load(tiny_models.save(name, tmp_path))
    config: Any = model.config
    embeds = torch.randn(1, 4, config.hidden_size, requires_grad=True)
    mean = model(inputs_embeds=embeds).last_hidden_state.mean(dim=1)
    (slope,) = torch.autograd.grad(mean.square().sum(), embeds)
    assert (slope.abs().amax(dim=-1) > 0).all()


@pytest.mark.parametrize("kernel", [1, 2, 3, 4, 5])
def test_conv1d_is_pytorchs(kernel: int) -> None:
    module = nn.Conv1d(3, 4, kernel, padding=kernel // 2).double()
    x = randn(2, 5, 3)
    expected = module(x.transpose(1, 2)).transpose(1, 2)
    close(reference.conv1d(of_module(module), x, 4, kernel), expected)
