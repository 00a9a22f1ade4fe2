"""What becomes of a stem's last feature map."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def readout(x: Tensor, kind: str, size: int = 1) -> Tensor:
    """(B, C, H, W) -> (B, C·H·W), pooled (B, C·n·n), or tokens (B, H·W, C) row by row.

    Cell i of n pools the rows ⌊i·H/n⌋ … ⌈(i+1)·H/n⌉ − 1, and columns alike.
    """
    batch, height, width = len(x), *x.shape[2:]
    if kind == "flatten":
        return x.reshape(batch, -1)
    if kind == "tokens":
        positions = [x[:, :, i, j] for i in range(height) for j in range(width)]
        return torch.stack(positions, dim=1)
    cells = []
    for i in range(size):
        rows = range(i * height // size, math.ceil((i + 1) * height / size))
        for j in range(size):
            columns = range(j * width // size, math.ceil((j + 1) * width / size))
            inside = torch.stack([x[:, :, a, b] for a in rows for b in columns])
            cells.append(inside.amax(0) if kind == "max" else inside.sum(0) / len(inside))
    return torch.stack(cells, dim=-1).reshape(batch, -1)
