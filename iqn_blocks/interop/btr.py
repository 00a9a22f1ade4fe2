"""State dicts of the code published with Beyond The Rainbow (arXiv:2411.03820)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from iqn_blocks.errors import CheckpointError
from iqn_blocks.interop._naming import (
    SPECTRAL_PARAMETRIZATION,
    Naming,
    normalized,
    table,
)
from iqn_blocks.interop._transfer import export, read, write
from iqn_blocks.network import IQN, config_of, plain_network

Variant = Literal["atari", "wii"]


def load_state_dict(net: nn.Module, state_dict: Mapping[str, Any]) -> None:
    """Load a state dict of BTR's code into a network such as :func:`iqn_blocks.presets.btr` builds.

    That code keeps ``conv.{s}.conv`` and, under spectral normalisation,
    ``conv.{s}.residual_{b}.conv_{c}``; ``cos_embedding``; and ``dueling.value_branch`` and
    ``dueling.advantage_branch``, each a Linear, with ``layer_norm`` a LayerNorm, a ReLU and a
    Linear, noisy or not. With ``dueling: 0`` there is one head instead, ``linear_layers``, without
    a LayerNorm; it goes to a network of ``nn.decoder.dueling: none``. Its variant for the Wii calls
    the branches ``linear_layersV`` and ``linear_layersA``, has them a second time under
    ``linear_layers``, and keeps ``pis``, the factors ``π·i`` of its cosines. Noise is carried over
    as it is there.

    Raises:
        CheckpointError: names that are missing, left over or misshaped, values that are no tensor
            or of another kind, noise that is no outer product, in one message with all of them; the
            network is unchanged then. Also where the network has parts that BTR's code has not, or
            where one of file and network has dueling and the other has not, or other cosines.
        TypeError: ``net`` is no network of this library.
    """
    network = plain_network(net)
    tensors = normalized(state_dict, NAMINGS["atari"])
    is_wii = any(name.startswith(f"{_WII['value'][0]}.") for name in tensors)
    is_dueling = is_wii or any(name.startswith("dueling.") for name in tensors)
    if is_dueling and network.value_head is None:
        raise CheckpointError(
            "state_dict: found a value and an advantage branch, but this network has one head; "
            "build it with nn.decoder.dueling: per_level; the network is unchanged"
        )
    if network.value_head is not None and any(n.startswith("linear_layers.0.") for n in tensors):
        raise CheckpointError(
            "state_dict: found linear_layers.0, a network without dueling, but this one has a "
            "value head; build it with nn.decoder.dueling: none; the network is unchanged"
        )
    naming = NAMINGS["wii" if is_wii else "atari"]
    rows = table(network, naming)
    write(rows, read(rows, _without_derived(network, tensors), naming.system))


def to_state_dict(net: nn.Module, *, variant: Variant = "atari") -> dict[str, Tensor]:
    """The network's tensors, copied, under the names and in the shapes of BTR's code.

    ``variant`` is the code for Atari, or that for the Wii. :func:`load_state_dict` is the inverse.

    Raises:
        CheckpointError: the network has parts that BTR's code has no names for.
        TypeError: ``net`` is no network of this library.
        ValueError: an unknown variant.
    """
    if variant not in NAMINGS:
        accepted = ", ".join(get_args(Variant))
        raise ValueError(f"variant: got {variant!r}, accepted are {accepted}")
    network = plain_network(net)
    tensors = export(table(network, NAMINGS[variant]))
    return tensors | _derived(network, tensors) if variant == "wii" else tensors


def _atari_parts(net: IQN) -> dict[str, str]:
    return dict([*_body(), *_atari_heads(net)])


def _wii_parts(net: IQN) -> dict[str, str]:
    return dict([*_body(), *_wii_heads()])


def _body() -> Iterator[tuple[str, str]]:
    yield "tau_embedding.projection", "cos_embedding"
    for s in range(3):
        yield f"encoder.stem.stages.{s}.conv", f"conv.{s}.conv"
        for b in range(2):
            block, residual = f"encoder.stem.stages.{s}.blocks.{b}", f"conv.{s}.residual_{b}"
            yield f"{block}.conv1", f"{residual}.conv_0"
            yield f"{block}.conv2", f"{residual}.conv_1"


def _atari_heads(net: IQN) -> Iterator[tuple[str, str]]:
    """A head is one sequence: Linear, [LayerNorm], activation, readout."""
    if net.value_head is None:
        # Its code has no LayerNorm here, so ours stays without a name.
        yield "advantage_head.hidden.0.linear", "linear_layers.0"
        yield "advantage_head.readout", "linear_layers.2"
        return
    layer_norm = config_of(net).btr.use_layer_norm
    for name in ("value", "advantage"):
        branch = f"dueling.{name}_branch"
        yield f"{name}_head.hidden.0.linear", f"{branch}.0"
        yield f"{name}_head.hidden.0.norm", f"{branch}.1"
        yield f"{name}_head.readout", f"{branch}.{3 if layer_norm else 2}"


# The head's branch there, and the letter in the names of its layers.
_WII = {"value": ("linear_layersV", "V"), "advantage": ("linear_layersA", "A")}


def _wii_heads() -> Iterator[tuple[str, str]]:
    for name, (branch, letter) in _WII.items():
        yield f"{name}_head.hidden.0.linear", f"{branch}.fc1{letter}"
        yield f"{name}_head.hidden.0.norm", f"{branch}.LN_{letter}"
        yield f"{name}_head.readout", f"{branch}.fc2{letter}"


NAMINGS: Mapping[str, Naming] = {
    "atari": Naming(
        "BTR",
        _atari_parts,
        SPECTRAL_PARAMETRIZATION,
        "build it as presets.btr does; with nn.decoder.dueling: none set btr.use_layer_norm: false",
        one_head=True,
    ),
    "wii": Naming(
        "BTR (Wii)",
        _wii_parts,
        SPECTRAL_PARAMETRIZATION,
        "build it as presets.btr does; for one head (nn.decoder.dueling: none) say variant='atari'",
    ),
}


def _derived(network: IQN, tensors: Mapping[str, Any]) -> dict[str, Any]:
    """What the Wii variant keeps besides: the factors of the cosines, both branches once more."""
    embedding = network.tau_embedding
    start, count = embedding.cosine_start, embedding.embedding_dimension
    i = torch.arange(start, start + count, dtype=torch.float64)
    derived: dict[str, Any] = {"pis": (math.pi * i).float().view(1, 1, -1)}
    for head, (branch, _) in _WII.items():
        for name, value in tensors.items():
            if name.startswith(f"{branch}."):
                again = f"linear_layers.{head}_branch{name.removeprefix(branch)}"
                derived[again] = value
    return derived


def _without_derived(network: IQN, tensors: Mapping[str, Any]) -> dict[str, Any]:
    """``tensors`` without what follows from others, where it is what follows from them."""
    derived = _derived(network, tensors)
    faults = [
        name for name in derived if name in tensors and not _same(tensors[name], derived[name])
    ]
    if faults:
        raise CheckpointError(
            f"state_dict: found other numbers than expected in {', '.join(faults)}; pis must be "
            f"π·i for the i of this network, {network.tau_embedding.extra_repr()}, and what is "
            "under linear_layers the same as in linear_layersV and linear_layersA; set "
            "nn.iqn.cosine_start and embedding_dimension; the network is unchanged"
        )
    return {name: value for name, value in tensors.items() if name not in derived}


def _same(found: Any, expected: Any) -> bool:
    if not (isinstance(found, Tensor) and isinstance(expected, Tensor)):
        return False
    if found.shape != expected.shape or not found.is_floating_point():
        return False
    # Numbers that were cast keep the rounding of either dtype.
    rounding = 4 * max(torch.finfo(tensor.dtype).eps for tensor in (found, expected))
    return torch.allclose(
        found.double(), expected.to(found.device).double(), rtol=rounding, atol=0, equal_nan=True
    )
