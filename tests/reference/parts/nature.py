"""The stem of DQN (Nature 518, 2015): 32 of k8 s4, 64 of k4 s2, 64 of k3 s1, a ReLU after each."""

from __future__ import annotations

from torch import Tensor

from ..layers import relu
from ..parameters import Parameters
from ..stems import conv
from .readout import readout


def nature(params: Parameters, img: Tensor, kind: str = "flatten", size: int = 1) -> Tensor:
    """(B, C, H, W) -> (B, out_dim)."""
    x = relu(conv(params.under("convs.0"), img, 32, 8, stride=4))
    x = relu(conv(params.under("convs.1"), x, 64, 4, stride=2))
    x = relu(conv(params.under("convs.2"), x, 64, 3, stride=1))
    return readout(x, kind, size)
