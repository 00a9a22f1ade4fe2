"""The folded copy's ``q_values`` in onnxruntime, the fastest way to act on a CPU."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from operator import attrgetter
from typing import Any, NamedTuple, TypeVar, cast

import torch
from torch import Tensor

from iqn_blocks.export import Acting, to_onnx
from iqn_blocks.fast.check import TOLERANCE, relative_error
from iqn_blocks.fast.folded import FoldedIQN, InferenceIQN
from iqn_blocks.functional import mask_actions
from iqn_blocks.network import IQN, ExampleInputs

Array = TypeVar("Array", bound=Any)  # a tensor or a NumPy array
HEADS = "net.advantage_head."


class _Graph(NamedTuple):
    """A network without its weights, as bytes of an ONNX model, and the names of the weights."""

    built_in: bytes
    heads_bound: bytes
    weights: list[str]


class _Version(NamedTuple):
    """The weights of one moment, and a session for each dtype of images."""

    folded: FoldedIQN
    heads: dict[str, Any]  # handed over with each call; empty where they are built in
    sessions: dict[torch.dtype, Any]


class OnnxIQN:
    """What :func:`~iqn_blocks.optimize_for_inference` gives for ``engine="onnxruntime"``.

    It acts on the CPU in float32, wherever and in whatever dtype the network is, with
    ``torch.get_num_threads()`` threads as it is when the copy is made. The graph is exported once
    for each dtype of images: for uint8 at once, for float32 when such images come.

    All weights are built into a session: it is made anew by :meth:`refresh`, in milliseconds. The
    first :meth:`refresh_heads` after that makes one that takes the heads' weights at each call,
    so that new noise at every step costs no session.

    Any threads may call :meth:`q_values` while another one refreshes: a call sees the weights from
    before or from after, never a mixture.

    Args:
        net: the network.
        noise: take over the noise of the moment; False leaves it out.

    Raises:
        ImportError: a package of the extra ``onnx`` is missing.
        ValueError: the exported graph gives other values than the network.
    """

    def __init__(self, net: IQN, *, noise: bool = True) -> None:
        if importlib.util.find_spec("onnxruntime") is None:
            raise ImportError("onnxruntime is missing: pip install 'iqn-blocks[onnx]'")
        self.threads = torch.get_num_threads()
        self.copy = InferenceIQN(net, noise=noise).to("cpu", torch.float32)
        self.config, self.n_actions, self.n_offsets = net.config, net.n_actions, net.n_offsets
        self.inputs = net.inputs._replace(any_image_size=False)
        self._graphs = {torch.uint8: _export(self.copy.folded, torch.uint8)}
        self._version = self._start(heads_bound=False)
        img, floats = self.copy.example_inputs(2)
        img = None if img is None else (img * 127 + 128).to(torch.uint8)
        error = relative_error(self.q_values(img, floats), self.copy.q_values(img, floats))
        if not error <= TOLERANCE:
            raise ValueError(
                f"net: found other values in onnxruntime, by {error:.2g} of the largest; accepted "
                f"is {TOLERANCE:g}; use engine='torch'"
            )

    def q_values(
        self,
        img: Array | None = None,
        floats: Array | None = None,
        *,
        tau: Array | None = None,
        risk: Callable[[Tensor], Tensor] | None = None,
        mask: Array | None = None,
    ) -> Array:
        """As :meth:`IQN.q_values`; NumPy arrays give a NumPy array, tensors a tensor on the CPU.

        PyTorch computes it where ``tau`` or ``risk`` is given.
        """
        given = (img, floats, tau, mask)
        as_numpy = any(x is not None and not isinstance(x, Tensor) for x in given)
        image, numbers, levels, allowed = map(_tensor, given)
        if levels is not None or risk is not None:
            q = self.copy.q_values(image, numbers, tau=levels, risk=risk)
        else:
            self.inputs.check(image, numbers)
            q = self._run(image, numbers)
        if allowed is not None:
            q = mask_actions(q, allowed)
        result: Any = q.numpy() if as_numpy else q
        return cast(Array, result)

    def refresh(self, net: IQN) -> None:
        """As :meth:`InferenceIQN.refresh`."""
        self.copy.refresh(net)
        self._version = self._start(heads_bound=False)

    def refresh_heads(self, net: IQN) -> None:
        """As :meth:`InferenceIQN.refresh_heads`."""
        self.copy.refresh_heads(net)
        if self._version.heads:
            self._version = self._version._replace(heads=self._heads())
        else:
            self._version = self._start(heads_bound=True)

    def example_inputs(self, batch: int = 1) -> ExampleInputs:
        """As :meth:`IQN.example_inputs`."""
        return self.copy.example_inputs(batch)

    def _run(self, img: Tensor | None, floats: Tensor | None) -> Tensor:
        version = self._version
        feeds, dtype = dict(version.heads), torch.uint8
        if img is not None and self.inputs.image_shape is not None:
            dtype = torch.uint8 if img.dtype == torch.uint8 else torch.float32
            feeds["img"] = _array(img.to(dtype))
        if floats is not None:
            feeds["floats"] = _array(floats.to(torch.float32))
        if dtype not in version.sessions:
            if dtype not in self._graphs:
                self._graphs[dtype] = _export(version.folded, dtype)
            version.sessions[dtype] = self._session(version, dtype)
        return torch.from_numpy(version.sessions[dtype].run(["q"], feeds)[0])

    def _start(self, *, heads_bound: bool) -> _Version:
        version = _Version(self.copy.folded, self._heads() if heads_bound else {}, {})
        for dtype in list(self._graphs):
            version.sessions[dtype] = self._session(version, dtype)
        return version

    def _heads(self) -> dict[str, Any]:
        names = self._graphs[torch.uint8].weights
        return {n: _array(_tensor_of(self.copy.folded, n)) for n in names if n.startswith(HEADS)}

    def _session(self, version: _Version, dtype: torch.dtype) -> Any:
        import onnxruntime as ort

        graph = self._graphs[dtype]
        options = ort.SessionOptions()
        options.intra_op_num_threads = self.threads
        names = [name for name in graph.weights if name not in version.heads]
        values = [
            ort.OrtValue.ortvalue_from_numpy(_array(_tensor_of(version.folded, name)))
            for name in names
        ]
        options.add_external_initializers(names, values)
        model = graph.heads_bound if version.heads else graph.built_in
        return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def _export(folded: FoldedIQN, image_dtype: torch.dtype) -> _Graph:
    """The graph of a folded network, whose weights are to be given to each session."""
    import onnx

    model = to_onnx(Acting(folded), image_dtype, optimize=False).model_proto
    given = []
    for tensor in model.graph.initializer:
        if _tensor_of(folded, tensor.name) is None:  # a constant
            continue
        given.append(tensor.name)
        tensor.ClearField("raw_data")
        tensor.data_location = onnx.TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value="given")
    built_in = model.SerializeToString()
    heads = [tensor for tensor in model.graph.initializer if tensor.name.startswith(HEADS)]
    for tensor in heads:
        model.graph.initializer.remove(tensor)
        model.graph.input.append(
            onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
        )
    return _Graph(built_in, model.SerializeToString(), given)


def _tensor_of(folded: FoldedIQN, name: str) -> Any:
    """The tensor that an exported graph knows by a name; None for what is no part's."""
    try:
        return attrgetter(name.removeprefix("net."))(folded)
    except AttributeError:
        return None


def _tensor(x: Any) -> Tensor | None:
    if x is None or isinstance(x, Tensor):
        return None if x is None else x.detach().cpu()
    return torch.from_numpy(x if x.flags.writeable else x.copy())


def _array(x: Tensor) -> Any:
    return x.detach().contiguous().numpy()
