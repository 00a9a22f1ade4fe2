"""Bytes kept for backward, and the peak of a training step."""

from __future__ import annotations

from collections.abc import Callable
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from benchmarks.timing import Call


def saved_bytes(forward: Callable[[], Tensor], device: torch.device) -> int:
    """Bytes that a forward leaves alive: its result, and what backward needs."""
    forward()
    if device.type == "cuda":
        torch.cuda.synchronize()
        before = torch.cuda.memory_allocated(device)
        result = forward()
        torch.cuda.synchronize()
        saved = torch.cuda.memory_allocated(device) - before
    else:
        with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as trace:
            result = forward()
        saved = sum(_changes(trace))
    del result  # alive until here
    return saved


def peak_bytes(step: Call, device: torch.device) -> int:
    """Most bytes that a step holds at a time, beyond what was there before it."""
    step()
    if device.type == "cuda":
        torch.cuda.synchronize()
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        step()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated(device) - before
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as trace:
        step()
    return max(accumulate(_changes(trace)))


def _changes(trace: Any) -> list[int]:
    """What was allocated (positive) and freed (negative) on the CPU, in order."""
    events = [e for e in trace.profiler.kineto_results.events() if e.name() == "[memory]"]
    return [event.nbytes() for event in sorted(events, key=lambda event: event.start_ns())]
