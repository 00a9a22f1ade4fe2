"""Compare a network with the reference: values and gradients, over whole tensors."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from tests import reference

# dtype -> (values, gradients): max|Δ| ≤ tolerance · max|reference|
TOLERANCES = {torch.float32: (1e-5, 1e-4), torch.float64: (1e-10, 1e-9)}

BATCH, QUANTILES = 2, 3


class Inputs(NamedTuple):
    """Arguments of a network; `None` where it takes none."""

    img: Tensor | None
    floats: Tensor | None
    per_sample: Tensor
    shared: Tensor


def draw_inputs(config: Any, dtype: torch.dtype, generator: torch.Generator) -> Inputs:
    """Floating inputs that fit a parsed configuration, a τ per sample and one that is shared."""
    vis = config.nn.vis
    img = floats = None
    if not vis.no_image:
        # hf_vision resizes; elsewhere the size is the configured one.
        height, width = vis.image_size.height, vis.image_size.width
        if reference.topology(config) == "hf_vision":
            height, width = 12, 10
        pixels = (BATCH, vis.in_channels, height, width)
        img = torch.rand(pixels, generator=generator, dtype=torch.float64).mul(3).sub(1.5).to(dtype)
    if config.float_input_dim > 0:
        shape = (BATCH, config.float_input_dim)
        floats = torch.randn(shape, generator=generator, dtype=torch.float64).mul(2).to(dtype)
    rows = torch.rand(QUANTILES * BATCH, 1, generator=generator, dtype=torch.float64).to(dtype)
    return Inputs(img, floats, rows, rows[:QUANTILES])


def randomize(net: Any, generator: torch.Generator) -> None:
    """Perturb every parameter, so that none is zero or one by its initialisation; draw noise.

    Weights shrink on the way: through a deep stem the state would grow until the attention of a
    transformer head saturates, where float32 gradients are rounding and compare nothing.
    """
    with torch.no_grad():
        for parameter in net.parameters():
            noise = 0.2 * torch.randn(parameter.shape, generator=generator)
            if parameter.dim() > 1:
                parameter *= 0.7
                noise /= math.sqrt(parameter[0].numel())
            parameter += noise
    net.reset_noise(generator=generator)


def assert_agrees(found: Tensor, expected: Tensor, tolerance: float, what: str) -> None:
    """`max|Δ| ≤ tolerance · max|expected|`, the same shape and the same dtype."""
    assert found.shape == expected.shape, f"{what}: {found.shape}, expected {expected.shape}"
    assert found.dtype == expected.dtype, f"{what}: {found.dtype}, expected {expected.dtype}"
    if expected.numel() == 0:
        return
    error = (found - expected).abs().max().item()
    scale = expected.abs().max().item()
    # Terms of order 1 that cancel leave one rounding of theirs, however small their sum.
    assert error <= max(tolerance * scale, torch.finfo(expected.dtype).eps), (
        f"{what}: error {error:.3g}, {error / max(scale, 1e-300):.3g} of the scale {scale:.3g}"
    )


def slopes(loss: Tensor, leaves: Sequence[Tensor]) -> list[Tensor]:
    """d loss / d leaf, zeros for a leaf that takes no part."""
    return list(torch.autograd.grad(loss, leaves, allow_unused=True, materialize_grads=True))


def compare(
    net: Any,
    inputs: Inputs,
    tau: Tensor,
    *,
    hf_models: Mapping[str, nn.Module] | None = None,
) -> None:
    """Values, and gradients of parameters and inputs, of one call in the mode that `net` is in.

    Each name of the state must count in the reference, and buffers must stay as they are, except
    that spectral normalisation takes its step in training mode.
    """
    dtype = tau.dtype
    values, gradients = TOLERANCES[dtype]
    arguments = {"img": inputs.img, "floats": inputs.floats, "tau": tau}
    leaves = {name: x.clone().requires_grad_() for name, x in arguments.items() if x is not None}
    copies = {name: x.clone().requires_grad_() for name, x in arguments.items() if x is not None}
    before = {name: tensor.detach().clone() for name, tensor in net.state_dict().items()}
    for name, parameter in net.named_parameters():
        leaves[name] = parameter
        copies[name] = before[name].requires_grad_()
    params = reference.Parameters({**before, **{n: copies[n] for n in before if n in copies}})

    q, rows = net(leaves.get("img"), leaves.get("floats"), QUANTILES, leaves["tau"])
    expected = reference.forward(
        net.config,
        params,
        copies.get("img"),
        copies.get("floats"),
        copies["tau"],
        QUANTILES,
        training=net.training,
        hf_models=hf_models,
    )
    assert params.read == set(before), f"not in the equations: {set(before) - params.read}"
    batch = q.shape[0] // QUANTILES
    assert torch.equal(rows, tau if len(tau) == len(rows) else tau.repeat_interleave(batch, dim=0))
    assert_agrees(q, expected, values, "q")
    _compare_buffers(net, before, values)

    weights = torch.randn(q.shape, generator=torch.Generator().manual_seed(0)).to(dtype)
    found = slopes((q * weights).sum(), list(leaves.values()))
    wanted = slopes((expected * weights).sum(), list(copies.values()))
    # What is zero by symmetry, such as the keys' bias over a single token, is so up to rounding.
    least = 1e-3 if dtype == torch.float32 else 1e-6
    floor = least * max(gradient.abs().max().item() for gradient in wanted)
    for name, one, other in zip(leaves, found, wanted, strict=True):
        error = (one - other).abs().max().item()
        allowed = gradients * max(other.abs().max().item(), floor)
        assert error <= allowed, f"gradient of {name}: error {error:.3g}, allowed {allowed:.3g}"


def _compare_buffers(net: Any, before: Mapping[str, Tensor], tolerance: float) -> None:
    """`before` is the state ahead of a call of `net` in the mode that it is in."""
    expected = {name: before[name] for name, _ in net.named_buffers() if name in before}
    for name in [name for name in expected if name.endswith(".u") and net.training]:
        part = name.removesuffix(".u")
        matrix = before[f"{part}.weight"].detach().flatten(1)
        u, v = reference.power_iteration(matrix, before[name], before[f"{part}.v"])
        expected[name], expected[f"{part}.v"] = u, v
    for name, buffer in net.named_buffers():
        if name in expected:
            assert_agrees(buffer, expected[name], tolerance, name)


def compare_single(
    net: Any,
    generator: torch.Generator,
    *,
    hf_models: Mapping[str, nn.Module] | None = None,
    draws: int = 3,
) -> None:
    """`compare` in float32 with a τ per sample.

    Where a ReLU or a maximum is within rounding of its kink, two gradients are right; where terms
    cancel, rounding is all there is. It takes several draws of the inputs in a row to disagree.
    """
    for left in reversed(range(draws)):
        inputs = draw_inputs(net.config, torch.float32, generator)
        try:
            compare(net, inputs, inputs.per_sample, hf_models=hf_models)
        except AssertionError:
            if left == 0:
                raise
        else:
            return


def compare_values(
    net: Any,
    inputs: Inputs,
    generator: torch.Generator,
    *,
    hf_models: Mapping[str, nn.Module] | None = None,
) -> None:
    """Values without a graph, which attention computes by another path, and of uint8 images."""
    tolerance, _ = TOLERANCES[inputs.shared.dtype]
    img, tau = inputs.img, inputs.shared
    if img is not None:
        img = torch.randint(0, 256, img.shape, generator=generator, dtype=torch.uint8)
    with torch.no_grad():
        q, _ = net(img, inputs.floats, QUANTILES, tau)
        expected = reference.forward(
            net.config, net.state_dict(), img, inputs.floats, tau, QUANTILES, hf_models=hf_models
        )
    assert_agrees(q, expected, tolerance, "q without a graph")


def compare_q_values(
    net: Any, inputs: Inputs, *, hf_models: Mapping[str, nn.Module] | None = None
) -> None:
    """The mean over default midpoints, without a graph; best in float64, as terms may cancel."""
    tolerance, _ = TOLERANCES[inputs.shared.dtype]
    with torch.no_grad():
        mean = net.q_values(inputs.img, inputs.floats)
        expected = reference.q_values(
            net.config, net.state_dict(), inputs.img, inputs.floats, hf_models=hf_models
        )
    assert_agrees(mean, expected, tolerance, "q_values")


def build_without_warnings(config: Mapping[str, Any]) -> Any:
    """`build(strict=True)`, any warning being an error."""
    import iqn_blocks

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return iqn_blocks.build(config, strict=True)
