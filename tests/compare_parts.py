"""Compare a part with its reference: values and gradients, over whole tensors."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from tests import reference
from tests.compare import TOLERANCES, assert_agrees, slopes

Equation = Callable[..., Tensor]


def perturb(part: nn.Module, generator: torch.Generator) -> None:
    """Add noise to every parameter, so that none is zero or one by its initialisation."""
    with torch.no_grad():
        for parameter in part.parameters():
            fan_in = max(1, parameter[0].numel()) if parameter.dim() > 1 else 1
            noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            parameter += (0.2 * noise / math.sqrt(fan_in)).to(parameter.dtype)


def compare_part(
    part: nn.Module,
    equation: Equation,
    inputs: Sequence[Tensor],
    *more: object,
    dtype: torch.dtype = torch.float64,
    call: Equation | None = None,
    unread: tuple[str, ...] = (),
) -> None:
    """`part(*inputs, *more)` against `equation(params, *inputs)`, and the slopes of both.

    `call` is what of the part is called, if not its forward. The equation must read every tensor of
    the part's state, but for those whose name begins with one of `unread`.
    """
    values, gradients = TOLERANCES[dtype]
    part = part.to(dtype)
    leaves = [x.to(dtype).requires_grad_() for x in inputs]
    copies = [x.to(dtype).requires_grad_() for x in inputs]
    state = {name: tensor.detach().clone() for name, tensor in part.state_dict().items()}
    names = [name for name, _ in part.named_parameters()]
    for name in names:
        state[name].requires_grad_()
    params = reference.Parameters(state)

    found, expected = (call or part)(*leaves, *more), equation(params, *copies)
    left = {name for name in state if name not in params.read and not name.startswith(unread)}
    assert not left, f"not in the equations: {left}"
    assert_agrees(found, expected, values, "values")
    weights = torch.randn(found.shape, generator=torch.Generator().manual_seed(0)).to(dtype)
    own = slopes((found * weights).sum(), [*leaves, *part.parameters()])
    other = slopes((expected * weights).sum(), [*copies, *(state[name] for name in names)])
    # What is zero by symmetry is so up to rounding.
    least = 1e-3 if dtype == torch.float32 else 1e-6
    floor = least * max(slope.abs().max().item() for slope in other)
    for name, one, two in zip([*map(str, range(len(inputs))), *names], own, other, strict=True):
        error = (one - two).abs().max().item()
        allowed = gradients * max(two.abs().max().item(), floor)
        assert error <= allowed, f"gradient of {name}: error {error:.3g}, allowed {allowed:.3g}"


def compare_both(
    part: nn.Module,
    equation: Equation,
    draw: Callable[[torch.Generator], Sequence[Tensor]],
    *more: object,
) -> None:
    """`compare_part` in float64, then in float32.

    Within rounding of a kink two gradients are right: it takes three draws in a row to disagree.
    """
    generator = torch.Generator().manual_seed(0)
    perturb(part, generator)
    compare_part(part, equation, draw(generator), *more)
    for left in (2, 1, 0):
        try:
            compare_part(part, equation, draw(generator), *more, dtype=torch.float32)
        except AssertionError:
            if left == 0:
                raise
        else:
            return
