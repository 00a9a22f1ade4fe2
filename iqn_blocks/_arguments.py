"""Checks of arguments that several modules share, and the nearest divisor for their messages."""

from __future__ import annotations

from numbers import Real
from typing import Any, get_args


def checked_number(name: str, value: float, accepted: str, *, low: float, high: float) -> float:
    """``value`` as a float if it is a number in ``[low, high]``.

    The bounds are finite; ``accepted`` puts them in words, for the message.

    Raises:
        ValueError: not a number (a bool is none), NaN, infinite, or outside the range.
    """
    if isinstance(value, Real) and not isinstance(value, bool):
        number = float(value)
        if low <= number <= high:
            return number
    raise ValueError(f"{name}: got {value!r}, accepted is {accepted}")


def check_choice(name: str, value: object, literal: Any) -> None:
    """Check that ``value`` is one of the names of a ``Literal`` type.

    Raises:
        ValueError: it is not; the message lists the names.
    """
    if value not in get_args(literal):
        accepted = ", ".join(map(repr, get_args(literal)))
        raise ValueError(f"{name}: got {value!r}, accepted are {accepted}")


def heads_fault(d_model: int, n_heads: int, path: str = "") -> str:
    """What to say where ``n_heads`` does not divide ``d_model``, both below ``path``."""
    return (
        f"{path}n_heads: found {n_heads}, which does not divide {path}d_model = {d_model}; "
        f"accepted: a divisor of it; set n_heads to {nearest_divisor((d_model,), n_heads)}, or "
        f"change d_model"
    )


def nearest_divisor(numbers: tuple[int, ...], near: int, *, multiple_of: int = 1) -> int:
    """The common divisor of ``numbers`` closest to ``near``, if possible a multiple."""
    divisors = [
        candidate
        for distance in range(near)
        for candidate in (near - distance, near + distance)
        if not any(number % candidate for number in numbers)
    ]
    return next((d for d in divisors if d % multiple_of == 0), divisors[0])
