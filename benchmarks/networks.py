"""The two networks of a scenario, and the proof that they are one."""

from __future__ import annotations

import copy
from typing import NamedTuple

import torch
from torch import Tensor

import iqn_blocks
from benchmarks.literal import LiteralIQN, gradients_of
from benchmarks.scenarios import Scenario
from iqn_blocks.functional import sample_tau

VALUES, GRADIENTS = 1e-10, 1e-9  # of the largest number of a tensor, in float64


class Pair(NamedTuple):
    """The library's network and the literal one, with the same weights and noise."""

    ours: iqn_blocks.IQN
    literal: LiteralIQN


class Batch(NamedTuple):
    """Inputs of a call: ``img (B, C, H, W)`` or None, ``floats (B, F)``, ``tau (K·B, 1)``."""

    img: Tensor | None
    floats: Tensor
    tau: Tensor


def build_pair(scenario: Scenario, device: torch.device) -> Pair:
    """Both networks on ``device``, noise on; they are compared on the way."""
    torch.manual_seed(0)
    net = iqn_blocks.build(scenario.config, strict=True)
    net.reset_noise()
    pair = Pair(net, LiteralIQN(net))
    check_same(pair)
    return Pair(net.to(device), pair.literal.to(device))


def draw_batch(net: iqn_blocks.IQN, batch: int, num_quantiles: int) -> Batch:
    """Inputs and τ on the network's device."""
    img, floats = net.example_inputs(batch)
    assert floats is not None
    tau = sample_tau(batch, num_quantiles, device=floats.device, dtype=floats.dtype)
    return Batch(img, floats, tau)


@torch.enable_grad()
def check_same(pair: Pair) -> None:
    """Compare values and gradients in float64, where rounding cannot hide a difference.

    In eval mode: PyTorch's power iteration takes its two steps in the other order.

    Raises:
        AssertionError: they differ.
    """
    net = copy.deepcopy(pair.ours).double().eval()
    literal = copy.deepcopy(pair.literal).double().eval()
    literal.load(net)  # the out × in noise was rounded to float32
    img, floats, tau = draw_batch(net, 2, 2)
    ours, _ = net(img, floats, tau=tau)
    plain = literal(img, floats, tau)
    assert_close(ours, plain, VALUES, "q")
    weight = torch.linspace(-1, 1, ours.numel(), dtype=ours.dtype).view_as(ours)
    torch.autograd.backward([ours, plain], [weight, weight])
    wanted = {name: p.grad for name, p in literal.network.named_parameters()}
    found = gradients_of(net)
    floor = max(gradient.abs().max().item() for gradient in found.values()) * 1e-6
    for name, gradient in wanted.items():
        assert gradient is not None, name
        assert_close(found[name], gradient, GRADIENTS, f"gradient of {name}", floor)
    assert len(wanted) == len(list(net.parameters()))
    with torch.no_grad():
        assert_close(
            net.q_values(img, floats), literal.q_values(img, floats), VALUES, "mean values"
        )


def assert_close(
    found: Tensor, wanted: Tensor, tolerance: float, what: str, floor: float = 0.0
) -> None:
    """``max|Δ| ≤ tolerance · max|wanted|``, or ``tolerance · floor`` where that is larger."""
    assert found.shape == wanted.shape, f"{what}: {tuple(found.shape)}, {tuple(wanted.shape)}"
    error = (found.double() - wanted.double()).abs().max().item()
    allowed = tolerance * max(wanted.abs().max().item(), floor)
    assert error <= allowed, f"{what}: differs by {error:.3g}, {allowed:.3g} is allowed"
