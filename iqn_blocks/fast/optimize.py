"""The function that makes a fast copy of a finished network."""

from __future__ import annotations

from typing import Literal, overload

import torch

from iqn_blocks._arguments import check_choice
from iqn_blocks.fast.check import check_foldable
from iqn_blocks.fast.engine import OnnxIQN
from iqn_blocks.fast.folded import InferenceIQN
from iqn_blocks.network import IQN

Engine = Literal["torch", "onnxruntime"]


@overload
def optimize_for_inference(
    net: IQN, *, noise: bool = ..., engine: Literal["torch"] = ...
) -> InferenceIQN: ...
@overload
def optimize_for_inference(
    net: IQN,
    *,
    noise: bool = ...,
    engine: Literal["onnxruntime"],
    image_dtype: torch.dtype | None = ...,
) -> OnnxIQN: ...
def optimize_for_inference(
    net: IQN,
    *,
    noise: bool = True,
    engine: Engine = "torch",
    image_dtype: torch.dtype | None = None,
) -> InferenceIQN | OnnxIQN:
    """A frozen copy of ``net`` for acting: the same values up to rounding, from fewer operations.

    Spectral normalisation, the present noise and the dueling mean become plain weights. The heads'
    first layers become one matrix product. ``q_values`` averages over τ before the readout, and
    ``φ`` of its default τ is computed once. Parts of other classes are copied and run unchanged.
    The copy's values are compared with the network's.

    After an update of ``net`` call ``refresh(net)``, after new noise alone ``refresh_heads(net)``.

    >>> import torch, iqn_blocks
    >>> net = iqn_blocks.build({"n_actions": 3, "float_input_dim": 2, "nn": {
    ...     "vis": {"no_image": True}}})
    >>> fast = optimize_for_inference(net)
    >>> torch.allclose(fast.q_values(None, torch.ones(1, 2)),
    ...                net.q_values(None, torch.ones(1, 2)), atol=1e-5)
    True

    Args:
        net: the network, on any device, in train or eval mode; it stays as it is.
        noise: keep the noise that the network has now; False makes the copy without noise.
        engine: ``torch`` gives a module; ``onnxruntime`` the fastest ``q_values`` on a CPU, with
            NumPy arrays or tensors in and out. It needs the extra ``onnx``.
        image_dtype: what onnxruntime's graph takes, uint8 by default, or a floating dtype for
            images that are normalised already. PyTorch takes either.

    Raises:
        ImportError: a package of the extra is missing.
        TypeError: ``net`` is a subclass of IQN, such as a network with memory, or a copy already.
        ValueError: another engine, ``image_dtype`` for PyTorch, a network on ``meta``, or one
            whose copy gives other values.
    """
    check_choice("engine", engine, Engine)
    if engine == "torch" and image_dtype is not None:
        raise ValueError(
            f"image_dtype: found {image_dtype}, but engine='torch' takes uint8 and floating "
            f"images; leave it out"
        )
    check_foldable(net)
    if engine == "torch":
        return InferenceIQN(net, noise=noise)
    return OnnxIQN(net, noise=noise, image_dtype=image_dtype or torch.uint8)
