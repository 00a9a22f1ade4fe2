"""One step of a gated recurrent unit, unit by unit."""

from __future__ import annotations

import torch
from torch import Tensor

from tests.reference.parameters import Parameters


def gru_step(
    params: Parameters, state: Tensor, memory: Tensor, reset: Tensor | None
) -> tuple[Tensor, Tensor]:
    """h' = (1 − z) ⊙ n + z ⊙ h, the memory of a sample whose episode begins being 0 before.

    r = σ(W_r s + b_r + U_r h + c_r), z alike, n = tanh(W_n s + b_n + r ⊙ (U_n h + c_n)); the rows
    of the packed matrices are those of r, z, n in turn. state: (B, D), memory: (B, M).
    """
    width = memory.shape[1]
    w = params.shaped("cell.weight_ih", 3 * width, state.shape[1])
    u = params.shaped("cell.weight_hh", 3 * width, width)
    b, c = params.shaped("cell.bias_ih", 3 * width), params.shaped("cell.bias_hh", 3 * width)
    rows = []
    for i in range(len(state)):
        s = state[i]
        h = torch.zeros_like(memory[i]) if reset is not None and reset[i] else memory[i]
        new = []
        for j in range(width):
            r, z, n = j, width + j, 2 * width + j
            gate = torch.sigmoid(w[r] @ s + b[r] + u[r] @ h + c[r])
            keep = torch.sigmoid(w[z] @ s + b[z] + u[z] @ h + c[z])
            candidate = torch.tanh(w[n] @ s + b[n] + gate * (u[n] @ h + c[n]))
            new.append((1 - keep) * candidate + keep * h[j])
        rows.append(torch.stack(new))
    h = torch.stack(rows)
    return h, h
