"""A network in memory that processes share: what one of them changes, the others see."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import multiprocessing

import iqn_blocks
from tests.configs import tiny_btr

STEPS = ("silent", "drawn", "drawn again", "silent again")


def act(net: Any, inputs: Any, asked: Any, answers: Any) -> None:
    """An actor: q-values of its network whenever it is asked."""
    torch.set_num_threads(1)
    for _ in iter(asked.get, None):
        with torch.no_grad():
            answers.put(net.q_values(*inputs).numpy())


def test_actors_see_new_noise_and_none() -> None:
    torch.manual_seed(0)
    net = iqn_blocks.build(tiny_btr()).eval()
    net.share_memory()
    inputs = net.example_inputs(2)
    context = multiprocessing.get_context("spawn")
    asked, answers = context.Queue(), context.Queue()
    actor = context.Process(target=act, args=(net, inputs, asked, answers), daemon=True)
    actor.start()
    seen = {}
    for step in STEPS:
        if step.startswith("drawn"):
            net.reset_noise()
        else:
            net.disable_noise()
        asked.put(True)
        seen[step] = torch.from_numpy(answers.get(timeout=60))
        with torch.no_grad():
            torch.testing.assert_close(seen[step], net.q_values(*inputs))
    asked.put(None)
    actor.join(timeout=60)
    assert actor.exitcode == 0
    assert torch.equal(seen["silent"], seen["silent again"])
    assert not torch.allclose(seen["silent"], seen["drawn"])
    assert not torch.allclose(seen["drawn"], seen["drawn again"])


@pytest.mark.parametrize("shared", [False, True])
def test_a_graph_keeps_its_noise_unless_memory_is_shared(shared: bool) -> None:
    net = iqn_blocks.build(tiny_btr()).eval()
    if shared:
        net.share_memory()
    net.reset_noise()
    q, _ = net(*net.example_inputs(2))
    net.reset_noise()
    if shared:
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            q.sum().backward()
    else:
        q.sum().backward()
