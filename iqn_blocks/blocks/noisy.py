"""Linear layer with factorised Gaussian noise."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class NoisyLinear(nn.Module):
    """``y = x (μ_w + σ_w ⊙ ε_out ε_inᵀ)ᵀ + μ_b + σ_b ⊙ ε_out`` (arXiv:1706.10295, section 3).

    ``(…, in) -> (…, out)``. The noise is two vectors, buffers in the state dict. It starts at zero,
    which turns it off, and changes only in :meth:`reset_noise` and :meth:`disable_noise`: neither
    ``forward`` nor ``train()`` nor ``eval()`` changes it.
    """

    epsilon_in: Tensor
    epsilon_out: Tensor

    def __init__(self, in_features: int, out_features: int, *, sigma0: float = 0.5) -> None:
        super().__init__()
        self.in_features = in_features
        self.out_features = out_features
        self.sigma0 = sigma0
        self.weight_mu = nn.Parameter(torch.empty(out_features, in_features))
        self.weight_sigma = nn.Parameter(torch.empty(out_features, in_features))
        self.bias_mu = nn.Parameter(torch.empty(out_features))
        self.bias_sigma = nn.Parameter(torch.empty(out_features))
        self.register_buffer("epsilon_in", torch.zeros(in_features))
        self.register_buffer("epsilon_out", torch.zeros(out_features))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """``μ ~ U(−1/√in, 1/√in)`` and ``σ = σ0/√in``, weight and bias alike."""
        bound = 1 / math.sqrt(self.in_features)
        for mu in (self.weight_mu, self.bias_mu):
            nn.init.uniform_(mu, -bound, bound)
        for sigma in (self.weight_sigma, self.bias_sigma):
            nn.init.constant_(sigma, self.sigma0 * bound)

    def reset_noise(self, generator: torch.Generator | None = None) -> None:
        """Draw new noise ``ε = sign(z)·√|z|``, ``z ~ N(0, 1)``.

        The buffers become new tensors, so that backward still works for a graph of the old ones.
        Noise in memory that processes share (``share_memory()``) is overwritten instead, so that
        all of them see it; there backward must come before new noise is drawn.
        """
        self._set_noise(*(_draw(old, generator) for old in (self.epsilon_in, self.epsilon_out)))

    def disable_noise(self) -> None:
        """Set the noise to zero: the layer is then ``x μ_wᵀ + μ_b``."""
        self._set_noise(*map(torch.zeros_like, (self.epsilon_in, self.epsilon_out)))

    def effective_weight(self) -> tuple[Tensor, Tensor]:
        """Weight ``(out, in)`` and bias ``(out,)`` under the present noise."""
        # Scaled by one vector after the other: backward then keeps no out×in matrix of noise.
        weight = torch.addcmul(
            self.weight_mu, self.weight_sigma * self.epsilon_in, self.epsilon_out[:, None]
        )
        return weight, torch.addcmul(self.bias_mu, self.bias_sigma, self.epsilon_out)

    def forward(self, x: Tensor) -> Tensor:
        weight, bias = self.effective_weight()
        return F.linear(x, weight, bias)

    def extra_repr(self) -> str:
        return f"{self.in_features}, {self.out_features}, sigma0={self.sigma0}"

    def _set_noise(self, epsilon_in: Tensor, epsilon_out: Tensor) -> None:
        if self.epsilon_in.device.type == "cpu" and self.epsilon_in.is_shared():  # type: ignore[no-untyped-call]
            with torch.no_grad():
                self.epsilon_in.copy_(epsilon_in)
                self.epsilon_out.copy_(epsilon_out)
        else:
            self.epsilon_in, self.epsilon_out = epsilon_in, epsilon_out


def _draw(like: Tensor, generator: torch.Generator | None) -> Tensor:
    device = like.device if generator is None else generator.device
    z = torch.randn(like.shape, generator=generator, device=device)
    return (z.sign() * z.abs().sqrt()).to(like)
