"""Convolution under spectral normalisation."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from iqn_blocks.functional import wide_dtype

WARM_UP_ITERATIONS = 15


class SpectralNormConv2d(nn.Conv2d):
    """``nn.Conv2d`` with weight ``W / σ``, ``σ = uᵀ W v`` and ``W`` as ``(out, in·k·k)``.

    ``(B, in, H, W) -> (B, out, H', W')`` as for a Conv2d; ``u (out,)``, ``v (in·k·k,)``.
    Spectral normalisation (arXiv:1802.05957, algorithm 1). ``u`` and ``v`` are buffers, and the
    gradient treats them as constants. A forward in training mode does one power iteration, one in
    eval mode none, unless ``iterate_in_eval`` is set: set it for a target network whose trainer
    copies parameters but not buffers. For a zero ``W``, ``u`` and ``v`` stay and ``σ`` counts as 1.

    The parameter stays the plain ``weight``: the module copies, pickles and loads like a Conv2d.
    """

    u: Tensor
    v: Tensor

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        stride: int = 1,
        padding: int = 0,
    ) -> None:
        super().__init__(in_channels, out_channels, kernel_size, stride, padding)
        self.geometry = kernel_size, stride, padding
        self.iterate_in_eval = False
        self.register_buffer("u", F.normalize(torch.randn(out_channels), dim=0))
        self.register_buffer("v", F.normalize(torch.randn(self.weight[0].numel()), dim=0))
        self.warm_up()

    @torch.no_grad()
    def warm_up(self, iterations: int = WARM_UP_ITERATIONS) -> None:
        """Bring ``u`` and ``v`` near the leading singular pair: ``σ > 0`` from the start."""
        if self.weight.is_meta:  # no values, and hundreds of slow calls
            return
        for _ in range(iterations):
            u, v = self._power_iteration(self.u, self.v)
            self.u.copy_(u)
            self.v.copy_(v)

    def normalized_weight(self) -> Tensor:
        """``W / σ`` at the present ``u`` and ``v``, in the weight's shape and dtype."""
        return self._divide_by_sigma(self.u, self.v)

    def forward(self, x: Tensor) -> Tensor:
        u, v = self.u, self.v
        if self.training or self.iterate_in_eval:
            # σ uses the new vectors, not the buffers, which a later forward overwrites.
            u, v = self._power_iteration(u, v)
            with torch.no_grad():
                self.u.copy_(u)
                self.v.copy_(v)
        weight = self._divide_by_sigma(u, v)
        return F.conv2d(x, weight, self.bias, self.stride, self.padding)

    @torch.no_grad()
    def _power_iteration(self, u: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        weight = self._matrix()
        v = _unit_or(weight.T, u.to(weight.dtype), v.to(weight.dtype))
        u = _unit_or(weight, v, u.to(weight.dtype))
        return u, v

    def _divide_by_sigma(self, u: Tensor, v: Tensor) -> Tensor:
        weight = self._matrix()
        # Products and sums, since autocast keeps these in full precision.
        sigma = (u.to(weight.dtype)[:, None] * weight * v.to(weight.dtype)).sum()
        sigma = torch.where(sigma == 0, torch.ones_like(sigma), sigma)
        return (self.weight / sigma).to(self.weight.dtype)

    def _matrix(self) -> Tensor:
        return self.weight.flatten(1).to(wide_dtype(self.weight.dtype))


def _unit_or(matrix: Tensor, x: Tensor, fallback: Tensor) -> Tensor:
    """``M x`` normalised to length 1, or ``fallback`` where ``M x = 0``."""
    product = (matrix * x).sum(1)
    norm = product.norm()
    return torch.where(norm > 0, product / torch.where(norm > 0, norm, 1), fallback)
