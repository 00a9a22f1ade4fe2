"""``nn.init_from_pretrained``: a new network whose state encoder starts from a checkpoint."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from iqn_blocks.checkpoint.format import CONFIG_FILE
from iqn_blocks.checkpoint.reading import is_checkpoint, read_folder
from iqn_blocks.errors import CheckpointError
from iqn_blocks.interop._naming import Row
from iqn_blocks.interop._transfer import read, write
from iqn_blocks.interop.trackmania_rl.files import (
    FUSION_WEIGHTS_FILE,
    WEIGHTS_FILE,
    read_fusion_folder,
    read_weights,
)
from iqn_blocks.interop.trackmania_rl.state_dicts import load_encoder as load_trackmania_encoder
from iqn_blocks.network import IQN
from iqn_blocks.plain import shorten

KEY = "nn.init_from_pretrained"
_ENCODER = "encoder."


def load_encoder(net: IQN, path: str) -> None:
    """Load the state encoder, float statistics included, from a checkpoint on this machine.

    ``path`` is a folder that ``save_pretrained`` wrote; a ``weights1.torch`` file of trackmania_rl
    or a folder with one; or a folder of its fusion policies. The quantile path is left as it is.

    Raises:
        CheckpointError: there is no such checkpoint, it cannot be read, or its encoder does not
            fit; names the key and the path, and the network is unchanged.
    """
    try:
        _load(net, Path(path))
    except CheckpointError as error:
        text = str(error)
        where = KEY if path in text else f"{KEY}: {shorten(path, 1000)}"
        raise CheckpointError(f"{where}: {text}") from None


def _load(net: IQN, path: Path) -> None:
    if not os.path.exists(path):  # False for impossible names, where Path may raise
        raise CheckpointError("there is no such file or folder; set a path that exists, or ''")
    if path.is_file() or (path / WEIGHTS_FILE).is_file():
        load_trackmania_encoder(net, read_weights(path))
    elif is_checkpoint(path):
        _load_ours(net, read_folder(path).tensors)
    elif (path / FUSION_WEIGHTS_FILE).is_file():
        load_trackmania_encoder(net, read_fusion_folder(path))
    else:
        raise CheckpointError(
            f"found neither {CONFIG_FILE} with {FUSION_WEIGHTS_FILE} nor "
            f"{WEIGHTS_FILE} in it; set a folder that save_pretrained wrote, or one "
            f"of trackmania_rl"
        )


def _load_ours(net: IQN, tensors: Mapping[str, Any]) -> None:
    layers = dict(net.named_modules())
    rows = [
        Row(name, name, tuple(target.shape), target, layers[name.rpartition(".")[0]])
        for name, target in net.state_dict().items()
        if name.startswith(_ENCODER)
    ]
    encoder = {name: value for name, value in tensors.items() if name.startswith(_ENCODER)}
    write(rows, read(rows, encoder, "checkpoint's encoder"))
