"""One step of long short-term memory, unit by unit."""

from __future__ import annotations

import torch
from torch import Tensor

from tests.reference.parameters import Parameters


def lstm_step(
    params: Parameters, state: Tensor, memory: Tensor, reset: Tensor | None
) -> tuple[Tensor, Tensor]:
    """c' = f c + i g and h' = o tanh(c'), the memory [h, c] being 0 where an episode begins.

    i, f, o = σ(W s + b + U h + c₀), g = tanh of the same form; the rows of the packed matrices are
    those of i, f, g, o in turn. state: (B, D), memory: (B, 2·M).
    """
    width = memory.shape[1] // 2
    w = params.shaped("cell.weight_ih", 4 * width, state.shape[1])
    u = params.shaped("cell.weight_hh", 4 * width, width)
    b, b2 = params.shaped("cell.bias_ih", 4 * width), params.shaped("cell.bias_hh", 4 * width)
    states, memories = [], []
    for k in range(len(state)):
        begins = reset is not None and bool(reset[k])
        before = torch.zeros_like(memory[k]) if begins else memory[k]
        h, c = before[:width], before[width:]
        new_h, new_c = [], []
        for j in range(width):
            i, f, g, o = (
                w[row] @ state[k] + b[row] + u[row] @ h + b2[row]
                for row in (j, width + j, 2 * width + j, 3 * width + j)
            )
            cell = torch.sigmoid(f) * c[j] + torch.sigmoid(i) * torch.tanh(g)
            new_c.append(cell)
            new_h.append(torch.sigmoid(o) * torch.tanh(cell))
        states.append(torch.stack(new_h))
        memories.append(torch.stack(new_h + new_c))
    return torch.stack(states), torch.stack(memories)
