"""SimBa: pre-norm residual blocks, as a head and over the floats."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from iqn_blocks.kinds import Layers, Size, SizeOrNull
from iqn_blocks.registry import register


class SimbaBlock(nn.Module):
    """``x + W₂ ReLU(W₁ LN(x) + b₁) + b₂``, ``expansion`` times as wide inside: ``(…, h)``."""

    def __init__(self, width: int, expansion: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.linear1 = nn.Linear(width, expansion * width)
        self.linear2 = nn.Linear(expansion * width, width)
        for linear in (self.linear1, self.linear2):
            nn.init.kaiming_normal_(linear.weight, nonlinearity="relu")
            nn.init.zeros_(linear.bias)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.linear2(torch.relu_(self.linear1(self.norm(x))))
        return out.add_(x)


@register("simba", slot="floats")
class Simba(nn.Module):
    """SimBa's trunk (arXiv:2410.09754, section 4): ``LN(blocks(W x + b))``, ``(B, F) -> (B, h)``.

    ``float_inputs_mean`` and ``_std`` replace its running normalisation of the input. The input is
    cast to the parameters' dtype. Initial weights are the paper's: orthogonal for ``W``, He's in
    the blocks; ``nn.init: orthogonal`` replaces them in the classic encoder and the heads.

    Args:
        hidden_dim: width h; the paper's critic has 512.
        n_blocks: residual blocks.
        expansion: how much wider a block is inside.
    """

    def __init__(
        self, n_floats: int, *, hidden_dim: Size = 512, n_blocks: Layers = 2, expansion: Size = 4
    ) -> None:
        super().__init__()
        self.out_dim = hidden_dim
        self.embedding = nn.Linear(n_floats, hidden_dim)
        nn.init.orthogonal_(self.embedding.weight)
        nn.init.zeros_(self.embedding.bias)
        self.blocks = nn.Sequential(*(SimbaBlock(hidden_dim, expansion) for _ in range(n_blocks)))
        self.norm = nn.LayerNorm(hidden_dim)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.norm(self.blocks(self.embedding(x.to(self.embedding.weight.dtype))))
        return out


@register("simba", slot="head")
class SimbaHead(nn.Module):
    """A readout of :class:`Simba`: ``(R, in_dim) -> (R, *out_shape)``.

    Args:
        hidden_dim: width; null takes half of nn.decoder.dense_hidden_dimension (512 by hand).
        n_blocks: residual blocks.
        expansion: how much wider a block is inside.
    """

    def __init__(
        self,
        in_dim: int,
        out_shape: tuple[int, ...],
        *,
        hidden_dim: SizeOrNull = None,
        n_blocks: Layers = 2,
        expansion: Size = 4,
    ) -> None:
        super().__init__()
        self.out_shape = out_shape
        self.trunk = Simba(
            in_dim, hidden_dim=hidden_dim or 512, n_blocks=n_blocks, expansion=expansion
        )
        self.readout = nn.Linear(self.trunk.out_dim, math.prod(out_shape))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.readout(self.trunk(x))
        return out.view(out.shape[0], *self.out_shape)
