"""How a run measures: device, sizes, repetitions, compilation."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

import torch
from torch import nn

from benchmarks.scenarios import Sizes
from benchmarks.timing import Clock


class Setup(NamedTuple):
    """The choices of one run."""

    device: torch.device
    sizes: Sizes
    repetitions: int
    compiled: bool = True

    @property
    def cuda(self) -> bool:
        """Whether the device is a CUDA one."""
        return self.device.type == "cuda"

    @property
    def clock(self) -> Clock:
        """The clock of the device."""
        return Clock(self.device)

    def training_autocast(self) -> AbstractContextManager[Any]:
        """bfloat16 autocast on CUDA, nothing on a CPU."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.cuda)

    @property
    def training_dtype(self) -> torch.dtype:
        """The dtype of the matrix products in training."""
        return torch.bfloat16 if self.cuda else torch.float32

    def compile_training(self, network: nn.Module, *, fullgraph: bool = True) -> Callable[..., Any]:
        """The network compiled for one batch size; ``max-autotune`` on CUDA."""
        return self._compile(network, "max-autotune" if self.cuda else "default", fullgraph)

    def compile_acting(self, call: Callable[..., Any], mode: str) -> Callable[..., Any]:
        """A call without gradients compiled for one batch size, in one of the acting modes."""
        return self._compile(call, mode, True)

    @property
    def acting_modes(self) -> tuple[str, ...]:
        """Ways to compile for acting: those that replay CUDA graphs; none on a CPU."""
        return ("reduce-overhead", "max-autotune") if self.cuda else ()

    def _compile(self, call: Callable[..., Any], mode: str, fullgraph: bool) -> Callable[..., Any]:
        compiled: Callable[..., Any] = torch.compile(
            call, fullgraph=fullgraph, dynamic=False, mode=mode
        )
        if not self.cuda:
            return compiled

        def step(*args: Any, **kwargs: Any) -> Any:
            torch.compiler.cudagraph_mark_step_begin()  # type: ignore[no-untyped-call]
            return compiled(*args, **kwargs)

        return step
