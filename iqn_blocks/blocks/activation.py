"""The activation after a layer: a leaky ReLU, or a ReLU."""

from __future__ import annotations

from typing import Literal

import torch.nn.functional as F
from torch import Tensor

from iqn_blocks._arguments import check_choice

Activation = Literal["leaky_relu", "relu"]


def slope_below_zero(activation: Activation) -> float:
    """The slope for negative inputs: 0.01 for a leaky ReLU, 0 for a ReLU.

    Raises:
        ValueError: another name.
    """
    check_choice("activation", activation, Activation)
    return 0.01 if activation == "leaky_relu" else 0.0


def activate_(x: Tensor, negative_slope: float) -> Tensor:
    """The leaky ReLU of ``x``, in place; a ReLU for slope 0.

    ``x`` is a new result that nothing else reads. Backward then keeps one tensor instead of two.
    """
    return F.leaky_relu_(x, negative_slope) if negative_slope else F.relu_(x)
