"""Timing of several ways to compute one thing, in turn, so that all see the same machine."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

import torch

Call = Callable[[], object]

WARM_UP_CALLS = 3
SHORTEST_SAMPLE = 0.05  # seconds: faster calls are repeated until a sample takes as long
LONGEST_COMPARISON = 12.0  # seconds, after which no repetition begins,
FEWEST_REPETITIONS = 5  # unless there were fewer than these


class Clock:
    """Wall-clock time on a CPU; on CUDA, events around one call on an idle device: its latency."""

    def __init__(self, device: torch.device) -> None:
        self.cuda = device.type == "cuda"

    def calls_per_sample(self, call: Call) -> int:
        """Warm up, and find how many calls make a sample."""
        for _ in range(WARM_UP_CALLS):
            call()
        if self.cuda:
            return 1
        start = time.perf_counter()
        call()
        seconds = time.perf_counter() - start
        return max(1, round(SHORTEST_SAMPLE / max(seconds, 1e-7)))

    def seconds(self, call: Call, calls: int) -> float:
        """Mean seconds of one call."""
        if self.cuda:
            return self._cuda_seconds(call)
        if calls > 1:
            call()  # the side before left its own data in the caches
        start = time.perf_counter()
        for _ in range(calls):
            call()
        return (time.perf_counter() - start) / calls

    @staticmethod
    def _cuda_seconds(call: Call) -> float:
        start = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        end = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        torch.cuda.synchronize()
        start.record()
        call()
        end.record()
        end.synchronize()
        return float(start.elapsed_time(end)) / 1e3


def time_sides(sides: Mapping[str, Call], clock: Clock, repetitions: int) -> dict[str, list[float]]:
    """Seconds of each side, ``repetitions`` samples each, taken in turn from a moving start.

    Slow sides get fewer samples, see ``LONGEST_COMPARISON``.
    """
    calls = {name: clock.calls_per_sample(call) for name, call in sides.items()}
    samples: dict[str, list[float]] = {name: [] for name in sides}
    names = list(sides)
    start = time.perf_counter()
    for repetition in range(repetitions):
        late = time.perf_counter() - start > LONGEST_COMPARISON
        if late and repetition >= FEWEST_REPETITIONS:
            break
        first = repetition % len(names)
        for name in names[first:] + names[:first]:
            samples[name].append(clock.seconds(sides[name], calls[name]))
    return samples
