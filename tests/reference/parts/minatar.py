"""MinAtar's stem (arXiv:1903.03176): 16 of k3 s1, a ReLU."""

from __future__ import annotations

from torch import Tensor

from ..layers import relu
from ..parameters import Parameters
from ..stems import conv
from .readout import readout


def minatar(params: Parameters, img: Tensor, kind: str = "flatten", size: int = 1) -> Tensor:
    """(B, C, H, W) -> (B, 16·(H − 2)·(W − 2))."""
    return readout(relu(conv(params.under("convs.0"), img, 16, 3)), kind, size)
