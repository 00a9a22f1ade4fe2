"""The folded copy's ``q_values`` in onnxruntime, the fastest way to act on a CPU."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Container
from operator import attrgetter
from typing import Any, NamedTuple, TypeVar, cast

import torch
from torch import Tensor

from iqn_blocks.export import Acting, example_image, to_onnx
from iqn_blocks.fast.check import TOLERANCE, relative_error
from iqn_blocks.fast.folded import FoldedIQN, InferenceIQN
from iqn_blocks.functional import mask_actions
from iqn_blocks.network import IQN, ExampleInputs

Array = TypeVar("Array", bound=Any)  # a tensor or a NumPy array
HEADS = ("net.advantage_head.", "net.value_head.")  # the names of the heads' weights begin so


class _Graph(NamedTuple):
    """A network without its weights as bytes of ONNX models, and the names of the weights."""

    built_in: bytes
    heads_bound: bytes
    weights: list[str]


class _Version(NamedTuple):
    """The weights after one refresh."""

    session: Any
    built_in: dict[str, Any]  # the session reads this memory
    heads: dict[str, Any]  # passed with each call; empty if they are built in


class OnnxIQN:
    """The copy that :func:`~iqn_blocks.optimize_for_inference` makes for ``engine="onnxruntime"``.

    It acts on the CPU in float32, for every device and dtype of the network. It uses as many
    threads as ``torch.get_num_threads()`` says when it is made.

    All weights are built into a session, and :meth:`refresh` makes a new one in milliseconds. The
    first :meth:`refresh_heads` after that makes a session that takes the heads' weights with each
    call, so that new noise at every step needs no new session. The graph is exported once.

    Any threads may call :meth:`q_values` while another one refreshes: a call sees the weights from
    before or from after, never a mixture.

    Args:
        net: the network.
        noise: keep the noise that the network has now; False leaves it out.
        image_dtype: uint8, or a floating dtype for images that are normalised already.

    Raises:
        ImportError: a package of the extra ``onnx`` is missing.
        ValueError: the exported graph gives other values than the network.
    """

    def __init__(
        self, net: IQN, *, noise: bool = True, image_dtype: torch.dtype = torch.uint8
    ) -> None:
        if importlib.util.find_spec("onnxruntime") is None:
            raise ImportError("onnxruntime is missing: pip install 'iqn-blocks[onnx]'")
        self.threads = torch.get_num_threads()
        self.image_dtype = torch.uint8 if image_dtype == torch.uint8 else torch.float32
        self.copy = InferenceIQN(net, noise=noise).to("cpu", torch.float32)
        self.config, self.action_sizes = net.config, net.action_sizes
        self.n_actions, self.n_offsets = net.n_actions, net.n_offsets
        self.inputs = net.inputs._replace(any_image_size=False)
        self._graph = _export(self.copy.folded, self.image_dtype)
        self._version = self._start(heads_bound=False)
        examples = self.example_inputs(2)
        error = relative_error(self.q_values(*examples), self.copy.q_values(*examples))
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

        With ``tau`` or ``risk`` PyTorch computes it.

        Raises:
            TypeError: an input is missing or has an unusable dtype.
            ValueError: shapes that do not fit the network or each other.
        """
        given = (img, floats, tau, mask)
        as_numpy = any(x is not None and not isinstance(x, Tensor) for x in given)
        image, numbers, tau_tensor, allowed = map(_tensor, given)
        if tau_tensor is None and risk is None:
            q = self._run(image, numbers)
        else:
            q = self.copy.q_values(image, numbers, tau=tau_tensor, risk=risk)
        if allowed is not None:
            q = mask_actions(q, allowed)
        return cast(Array, q.numpy() if as_numpy else q)

    def refresh(self, net: IQN) -> None:
        """As :meth:`InferenceIQN.refresh`."""
        self.copy.refresh(net)
        self._version = self._start(heads_bound=False)

    def refresh_heads(self, net: IQN) -> None:
        """As :meth:`InferenceIQN.refresh_heads`."""
        self.copy.refresh_heads(net)
        if self._version.heads:
            self._version = self._version._replace(heads=self._weights(self._version.heads))
        else:
            self._version = self._start(heads_bound=True)

    def example_inputs(self, batch: int = 1) -> ExampleInputs:
        """As :meth:`IQN.example_inputs`, with images of the dtype that this copy takes."""
        img, floats = self.copy.example_inputs(batch)
        return ExampleInputs(example_image(img, self.image_dtype), floats)

    def _run(self, img: Tensor | None, floats: Tensor | None) -> Tensor:
        self.inputs.check(img, floats)
        version = self._version
        feeds = dict(version.heads)
        if img is not None and self.inputs.image_shape is not None:
            if (img.dtype == torch.uint8) != (self.image_dtype == torch.uint8):
                raise TypeError(
                    f"img: found {img.dtype}, but this copy takes {self.image_dtype}; make it with "
                    f"optimize_for_inference(net, engine='onnxruntime', image_dtype={img.dtype})"
                )
            feeds["img"] = _array(img.to(self.image_dtype))
        if floats is not None:
            feeds["floats"] = _array(floats.to(torch.float32))
        return torch.from_numpy(version.session.run(["q"], feeds)[0])

    def _start(self, *, heads_bound: bool) -> _Version:
        """A version of the copy's weights, with a session of its own."""
        import onnxruntime as ort

        weights = self._weights(self._graph.weights)
        heads = {n: weights.pop(n) for n in list(weights) if heads_bound and n.startswith(HEADS)}
        options = ort.SessionOptions()
        options.intra_op_num_threads = self.threads
        options.add_external_initializers(
            list(weights), [ort.OrtValue.ortvalue_from_numpy(w) for w in weights.values()]
        )
        model = self._graph.heads_bound if heads else self._graph.built_in
        session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        return _Version(session, weights, heads)

    def _weights(self, names: Any) -> dict[str, Any]:
        return {name: _array(_tensor_of(self.copy.folded, name)) for name in names}


