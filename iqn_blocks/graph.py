"""How tensors flow between the stages of a built network, read off its autograd graph."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from iqn_blocks.describe import BATCH, QUANTILES, Stage, symbolic_shape, unwrapped, watch_stages
from iqn_blocks.network import IQN

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
    img, floats = net.example_inputs(BATCH)
    tau = torch.rand(QUANTILES * BATCH, 1, device=net.device)
    tracer = _Tracer("dueling" if net.value_head is not None else "values")
    for name, tensor in (("img", img), ("floats", floats), ("tau", tau)):
        if tensor is not None:
            tracer.add_input(name, tensor.requires_grad_())
    with torch.enable_grad(), watch_stages(net, tracer.add_stage):
        net(img, floats, QUANTILES, tau)
    return Graph(tracer.nodes, tracer.edges)


class _Tracer:
    """Collects nodes and edges while a network runs; ``last`` is the kind of the node ``q``."""

    def __init__(self, last: str) -> None:
        self.last = last
        self.nodes: list[Node] = []
        self.edges: list[tuple[str, str]] = []
        self.inputs: list[tuple[Tensor, str]] = []
        self.makers: dict[Any, str] = {}  # the autograd node of a stage's output -> its name

    def add_input(self, name: str, tensor: Tensor) -> None:
        """Begin with an input of the network."""
        self.nodes.append(Node(name, "", f"({', '.join(symbolic_shape(tensor))})"))
        self.inputs.append((tensor, name))

    def add_stage(self, stage: Stage, arguments: tuple[Any, ...], output: Tensor) -> None:
        """Add a stage that has run, with an arrow from whatever made each of its arguments."""
        if stage.name == "encoder":  # its own stages are shown
            return
        if all(node.name != stage.name for node in self.nodes):  # one that runs twice is shown once
            kind, detail = stage.kind, f"({', '.join(stage.shape)})"
            if stage.name == "q":
                kind, sources = self.last, sorted(self._reach(output.grad_fn))
            else:
                detail += f" · {stage.parameters:,}" if stage.parameters else ""
                tensors = [x for x in arguments if isinstance(x, Tensor)]
                sources = [source for x in tensors for source in self._sources(x)]
            self.nodes.append(Node(stage.name, kind, detail))
            self.edges += [(source, stage.name) for source in sources]
        if output.grad_fn is None:  # an input that came through as it is
            self.inputs = [(x, stage.name if x is output else n) for x, n in self.inputs]
        self.makers[output.grad_fn] = stage.name

    def _sources(self, tensor: Tensor) -> list[str]:
        if tensor.grad_fn is not None:
            return [self._source(tensor.grad_fn)]
        return [name for given, name in self.inputs if given is tensor]

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
            return frozenset(name for tensor, name in self.inputs if tensor is fn.variable)
        parts = (self._reach(child) for child, _ in fn.next_functions if child is not None)
        return frozenset().union(*parts)
