"""trackmania_rl's weight files: ``weights1.torch``, and the folders of its fusion policies."""

from __future__ import annotations

import io
import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load as decode_tensors
from torch import Tensor

from iqn_blocks.assembly import assemble
from iqn_blocks.checkpoint.reading import read_bytes
from iqn_blocks.config import Config, parse
from iqn_blocks.errors import CheckpointError
from iqn_blocks.interop.trackmania_rl.configs import Read, read_keys, read_mapping
from iqn_blocks.interop.trackmania_rl.environment import MADE_LISTS
from iqn_blocks.interop.trackmania_rl.state_dicts import lacks_stats, load_state_dict
from iqn_blocks.network import IQN

WEIGHTS_FILE = "weights1.torch"  # the online network; weights2.torch is the target network
FUSION_WEIGHTS_FILE = "model.safetensors"
_POLICY = "policy."
_POLICY_HEADS = ("trunk.", "policy_head.", "value_head.")


def load_checkpoint(
    path: str | os.PathLike[str],
    config: Config | Mapping[str, Any] | str | os.PathLike[str],
) -> IQN:
    """The network in a ``weights1.torch`` file, or in a folder that holds one.

    ``config`` is trackmania_rl's YAML file or its content, or a configuration of ours. Its
    ``nn.init_from_pretrained`` is ignored, since all weights come from ``path``. Float statistics
    in the file replace the configuration's; files of classic networks from before 2026 have none,
    and the way back to such a file is ``to_state_dict(net, float_stats=False)``.
    The file is read with ``torch.load(weights_only=True)``: nothing in it is executed.

    Warns:
        ImportedConfigWarning, UnusedConfigWarning: as :func:`load_config` does, but for statistics
            that the YAML file lacks and the weights hold.

    Raises:
        CheckpointError: the file cannot be read, or does not fit the configuration.
        ConfigError: the configuration is not valid.
    """
    tensors = read_weights(path)
    settings, notes = _config(config, {str(name).rpartition(".")[2] for name in tensors})
    for note in notes:
        warnings.warn(note, stacklevel=2)
    net = assemble(settings)
    try:
        load_state_dict(net, tensors, float_stats=not lacks_stats(net, tensors))
    except CheckpointError as error:
        raise CheckpointError(f"{os.fspath(path)}: {error}") from None
    return net


def read_weights(path: str | os.PathLike[str]) -> Mapping[str, Any]:
    """The state dict in a file, or in the ``weights1.torch`` of a folder; on the CPU.

    Raises:
        CheckpointError: there is no such file, or it holds other data than names with tensors.
    """
    file = Path(path)
    file = file / WEIGHTS_FILE if file.is_dir() else file
    stored = io.BytesIO(_bytes(file))
    try:
        content = torch.load(stored, map_location="cpu", weights_only=True)
    except Exception:  # the reader raises many types, and gives unsafe advice
        raise CheckpointError(
            f"{file}: is damaged, or holds something else than tensors; expected a state dict that "
            f"torch.save wrote"
        ) from None
    if not isinstance(content, Mapping):
        raise CheckpointError(f"{file}: expected a state dict, found {type(content).__name__}")
    return content


def read_fusion_folder(folder: str | os.PathLike[str]) -> dict[str, Tensor]:
    """The encoder in a folder of a fusion policy, under the names it has in a whole network.

    trackmania_rl itself reads such a folder for ``nn.init_from_pretrained``. The policy has the
    multimodal encoder, and heads of its own, which are left out.

    Raises:
        CheckpointError: the file is missing or damaged, or holds no such policy.
    """
    file = Path(folder) / FUSION_WEIGHTS_FILE
    stored = _bytes(file)
    try:
        tensors = decode_tensors(stored)
    except Exception as error:  # the parser raises many types; each means the same here
        raise CheckpointError(f"{file}: is not a safetensors file: {error}") from None
    foreign = [name for name in tensors if not name.startswith(_POLICY)]
    if foreign or not tensors:
        raise CheckpointError(
            f"{file}: expected a policy, whose names start with {_POLICY!r}, found "
            f"{', '.join(foreign) or 'nothing'}"
        )
    encoder = {name.removeprefix(_POLICY): value for name, value in tensors.items()}
    return {f"fusion.{n}": v for n, v in encoder.items() if not n.startswith(_POLICY_HEADS)}


def _bytes(file: Path) -> bytes:
    content = read_bytes(file)
    if content is None:
        raise CheckpointError(f"{file}: cannot be read: No such file or directory")
    return content


def _config(
    config: Config | Mapping[str, Any] | str | os.PathLike[str], in_weights: set[str]
) -> Read:
    def read(keys: Mapping[str, Any]) -> Read:
        if "n_actions" in keys:
            return parse(keys), []
        return read_mapping(keys, weights_hold_stats=in_weights.issuperset(MADE_LISTS))

    return (config, []) if isinstance(config, Config) else read_keys(config, read)
