"""What every optional part must show: its equations, one graph, an exported program, a file."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import iqn_blocks
from tests.compare import randomize
from tests.compare_parts import compare_part

DTYPES = pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)


def build(config: Mapping[str, Any], dtype: torch.dtype = torch.float32) -> Any:
    """A network in which no parameter is zero or one, and every key of ``config`` is read."""
    torch.manual_seed(0)
    net = iqn_blocks.build(config, strict=True)
    randomize(net, torch.Generator().manual_seed(0))
    return net.to(dtype).eval()


def randn(*shape: int, dtype: torch.dtype = torch.float64, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)


def rand(*shape: int, dtype: torch.dtype = torch.float64, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(*shape, generator=generator, dtype=torch.float64).to(dtype)


def agree(
    module: nn.Module,
    inputs: Mapping[str, Tensor],
    call: Callable[..., Tensor],
    equations: Callable[..., Tensor],
    dtype: torch.dtype,
    *,
    unread: tuple[str, ...] = (),
) -> None:
    """``call(**inputs)`` against ``equations(params, **inputs)``: values and every gradient."""
    compare_part(
        module,
        lambda params, *x: equations(params, **dict(zip(inputs, x, strict=True))),
        list(inputs.values()),
        dtype=dtype,
        call=lambda *x: call(**dict(zip(inputs, x, strict=True))),
        unread=unread,
    )


def alike(one: Any, other: Any) -> None:
    """Equal up to rounding, tensor by tensor."""
    torch.testing.assert_close(tuple(one), tuple(other), rtol=1e-5, atol=1e-5)


def one_graph(call: Callable[..., Any], *arguments: Any, **keywords: Any) -> None:
    """Compiled as one graph, backward included, it gives the same."""
    torch._dynamo.reset()
    compiled = torch.compile(call, fullgraph=True, backend="aot_eager")
    alike(compiled(*arguments, **keywords), call(*arguments, **keywords))


class Acting(nn.Module):
    """``net.q_values`` as a module, which is what torch.export takes."""

    def __init__(self, net: Any) -> None:
        super().__init__()
        self.net = net

    def forward(
        self, floats: Tensor, memory: Tensor | None = None, reset: Tensor | None = None
    ) -> Any:
        more = {} if memory is None else {"memory": memory, "reset": reset}
        return self.net.q_values(None, floats, **more)


def exported(net: Any, **inputs: Tensor) -> None:
    """Acting as an exported program of any batch size."""
    acting, batch = Acting(net), torch.export.Dim("batch", min=2, max=4096)
    dims = {name: {0: batch} for name in inputs}
    program = torch.export.export(acting, (), inputs, dynamic_shapes=dims, strict=False)
    for rows in (2, 5):
        other = {n: x[:1].expand(rows, *x.shape[1:]).contiguous() for n, x in inputs.items()}
        one, two = program.module()(**other), acting(**other)
        alike(*((x,) if isinstance(x, Tensor) else x for x in (one, two)))


def saved_and_loaded(net: Any, folder: Any, call: Callable[[Any], Any]) -> None:
    """A network from its folder gives bit for bit the same."""
    net.save_pretrained(folder)
    other = iqn_blocks.from_pretrained(folder)
    assert type(other) is type(net) and other.config == net.config
    for one, two in zip(call(net), call(other.eval()), strict=True):
        assert torch.equal(one, two)
