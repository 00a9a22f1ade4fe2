"""trackmania_rl state dicts: into a network of ours, and out of one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from iqn_blocks.blocks import FloatNormalization
from iqn_blocks.config import route
from iqn_blocks.interop._hf_names import current_names
from iqn_blocks.interop._naming import Row, normalized, table
from iqn_blocks.interop._transfer import export, read, write
from iqn_blocks.interop.trackmania_rl.names import NAMING, QUANTILE_PATH
from iqn_blocks.network import IQN, config_of, plain_network


def load_state_dict(
    net: nn.Module, state_dict: Mapping[str, Any], *, float_stats: bool = True
) -> None:
    """Load a trackmania_rl state dict into a network built from the matching configuration.

    Names may carry the ``_orig_mod.`` of ``torch.compile``. Spectral normalisation may have the
    names of the old hook (``weight_orig``, ``weight_u``, ``weight_v``) or of the parametrization.
    The two noise vectors are computed from the noise matrix; noise that is zero is off. Float
    statistics come from ``float_inputs_mean`` and ``float_inputs_std`` and replace the
    configuration's. State dicts of classic networks from before 2026 have neither: with
    ``float_stats=False`` the network keeps its own. Floating tensors are cast to the network's
    dtype. The pooler of a Hugging Face backbone is dropped. Names that its model had in other
    versions of transformers are translated.

    Raises:
        CheckpointError: names that are missing, left over or misshaped, values that are no tensor
            or of another kind, noise that is no outer product, in one message with all of them; the
            network is unchanged then.
        TypeError: ``net`` is no network of this library.
    """
    network = plain_network(net)
    rows = _rows(network, float_stats=float_stats)
    _load(network, rows, normalized(state_dict, NAMING))


def load_encoder(net: nn.Module, state_dict: Mapping[str, Any]) -> None:
    """Load the state encoder out of a trackmania_rl state dict; the quantile path does not change.

    ``state_dict`` is that of a whole network, or of an encoder alone. If it :func:`lacks_stats`,
    the float statistics do not change either.

    Raises:
        CheckpointError: as in :func:`load_state_dict`.
        TypeError: ``net`` is no network of this library.
    """
    network = plain_network(net)
    rows = _rows(network, float_stats=not lacks_stats(network, state_dict))
    rows = [row for row in rows if row.ours.startswith("encoder.")]
    tensors = {
        name: value
        for name, value in normalized(state_dict, NAMING).items()
        if not name.startswith(QUANTILE_PATH)
    }
    _load(network, rows, tensors)


def lacks_stats(net: nn.Module, state_dict: Mapping[str, Any]) -> bool:
    """Whether a state dict has no float statistics, and those of the configuration count.

    That is so for classic networks from before 2026, if the configuration has statistics.
    """
    network = plain_network(net)
    config = config_of(network)
    given = None not in (config.float_inputs_mean, config.float_inputs_std)
    names = {row.theirs for row in table(network, NAMING) if _is_stat(row)}
    return given and route(config) == "classic" and names.isdisjoint(normalized(state_dict, NAMING))


def to_state_dict(net: nn.Module, *, float_stats: bool = True) -> dict[str, Tensor]:
    """The network's tensors, copied, under the names and in the shapes of trackmania_rl.

    :func:`load_state_dict` is its exact inverse. ``float_stats=False`` leaves out
    ``float_inputs_mean`` and ``float_inputs_std``, which classic networks from before 2026 do not
    have in their state dict. Noise is written as the matrix ``ε_out ε_inᵀ``, spectral normalisation
    under the names of PyTorch's old hook. Hugging Face backbones have the names of the installed
    transformers, and no pooler.

    Raises:
        CheckpointError: the network has parts that trackmania_rl has no names for, such as a state
            encoder of your own.
        TypeError: ``net`` is no network of this library.
    """
    return export(_rows(plain_network(net), float_stats=float_stats))


def _load(network: IQN, rows: Sequence[Row], tensors: Mapping[str, Any]) -> None:
    write(rows, read(rows, current_names(network, rows, tensors), NAMING.system))


def _rows(network: IQN, *, float_stats: bool) -> list[Row]:
    return [row for row in table(network, NAMING) if float_stats or not _is_stat(row)]


def _is_stat(row: Row) -> bool:
    return isinstance(row.layer, FloatNormalization)
