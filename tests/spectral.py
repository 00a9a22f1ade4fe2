"""What spectral normalisation divides by, of every convolution of a network."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from iqn_blocks.blocks import SpectralNormConv2d


def sigmas(module: nn.Module) -> tuple[np.ndarray, np.ndarray]:
    """σ by the vectors of the moment, and the largest singular value, of every convolution."""
    convs = [m for m in module.modules() if isinstance(m, SpectralNormConv2d)]
    matrices = [conv.weight.detach().flatten(1) for conv in convs]
    used = [(c.u @ w @ c.v).item() for c, w in zip(convs, matrices, strict=True)]
    return np.array(used), np.array([torch.linalg.matrix_norm(w, 2).item() for w in matrices])


def copy_parameters(source: nn.Module, target: nn.Module) -> None:
    """Parameters alone, no buffers, as trainers do."""
    with torch.no_grad():
        for own, live in zip(target.parameters(), source.parameters(), strict=True):
            own.copy_(live)
