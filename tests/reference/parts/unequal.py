"""Dueling of a block whose offsets have unequally many actions."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def unequal_dueling(value: Tensor, advantage: Tensor, sizes: Sequence[int]) -> list[Tensor]:
    """q[n, a] = V + A[n, a] − 1/|A_n| Σ_{a' < |A_n|} A[n, a'], for a < |A_n|.

    value: (R, 1), advantage: (R, N, max |A_n|) -> (R, |A_n|) for each n.
    """
    offsets = []
    for n, size in enumerate(sizes):
        rows = []
        for v, row in zip(value, advantage[:, n], strict=True):
            centre = sum(row[a] for a in range(size)) / size
            rows.append(torch.stack([v[0] + row[a] - centre for a in range(size)]))
        offsets.append(torch.stack(rows))
    return offsets
