"""How long a network takes on this machine."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator

import torch

from iqn_blocks.fast.folded import InferenceIQN
from iqn_blocks.fast.optimize import optimize_for_inference
from iqn_blocks.losses import quantile_huber_loss
from iqn_blocks.network import IQN
from iqn_blocks.recurrent import RecurrentIQN


def bench(net: IQN, batch: int) -> Iterator[tuple[str, float]]:
    """What was timed, and its median in milliseconds: acting on 1 and ``batch``, and training.

    Acting is ``q_values``, of the network as it is and of its folded copy. A training step is a
    forward, the quantile Huber loss, a backward and a step of Adam; it changes the network. One
    with memory has no folded copy, and is timed at single steps.
    """
    forms: dict[str, IQN | InferenceIQN] = {"": net}
    if not isinstance(net, RecurrentIQN):
        forms[", folded copy"] = optimize_for_inference(net)
    for rows in (1, batch):
        inputs = net.example_inputs(rows)
        for name, acting in forms.items():
            with torch.no_grad():
                yield f"act on {rows}{name}", _median(lambda f=acting: f.q_values(*inputs))  # type: ignore[misc]  # noqa: B023
    yield f"train on {batch}", _median(_training_step(net, batch))


def _training_step(net: IQN, batch: int) -> Callable[[], object]:
    inputs, optimizer = net.example_inputs(batch), torch.optim.Adam(net.parameters())

    def step() -> None:
        optimizer.zero_grad()
        q, tau, *_ = net.quantiles(*inputs, scheme="uniform")
        values = q.flatten(2)[..., 0]
        loss = quantile_huber_loss(values, torch.zeros_like(values), tau).mean()
        torch.autograd.backward(loss)
        optimizer.step()

    return step


def _median(run: Callable[[], object], seconds: float = 2.0) -> float:
    """Milliseconds of a call, of those that fit the time; the first two are not counted."""
    times: list[float] = []
    end = time.perf_counter() + seconds
    while len(times) < 5 or time.perf_counter() < end:
        start = time.perf_counter()
        run()
        times.append(1000 * (time.perf_counter() - start))
    return statistics.median(times[2:])
