"""SimBa (arXiv:2410.09754, section 4)."""

from __future__ import annotations

from torch import Tensor

from ..layers import layer_norm, linear, relu
from ..parameters import Parameters


def simba(params: Parameters, x: Tensor, *, width: int, blocks: int, expansion: int = 4) -> Tensor:
    """x ← W x + b; x ← x + W₂ ReLU(W₁ LN(x) + b₁) + b₂ for each block; LN(x). (R, in) -> (R, h)."""
    x = linear(params.under("embedding"), x, width)
    for index in range(blocks):
        block = params.under(f"blocks.{index}")
        inner = linear(
            block.under("linear1"), layer_norm(block.under("norm"), x), expansion * width
        )
        x = x + linear(block.under("linear2"), relu(inner), width)
    return layer_norm(params.under("norm"), x)


def simba_head(
    params: Parameters,
    x: Tensor,
    *,
    out_shape: tuple[int, ...],
    width: int,
    blocks: int,
    expansion: int = 4,
) -> Tensor:
    """A Linear of that: (R, in) -> (R, *out_shape)."""
    x = simba(params.under("trunk"), x, width=width, blocks=blocks, expansion=expansion)
    n_outputs = 1
    for size in out_shape:
        n_outputs *= size
    return linear(params.under("readout"), x, n_outputs).reshape(len(x), *out_shape)