def _export(folded: FoldedIQN, image_dtype: torch.dtype) -> _Graph:
    """The graph of a folded network; each session is given the weights."""
    made = to_onnx(Acting(folded), image_dtype, optimize=False)
    graph = made.model.graph
    weights = [name for name in graph.initializers if _tensor_of(folded, name) is not None]
    for name in weights:  # as inputs they keep their names
        weight = graph.initializers.pop(name)
        weight.const_value = None
        graph.inputs.append(weight)
    made.optimize()
    model = made.model_proto
    heads = [name for name in weights if name.startswith(HEADS)]
    heads_bound = _build_in(model, set(weights).difference(heads))
    return _Graph(_build_in(model, set(heads)), heads_bound, weights)


def _build_in(model: Any, names: Container[str]) -> bytes:
    """The model with those inputs made initializers, whose values a session is given."""
    import onnx

    for value in [value for value in model.graph.input if value.name in names]:
        model.graph.input.remove(value)
        kind = value.type.tensor_type
        weight = model.graph.initializer.add(name=value.name, data_type=kind.elem_type)
        weight.dims.extend(dim.dim_value for dim in kind.shape.dim)
        weight.data_location = onnx.TensorProto.EXTERNAL
        weight.external_data.add(key="location", value="given to the session")
    serialized: bytes = model.SerializeToString()
    return serialized


def _tensor_of(folded: FoldedIQN, name: str) -> Any:
    """The tensor behind a name in an exported graph; None for a constant of the graph."""
    try:
        return attrgetter(name.removeprefix("net."))(folded)
    except AttributeError:
        return None


def _tensor(x: Any) -> Tensor | None:
    if x is None:
        return None
    if isinstance(x, Tensor):
        return x.detach().cpu()
    return torch.from_numpy(x if x.flags.writeable else x.copy())


def _array(x: Tensor) -> Any:
    return x.detach().contiguous().numpy()
