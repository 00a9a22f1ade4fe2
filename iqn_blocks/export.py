"""Networks for other runtimes: ONNX files and :mod:`torch.export` programs that act.

A graph is made from the folded copy. It takes ``img`` and ``floats`` as the environment gives
them, uint8 pixels and raw numbers, of any batch size, and gives ``q (B, A)``, or ``(B, N, A)``. It
holds the noise that the network has at the time of the export, and draws none.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from safetensors.torch import save as encode_tensors
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from iqn_blocks._version import VERSION
from iqn_blocks.fast.check import check_foldable
from iqn_blocks.fast.folded import FoldedIQN, fold
from iqn_blocks.functional import split_quantiles
from iqn_blocks.network import IQN

if TYPE_CHECKING:
    from torch.onnx import ONNXProgram

EXAMPLE_BATCH = 2  # a dimension of size 1 would be taken for a fixed one
EXAMPLE_QUANTILES = 3


def onnx(
    net: IQN,
    path: str | os.PathLike[str],
    *,
    quantiles: bool = False,
    image_dtype: torch.dtype = torch.uint8,
    noise: bool = True,
) -> None:
    """Write an ONNX file that computes ``q (B, A)`` as ``q_values`` does. Needs the extra ``onnx``.

    Its inputs are ``img`` and ``floats``, or the one of them that the network takes. The file holds
    the :func:`metadata`.

    Args:
        net: the network.
        path: the file; it is overwritten.
        quantiles: add an input ``tau (K, 1)`` and an output ``quantiles (B, K, A)``.
        image_dtype: uint8, or a floating dtype for images that are normalised already.
        noise: keep the noise that the network has now; False leaves it out.

    Raises:
        ImportError: a package of the extra is missing.
        TypeError: ``net`` is not an IQN.
        ValueError: the network changes a buffer when it acts, or cannot be folded.
    """
    check_foldable(net)
    made = to_onnx(Acting(fold(net, noise=noise), quantiles=quantiles), image_dtype, optimize=True)
    made.model.metadata_props.update(metadata(net))
    made.save(os.fspath(path))


def program(
    net: IQN,
    *,
    quantiles: bool = False,
    image_dtype: torch.dtype = torch.uint8,
    noise: bool = True,
) -> ExportedProgram:
    """The same graph as a program of :mod:`torch.export`, to save or to compile ahead of time.

    Call it with the inputs that the network takes: ``img``, ``floats``, and ``tau`` with
    ``quantiles``. Arguments and errors are those of :func:`onnx`.

    >>> import iqn_blocks
    >>> net = iqn_blocks.build({"n_actions": 3, "float_input_dim": 2, "nn": {
    ...     "vis": {"no_image": True}}})
    >>> program(net).module()(torch.ones(4, 2)).shape
    torch.Size([4, 3])
    """
    check_foldable(net)
    # Contiguous, since programs of channels-last weights are saved with a warning.
    folded = fold(net, noise=noise).to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    return trace(Acting(folded, quantiles=quantiles), image_dtype)


def metadata(net: IQN) -> dict[str, str]:
    """The metadata of a file: ``iqn_blocks_version``, ``config`` and ``weights_sha256``.

    ``config`` is JSON, ``null`` for a network made by hand. ``weights_sha256`` is the digest of the
    network's state dict in the safetensors format.
    """
    state = {
        name: tensor.to("cpu", copy=True).contiguous() for name, tensor in net.state_dict().items()
    }
    return {
        "iqn_blocks_version": VERSION,
        "config": json.dumps(None if net.config is None else net.config.to_dict()),
        "weights_sha256": hashlib.sha256(encode_tensors(state)).hexdigest(),
    }


class Acting(nn.Module):
    """The computation of an exported graph, from the inputs that the network takes."""

    def __init__(self, net: FoldedIQN, *, quantiles: bool = False) -> None:
        super().__init__()
        self.net = net
        has_image, has_floats = net.inputs.image_shape is not None, net.inputs.n_floats > 0
        takes = {"img": has_image, "floats": has_floats, "tau": quantiles}
        self.names = [name for name, taken in takes.items() if taken]

    def forward(self, *inputs: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        given = dict(zip(self.names, inputs, strict=True))
        img, floats, tau = (given.get(name) for name in ("img", "floats", "tau"))
        if tau is None:
            return self.net.q_values(img, floats)
        self.net.inputs.check(img, floats)
        state, k = self.net.encode(img, floats), tau.shape[0]
        values = split_quantiles(self.net.quantile_values(state, tau, k), k)
        return self.net.mean_values(state), values

    def examples(self, image_dtype: torch.dtype) -> tuple[Tensor, ...]:
        """Inputs to trace with."""
        img, floats = self.net.example_inputs(EXAMPLE_BATCH)
        tau = torch.full((EXAMPLE_QUANTILES, 1), 0.5, device=self.net.device)
        given = {"img": example_image(img, image_dtype), "floats": floats, "tau": tau}
        return tuple(x for name in self.names if (x := given[name]) is not None)


def example_image(img: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    """An image in [−1, 1) as one of another dtype, as the environment would give it."""
    if img is not None and dtype == torch.uint8:
        img = img * 128 + 128
    return None if img is None else img.to(dtype)


def trace(acting: Acting, image_dtype: torch.dtype) -> ExportedProgram:
    """The program of a folded network, for any batch size and any number of τ.

    Raises:
        ValueError: a part changes a buffer.
    """
    examples = acting.examples(image_dtype)
    rows = {"img": Dim("batch", min=1), "floats": Dim("batch", min=1), "tau": Dim("K", min=1)}
    dynamic = (tuple({0: rows[name]} for name in acting.names),)
    with torch.no_grad(), quiet():
        traced: ExportedProgram = torch.export.export(acting, examples, dynamic_shapes=dynamic)
        traced = traced.run_decompositions({})  # without in-place operations, which hide a write
    if changed := list(traced.graph_signature.buffers_to_mutate.values()):
        raise ValueError(
            f"net: found a part that changes its buffer {changed[0].removeprefix('net.')!r} when "
            f"it acts, which an exported graph cannot; leave it alone in eval mode"
        )
    return traced


def to_onnx(acting: Acting, image_dtype: torch.dtype, *, optimize: bool) -> ONNXProgram:
    """The program as ONNX; only ``optimize=False`` keeps every parameter under its name.

    Raises:
        ImportError: a package of the extra ``onnx`` is missing.
        ValueError: a part changes a buffer.
    """
    for package in ("onnx", "onnxscript"):
        if importlib.util.find_spec(package) is None:
            raise ImportError(f"{package} is missing: pip install 'iqn-blocks[onnx]'")
    traced = trace(acting, image_dtype)
    axes = {name: {0: "K" if name == "tau" else "batch"} for name in acting.names}
    if {"img", "floats"} <= axes.keys():
        axes["floats"] = {}  # the same axis; naming it twice gives a warning
    with quiet():
        made = torch.onnx.export(
            traced,
            dynamo=True,
            optimize=optimize,
            verbose=False,
            dynamic_shapes=axes,
            input_names=acting.names,
            output_names=["q", "quantiles"][: 1 + ("tau" in acting.names)],
        )
    assert made is not None
    return made


@contextmanager
def quiet() -> Iterator[None]:
    """Without warnings about a class that PyTorch itself uses, and about torchvision's absence."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*LeafSpec", FutureWarning)
            yield
    finally:
        logger.setLevel(level)
