"""Tensors out of a network under the names of another system, and back into it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from iqn_blocks.blocks import FloatNormalization, NoisyLinear
from iqn_blocks.errors import CheckpointError
from iqn_blocks.interop._naming import Row


def export(rows: Sequence[Row]) -> dict[str, Tensor]:
    """The tensors of the network, copied, under the names and in the shapes of the other system."""
    exported = {}
    for row in rows:
        value = row.target
        if row.is_noise_matrix:
            assert isinstance(row.layer, NoisyLinear)
            value = torch.outer(row.layer.epsilon_out, value)
        exported[row.theirs] = value.detach().clone().reshape(row.shape)
    return exported


def read(rows: Sequence[Row], tensors: Mapping[str, Any], system: str) -> list[Tensor]:
    """The value for each row, in its shape here; ``tensors`` has names of the other system.

    Raises:
        CheckpointError: names that are missing, left over or misshaped, entries that are no tensor
            or of a dtype that does not fit, noise that is no outer product: all in one message.
    """
    faults = _faults(rows, tensors)
    values = []
    for row in rows if not faults else ():
        value: Tensor | None = tensors[row.theirs].detach()
        if row.is_noise_matrix:
            value = split_noise(tensors[row.theirs].detach(), tensors[row.noise_vector].detach())
        if value is None:
            faults.append(
                f"{row.theirs}: the noise is not the outer product of {row.noise_vector} and one "
                f"other vector"
            )
        elif isinstance(row.layer, FloatNormalization) and not _usable(row.ours, value):
            faults.append(f"{row.theirs}: every number must be finite, and those of std above 0")
        else:
            values.append(value.reshape(row.target.shape))
    if faults:
        raise CheckpointError(
            "\n".join([f"the {system} tensors do not fit; the network is unchanged:", *faults])
        )
    return values


@torch.no_grad()
def write(rows: Sequence[Row], values: Sequence[Tensor]) -> None:
    """Put values that :func:`read` returned into the network."""
    for row, value in zip(rows, values, strict=True):
        row.target.copy_(value)


def _faults(rows: Sequence[Row], tensors: Mapping[str, Any]) -> list[str]:
    names = {row.theirs for row in rows}
    way_out = (
        " (if the file keeps no float statistics, give the configuration those that it was trained "
        "with, and load_state_dict float_stats=False)"
    )
    missing = [
        f"missing: {row.theirs}{way_out if isinstance(row.layer, FloatNormalization) else ''}"
        for row in rows
        if row.theirs not in tensors
    ]
    extra = [f"not in the network: {name}" for name in tensors if name not in names]
    misfits = {
        row.theirs: _misfit(tensors[row.theirs], row) for row in rows if row.theirs in tensors
    }
    return [*missing, *extra, *(f"{name}: {fault}" for name, fault in misfits.items() if fault)]


def _misfit(value: object, row: Row) -> str:
    """What is wrong with a value taken alone; empty if nothing."""
    if not isinstance(value, Tensor):
        return f"expected a tensor, found {type(value).__name__}"
    # The further first dimension of size 1 may be missing.
    is_ours = value.shape == row.target.shape and row.shape == (1, *value.shape)
    if value.shape != row.shape and not is_ours:
        return f"expected shape {row.shape}, found {tuple(value.shape)}"
    if value.is_meta or value.layout != torch.strided:
        return f"expected a dense tensor with data, found {value.layout} on {value.device}"
    wanted = row.target.dtype
    if value.dtype != wanted and not (value.is_floating_point() and wanted.is_floating_point):
        kind = "a floating dtype" if wanted.is_floating_point else str(wanted)
        return f"expected {kind}, found {value.dtype}"
    return ""


def _usable(name: str, statistics: Tensor) -> bool:
    finite = bool(statistics.isfinite().all())
    return finite and (not name.endswith("std") or bool((statistics > 0).all()))


def split_noise(matrix: Tensor, epsilon_out: Tensor) -> Tensor | None:
    """``ε_in`` of ``ε_out ε_inᵀ = matrix``: ``(out, in), (out,) -> (in,)``; None if there is none.

    A row divided by its ``ε_out`` may differ from ``ε_in`` in the last bit. Of each quotient and
    its two neighbours, the one with most products in the matrix counts.
    """
    kept = matrix.dtype
    matrix, epsilon_out = _as_computed(matrix, epsilon_out)
    row = int(epsilon_out.abs().argmax())
    if epsilon_out[row] == 0:
        return torch.zeros_like(matrix[0], dtype=kept) if (matrix == 0).all() else None
    epsilon_in = matrix[row] / epsilon_out[row]
    if matrix.dtype.itemsize >= 4:
        far = torch.full_like(epsilon_in, torch.inf)
        candidates = (epsilon_in, epsilon_in.nextafter(far), epsilon_in.nextafter(-far))
        misses = torch.stack([(torch.outer(epsilon_out, c) != matrix).sum(0) for c in candidates])
        epsilon_in = torch.stack(candidates).gather(0, misses.argmin(0, keepdim=True))[0]
    error = (torch.outer(epsilon_out, epsilon_in) - matrix).abs()
    rounding = 4 * torch.finfo(matrix.dtype).eps * matrix.abs().max()
    return epsilon_in.to(kept) if (error <= rounding).all() else None


def _as_computed(*tensors: Tensor) -> list[Tensor]:
    """The tensors in the coarsest dtype that holds them: they may have been cast since."""
    for dtype in (torch.bfloat16, torch.float16, torch.float32):
        if all(torch.equal(t.to(dtype).to(t.dtype), t) for t in tensors):
            return [t.to(dtype) for t in tensors]
    return [t.to(torch.float64) for t in tensors]
