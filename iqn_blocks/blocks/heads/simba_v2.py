"""SimbaV2: residual blocks on the unit sphere, as a head and over the floats."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from iqn_blocks.functional import wide_dtype
from iqn_blocks.kinds import Layers, Positive, Size, SizeOrNull
from iqn_blocks.registry import register

EPSILON = 1e-8  # the smallest divisor, and the constant that keeps a ReLU's output from zero


def unit(x: Tensor) -> Tensor:
    """``x / ‖x‖`` along the last axis, computed in float32 or wider."""
    wide = x.to(wide_dtype(x.dtype))
    return F.normalize(wide, dim=-1, eps=EPSILON).to(x.dtype)


class UnitLinear(nn.Module):
    """``W x`` with rows of unit norm and without bias: ``(…, in) -> (…, out)``.

    The rows have unit norm at the start and after each :meth:`project_`, but not between.
    """

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(out_features, in_features))
        nn.init.orthogonal_(self.weight)
        self.project_()

    @torch.no_grad()
    def project_(self) -> None:
        """Scale each row to unit norm, in place."""
        if not self.weight.is_meta:  # without values it would only cost time
            self.weight.copy_(unit(self.weight))

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight)

    def extra_repr(self) -> str:
        return f"{self.weight.shape[1]}, {self.weight.shape[0]}"


def project_simba_v2_(net: nn.Module) -> None:
    """Bring the weights of all SimbaV2 parts of ``net`` back to unit norm, in place.

    A trainer calls it after each step of its optimiser.

    >>> head = SimbaV2Head(4, (3,), hidden_dim=8)
    >>> optimizer = torch.optim.Adam(head.parameters())
    >>> head(torch.ones(2, 4)).sum().backward()
    >>> optimizer.step()
    >>> project_simba_v2_(head)
    """
    for layer in net.modules():
        if isinstance(layer, UnitLinear):
            layer.project_()


class Scaler(nn.Module):
    """``s ⊙ x`` with a learned vector that starts at ``start``: ``(…, width)`` in and out.

    ``s`` is the parameter times ``start / scale``; the parameter starts at ``scale``, which sets
    how fast it learns.
    """

    def __init__(self, width: int, start: float, scale: float) -> None:
        super().__init__()
        self.factor = start / scale
        self.scaler = nn.Parameter(torch.full((width,), scale))

    def forward(self, x: Tensor) -> Tensor:
        return x * (self.scaler * self.factor)


class SimbaV2Block(nn.Module):
    """``x ← unit((1 − α) ⊙ x + α ⊙ y)``, ``y = unit(W₂ ReLU(s ⊙ W₁ x))``: ``(…, h)``.

    ``α`` is a learned vector that starts at ``lerp``.
    """

    def __init__(self, width: int, expansion: int, lerp: float) -> None:
        super().__init__()
        wide = expansion * width
        self.linear1 = UnitLinear(width, wide)
        self.scaler = Scaler(wide, math.sqrt(2 / wide), math.sqrt(2 / wide))
        self.linear2 = UnitLinear(wide, width)
        self.lerp = Scaler(width, lerp, 1 / math.sqrt(width))

    def forward(self, x: Tensor) -> Tensor:
        hidden = torch.relu(self.scaler(self.linear1(x)))
        # float16 has no such number as EPSILON.
        hidden = hidden + max(EPSILON, torch.finfo(hidden.dtype).tiny)
        y = unit(self.linear2(hidden))
        return unit(x + self.lerp(y - x))


@register("simba_v2", slot="floats")
class SimbaV2(nn.Module):
    """SimbaV2's trunk (arXiv:2502.15280, section 4): ``blocks(unit(s ⊙ W unit([x, shift])))``.

    ``(B, F) -> (B, h)``, of unit norm. ``float_inputs_mean`` and ``_std`` replace its running
    normalisation of the input. The input is cast to the parameters' dtype. Constants that the paper
    does not give, such as those of the scalers, are those of its program. After each step a trainer
    calls :func:`project_simba_v2_`.

    Args:
        hidden_dim: width h; the paper's critic has 512.
        n_blocks: residual blocks.
        expansion: how much wider a block is inside.
        shift: the constant appended to the input, which keeps its length visible.
    """

    def __init__(
        self,
        n_floats: int,
        *,
        hidden_dim: Size = 512,
        n_blocks: Layers = 2,
        expansion: Size = 4,
        shift: Positive = 3.0,
    ) -> None:
        super().__init__()
        self.out_dim, self.shift = hidden_dim, shift
        self.embedding = UnitLinear(n_floats + 1, hidden_dim)
        self.scaler = Scaler(hidden_dim, math.sqrt(2 / hidden_dim), math.sqrt(2 / hidden_dim))
        lerp = 1 / (n_blocks + 1)
        self.blocks = nn.Sequential(
            *(SimbaV2Block(hidden_dim, expansion, lerp) for _ in range(n_blocks))
        )

    def forward(self, x: Tensor) -> Tensor:
        x = F.pad(x.to(self.embedding.weight.dtype), (0, 1), value=self.shift)
        out: Tensor = self.blocks(unit(self.scaler(self.embedding(unit(x)))))
        return out


class SimbaV2Readout(nn.Module):
    """``W₂ (s ⊙ W₁ x) + b``: ``(R, h) -> (R, out)``; ``s`` starts at 1, ``b`` at 0."""

    def __init__(self, width: int, out_features: int) -> None:
        super().__init__()
        self.linear1 = UnitLinear(width, width)
        self.scaler = Scaler(width, 1.0, 1.0)
        self.linear2 = UnitLinear(width, out_features)
        self.bias = nn.Parameter(torch.zeros(out_features))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.linear2(self.scaler(self.linear1(x)))
        return out + self.bias


@register("simba_v2", slot="head")
class SimbaV2Head(nn.Module):
    """A readout of :class:`SimbaV2`, that of its critic: ``(R, in_dim) -> (R, *out_shape)``.

    The critic's outputs are logits of bins there. After each step a trainer calls
    :meth:`project_`, or :func:`project_simba_v2_` of the whole network.

    Args:
        hidden_dim: width; null takes half of nn.decoder.dense_hidden_dimension (512 by hand).
        n_blocks: residual blocks.
        expansion: how much wider a block is inside.
        shift: the constant appended to the input, which keeps its length visible.
    """

    def __init__(
        self,
        in_dim: int,
        out_shape: tuple[int, ...],
        *,
        hidden_dim: SizeOrNull = None,
        n_blocks: Layers = 2,
        expansion: Size = 4,
        shift: Positive = 3.0,
    ) -> None:
        super().__init__()
        self.out_shape = out_shape
        self.trunk = SimbaV2(
            in_dim,
            hidden_dim=hidden_dim or 512,
            n_blocks=n_blocks,
            expansion=expansion,
            shift=shift,
        )
        self.readout = SimbaV2Readout(self.trunk.out_dim, math.prod(out_shape))

    def project_(self) -> None:
        """Bring the weights back to unit norm, in place."""
        project_simba_v2_(self)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.readout(self.trunk(x))
        return out.view(out.shape[0], *self.out_shape)
