"""The base of recurrent cores: a memory in one tensor, and its reset."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Core(nn.Module):
    """One step through time: ``(s (B, D), memory (B, M), reset (B,)) -> (s' (B, D'), memory)``.

    ``state_dim`` is ``D'``, ``memory_dim`` is ``M``. A subclass defines :meth:`step`, which can
    ignore episodes: the memory is :meth:`initial_memory` before it where ``reset`` is True.
    """

    def __init__(self, state_dim: int, memory_dim: int) -> None:
        super().__init__()
        self.state_dim, self.memory_dim = state_dim, memory_dim

    def forward(
        self, state: Tensor, memory: Tensor, reset: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        if reset is not None:
            start = self.initial_memory(memory.shape[0]).to(memory)
            memory = torch.where(reset[:, None], start, memory)
        return self.step(state, memory)

    def step(self, state: Tensor, memory: Tensor) -> tuple[Tensor, Tensor]:
        """The step inside one episode: ``(B, D), (B, M) -> (B, D'), (B, M)``."""
        raise NotImplementedError

    def initial_memory(self, batch: int) -> Tensor:
        """The memory at the start of an episode ``(B, M)``: zeros, unless a subclass has others."""
        like = next(self.parameters())
        return torch.zeros(batch, self.memory_dim, dtype=like.dtype, device=like.device)
