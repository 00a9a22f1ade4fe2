"""A network's stages: what follows what, with shapes and parameters."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

_BATCH, _QUANTILES = 7, 2  # any two numbers whose multiples tell B from K·B


class Stage(NamedTuple):
    """One step from the inputs to ``q``."""

    name: str
    kind: str
    shape: tuple[str, ...]
    parameters: int


def stages(net: nn.Module) -> list[Stage]:
    """The stages of a network in the order in which they compute.

    Shapes are symbolic in the batch: ``('B', '512')``, ``('K·B', '12')``. One small eval-mode
    forward is run to find them.

    Raises:
        TypeError: ``net`` is no network of this library.
    """
    plain: Any = unwrapped(net)
    found: dict[str, Stage] = {}  # of a stage that is read twice the first
    handles = []

    def watch(name: str, module: nn.Module) -> None:
        def record(module: nn.Module, _: Any, output: Any) -> None:
            output = output[0] if isinstance(output, tuple) else output
            if isinstance(output, Tensor):
                count = sum(p.numel() for p in module.parameters())
                kind = type(module).__name__
                found.setdefault(name, Stage(name, kind, _symbolic(output), count))

        handles.append(module.register_forward_hook(record))

    try:
        for name, module in _stage_modules(plain):
            watch(name, module)
        with torch.no_grad(), eval_mode(plain):
            plain(*plain.example_inputs(_BATCH), _QUANTILES, scheme="midpoints")
    finally:
        for handle in handles:
            handle.remove()
    return list(found.values())


def describe(net: nn.Module) -> str:
    """A table of a network's stages, for people: a network, its compiled or its acting copy.

    >>> import iqn_blocks
    >>> net = iqn_blocks.build({"n_actions": 3, "float_input_dim": 2, "nn": {
    ...     "vis": {"no_image": True}, "float": {"mlp": {"hidden_dim": 8}},
    ...     "iqn": {"embedding_dimension": 4}, "decoder": {"dense_hidden_dimension": 8}}})
    >>> print(describe(net))  # doctest: +ELLIPSIS
    ClassicEncoder, D = 8, n_actions=3, 228 parameters
    stage ...
    """
    plain: Any = unwrapped(net)
    parameters = list(plain.parameters())
    total = sum(p.numel() for p in parameters)
    frozen = sum(p.numel() for p in parameters if not p.requires_grad)
    head = (
        f"{type(plain.encoder).__name__}, D = {plain.state_dim}, {plain.extra_repr()}, "
        f"{total:,} parameters" + (f" ({frozen:,} frozen)" if frozen else "")
    )
    rows = [("stage", "module", "output", "parameters")]
    rows += [
        (s.name, s.kind, f"({', '.join(s.shape)})", f"{s.parameters:,}") for s in stages(plain)
    ]
    widths = [max(len(row[i]) for row in rows) for i in range(4)]
    lines = [
        f"{a:<{widths[0]}}  {b:<{widths[1]}}  {c:<{widths[2]}}  {d:>{widths[3]}}"
        for a, b, c, d in rows
    ]
    return "\n".join([head, *lines])


def unwrapped(net: Any) -> Any:
    """The network itself, also where ``torch.compile`` or an acting copy wraps it."""
    for wrapped in ("_orig_mod", "folded"):
        net = getattr(net, wrapped, net)
    if not (isinstance(net, nn.Module) and hasattr(net, "example_inputs")):
        raise TypeError(
            f"net: expected a network made by iqn_blocks.build or its acting copy, got "
            f"{type(net).__name__}"
        )
    return net


def _stage_modules(net: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """The network's modules; in place of one that has several modules, these.

    The encoder is there too, because what it gives is the state.
    """
    for name, module in net.named_children():
        inside = [m for m in module.named_children() if not isinstance(m[1], nn.Identity)]
        if len(inside) > 1 or name == "encoder":
            yield from ((f"{name}.{below}", inner) for below, inner in inside)
        if len(inside) < 2 or name == "encoder":
            yield name, module
    yield "q", net


def _symbolic(output: Tensor) -> tuple[str, ...]:
    rows, *rest = output.shape
    symbols = {_BATCH: "B", _BATCH * _QUANTILES: "K·B"}
    other = str(rows) if rows % _BATCH else f"{rows // _BATCH}·B"
    return (symbols.get(rows, other), *map(str, rest))


@contextmanager
def eval_mode(net: nn.Module) -> Iterator[None]:
    """Every module in eval mode inside the block, and as it was behind it."""
    training = [module for module in net.modules() if module.training]
    net.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True
