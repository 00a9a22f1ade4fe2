"""How tensors flow between the stages of a built network, read off its autograd graph."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from iqn_blocks.describe import Stage, eval_mode, stages, unwrapped
from iqn_blocks.network import IQN

BATCH, QUANTILES = 2, 2
JOINS = {"MulBackward0": "⊙", "CatBackward0": "concat", "AddBackward0": "+"}


class Node(NamedTuple):
    """A box of the diagram; ``detail`` is empty for a join."""

    name: str
    kind: str
    detail: str


class Graph(NamedTuple):
    """Boxes, and arrows between them by name, in the order in which they compute."""

    nodes: list[Node]
    edges: list[tuple[str, str]]


def trace(net: IQN) -> Graph:
    """Run the network once and follow every stage's input back to what it was made of."""
    net = unwrapped(net)
    shown = {stage.name: stage for stage in stages(net) if stage.name not in ("encoder", "q")}
    tracer = _Tracer()
    inputs = _differentiable_inputs(net)
    for name, tensor in inputs.items():
        shape = ", ".join(["K·B" if name == "tau" else "B", *map(str, tensor.shape[1:])])
        tracer.add_leaf(Node(name, "", f"({shape})"), tensor)
    handles = []
    try:
        for name, stage in shown.items():
            handles.append(tracer.watch(net.get_submodule(name), stage))
        with torch.enable_grad(), eval_mode(net):
            q = net(inputs.get("img"), inputs.get("floats"), QUANTILES, inputs["tau"])[0]
    finally:
        for handle in handles:
            handle.remove()
    shape = ", ".join(map(str, q.shape[1:]))
    kind = "dueling" if net.value_head is not None else "values"
    tracer.add_stage(Node("q", kind, f"(K·B, {shape})"), [q], joined=False)
    return Graph(tracer.nodes, tracer.edges)


def _differentiable_inputs(net: IQN) -> dict[str, Tensor]:
    img, floats = net.example_inputs(BATCH)
    tau = torch.rand(QUANTILES * BATCH, 1, device=net.device)
    given = {"img": img, "floats": floats, "tau": tau}
    return {name: x.requires_grad_() for name, x in given.items() if x is not None}


class _Tracer:
    """Collects nodes and edges while a network runs."""

    def __init__(self) -> None:
        self.nodes: list[Node] = []
        self.edges: list[tuple[str, str]] = []
        self.leaves: list[tuple[Tensor, str]] = []
        self.makers: dict[Any, str] = {}  # the autograd node of a stage's output -> its name

    def add_leaf(self, node: Node, tensor: Tensor) -> None:
        self.nodes.append(node)
        self.leaves.append((tensor, node.name))

    def watch(self, module: nn.Module, stage: Stage) -> Any:
        parameters = f" · {stage.parameters:,}" if stage.parameters else ""
        node = Node(stage.name, stage.kind, f"({', '.join(stage.shape)}){parameters}")

        def record(_: nn.Module, args: tuple[Any, ...], output: Any) -> None:
            if node not in self.nodes:  # a stage may be read twice
                self.add_stage(node, [x for x in args if isinstance(x, Tensor)])
            output = output[0] if isinstance(output, tuple) else output  # a core gives a memory too
            self.makers[output.grad_fn] = node.name

        return module.register_forward_hook(record)

    def add_stage(self, node: Node, inputs: Iterable[Tensor], joined: bool = True) -> None:
        sources: list[str] = []
        for tensor in inputs:
            if tensor.grad_fn is None:
                sources += [name for leaf, name in self.leaves if leaf is tensor]
            elif joined:
                sources.append(self._source(tensor.grad_fn))
            else:
                sources += sorted(self._reach(tensor.grad_fn))
        self.nodes.append(node)
        self.edges += [(source, node.name) for source in sources]

    def _source(self, fn: Any) -> str:
        """The stage that made autograd node ``fn``, or the join at which several became one."""
        reach = self._reach(fn)
        if len(reach) == 1:
            return next(iter(reach))
        parts = [child for child, _ in fn.next_functions if child is not None]
        parts = [part for part in parts if self._reach(part)]
        if len(parts) == 1:
            return self._source(parts[0])
        sources = [self._source(part) for part in parts]
        name = f"join of {' and '.join(sources)}"
        if all(node.name != name for node in self.nodes):
            self.nodes.append(Node(name, JOINS.get(fn.name(), "…"), ""))
            self.edges += [(source, name) for source in sources]
        return name

    def _reach(self, fn: Any) -> frozenset[str]:
        """Names of the stages and inputs from which autograd node ``fn`` was computed directly."""
        if fn in self.makers:
            return frozenset([self.makers[fn]])
        if hasattr(fn, "variable"):
            return frozenset(name for tensor, name in self.leaves if tensor is fn.variable)
        parts = (self._reach(child) for child, _ in fn.next_functions if child is not None)
        return frozenset().union(*parts)
