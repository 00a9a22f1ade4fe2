"""State dicts of the code published with Beyond The Rainbow (arXiv:2411.03820)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from torch import nn

from iqn_blocks.checkpoint.saving import plain_network
from iqn_blocks.interop._naming import (
    SPECTRAL_PARAMETRIZATION,
    Naming,
    normalized,
    table,
)
from iqn_blocks.interop._transfer import read, write
from iqn_blocks.network import IQN


def load_state_dict(net: nn.Module, state_dict: Mapping[str, Any]) -> None:
    """Load a state dict of BTR's code into a network such as :func:`iqn_blocks.presets.btr` builds.

    That code keeps ``conv.{s}.conv`` and, under spectral normalisation,
    ``conv.{s}.residual_{b}.conv_{c}``; ``cos_embedding``; and ``dueling.value_branch.{0,2}`` and
    ``dueling.advantage_branch.{0,2}``, noisy or not. Noise is carried over as it is there.

    Raises:
        CheckpointError: names that are missing, left over or misshaped, values that are no tensor
            or of another kind, noise that is no outer product, in one message with all of them; the
            network is unchanged then. Also where the network has parts that BTR's code has not.
        TypeError: ``net`` is no network of this library.
    """
    network = plain_network(net)
    rows = table(network, NAMING)
    write(rows, read(rows, normalized(state_dict, NAMING), NAMING.system))


def _parts(net: IQN) -> dict[str, str]:
    return dict([("tau_embedding.projection", "cos_embedding"), *_stem(), *_heads()])


def _stem() -> Iterator[tuple[str, str]]:
    for s in range(3):
        yield f"encoder.stem.stages.{s}.conv", f"conv.{s}.conv"
        for b in range(2):
            block, residual = f"encoder.stem.stages.{s}.blocks.{b}", f"conv.{s}.residual_{b}"
            yield f"{block}.conv1", f"{residual}.conv_0"
            yield f"{block}.conv2", f"{residual}.conv_1"


def _heads() -> Iterator[tuple[str, str]]:
    for head in ("value", "advantage"):
        yield f"{head}_head.hidden.0.linear", f"dueling.{head}_branch.0"
        yield f"{head}_head.readout", f"dueling.{head}_branch.2"


NAMING = Naming("BTR", _parts, SPECTRAL_PARAMETRIZATION)
