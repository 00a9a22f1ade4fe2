"""One thread refreshes a copy while others act: every value is that of one version."""

from __future__ import annotations

import copy
import threading

import pytest
import torch

import iqn_blocks
from iqn_blocks import optimize_for_inference
from tests.configs import tiny_btr, tiny_float

ACTORS, VERSIONS = 8, 4


def versions_of(net):
    """Networks that differ everywhere, and networks that differ from those in their noise alone."""
    nets = []
    for _ in range(VERSIONS):
        net = copy.deepcopy(net)
        with torch.no_grad():
            for parameter in net.parameters():
                parameter.add_(torch.randn_like(parameter) * 0.2)
        net.reset_noise()
        nets.append((net, copy.deepcopy(net)))
        nets[-1][1].reset_noise()
    return nets


@pytest.mark.parametrize(
    ("engine", "config", "rounds"),
    [
        ("torch", tiny_btr(), 25),
        ("onnxruntime", tiny_float(btr={"use_noisy_linear": True}), 10),
    ],
    ids=["torch", "onnxruntime"],
)
def test_actors_see_the_weights_of_one_version(engine, config, rounds):
    torch.manual_seed(0)
    versions = versions_of(iqn_blocks.build(config).eval())
    fast = optimize_for_inference(versions[0][0], engine=engine)
    inputs = fast.example_inputs(3)
    expected = torch.stack([net.q_values(*inputs).detach() for pair in versions for net in pair])
    seen, refreshed = [[] for _ in range(ACTORS)], threading.Event()

    def act(values):
        while not refreshed.is_set() or not values:
            values.append(fast.q_values(*inputs))

    actors = [threading.Thread(target=act, args=(values,)) for values in seen]
    for actor in actors:
        actor.start()
    for i in range(rounds):
        net, renoised = versions[i % VERSIONS]
        fast.refresh(net)
        fast.refresh_heads(renoised)
    refreshed.set()
    for actor in actors:
        actor.join()

    found = torch.stack([q for values in seen for q in values])
    errors = (found[:, None] - expected).abs().amax((2, 3)) / expected.abs().amax((1, 2))
    assert errors.amin(1).max() <= 1e-5
    assert len(errors.argmin(1).unique()) > 1  # they did see several
