"""A network's stages: what follows what, with shapes and parameters."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

BATCH, QUANTILES = 7, 2  # any two numbers whose multiples tell B from K·B


class Stage(NamedTuple):
    """One step from the inputs to ``q``."""

    name: str
    kind: str
    shape: tuple[str, ...]
    parameters: int


Record = Callable[[Stage, tuple[Any, ...], Tensor], object]


def stages(net: nn.Module) -> list[Stage]:
    """The stages of a network in the order in which they compute.

    Shapes are symbolic in the batch: ``('B', '512')``, ``('K·B', '12')``. One small eval-mode
    forward is run to find them.

    Raises:
        TypeError: ``net`` is no network of this library.
    """
    plain, first_runs = unwrapped(net), dict[str, Stage]()
    with (
        torch.no_grad(),
        watch_stages(plain, lambda stage, *_: first_runs.setdefault(stage.name, stage)),
    ):
        plain(*plain.example_inputs(BATCH), QUANTILES, scheme="midpoints")
    return list(first_runs.values())


@contextmanager
def watch_stages(net: nn.Module, record: Record) -> Iterator[None]:
    """Inside the block, in eval mode, call ``record(stage, arguments, output)`` after each stage.

    Shapes are symbolic for a forward of :data:`BATCH` rows and :data:`QUANTILES` quantiles.
    """

    def hook(name: str, module: nn.Module, arguments: tuple[Any, ...], output: Any) -> None:
        output = output[0] if isinstance(output, tuple) else output
        if isinstance(output, Tensor):
            count = sum(p.numel() for p in module.parameters())
            stage = Stage(name, type(module).__name__, symbolic_shape(output), count)
            record(stage, arguments, output)

    training = [module for module in net.modules() if module.training]
    handles = [m.register_forward_hook(partial(hook, name)) for name, m in _stage_modules(net)]
    net.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True
        for handle in handles:
            handle.remove()


def describe(net: nn.Module) -> str:
    """A table of the stages of a network, or of its compiled or folded copy.

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
    w1, w2, w3, w4 = (max(map(len, column)) for column in zip(*rows, strict=True))
    lines = [f"{a:<{w1}}  {b:<{w2}}  {c:<{w3}}  {d:>{w4}}" for a, b, c, d in rows]
    return "\n".join([head, *lines])


def unwrapped(net: Any) -> Any:
    """The network itself, taken out of ``torch.compile`` or its folded copy."""
    for wrapped in ("_orig_mod", "folded"):
        net = getattr(net, wrapped, net)
    if not (isinstance(net, nn.Module) and hasattr(net, "example_inputs")):
        raise TypeError(
            f"net: expected a network made by iqn_blocks.build or its acting copy, got "
            f"{type(net).__name__}"
        )
    return net


def _stage_modules(net: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """The modules of the network by name; one that has several modules is replaced by them.

    The encoder stays beside its modules, because its output is the state.
    """
    for name, module in net.named_children():
        inside = [m for m in module.named_children() if not isinstance(m[1], nn.Identity)]
        if len(inside) > 1 or name == "encoder":
            yield from ((f"{name}.{below}", inner) for below, inner in inside)
        if len(inside) < 2 or name == "encoder":
            yield name, module
    yield "q", net


def symbolic_shape(x: Tensor) -> tuple[str, ...]:
    """The shape, with a multiple of B in place of the number of rows where it is one."""
    rows, *rest = x.shape
    symbols = {BATCH: "B", BATCH * QUANTILES: "K·B"}
    other = str(rows) if rows % BATCH else f"{rows // BATCH}·B"
    return (symbols.get(rows, other), *map(str, rest))
