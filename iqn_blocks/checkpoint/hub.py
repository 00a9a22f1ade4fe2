"""Networks on the Hugging Face hub."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from iqn_blocks.checkpoint.card import model_card
from iqn_blocks.checkpoint.format import CONFIG_FILE, WEIGHTS_FILE
from iqn_blocks.checkpoint.loading import load_folder
from iqn_blocks.checkpoint.saving import is_writer
from iqn_blocks.errors import CheckpointError
from iqn_blocks.network import IQN, plain_network

_HUB_ID = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?", re.ASCII)  # name, or owner/name


def from_pretrained(
    folder: str | os.PathLike[str],
    *,
    map_location: str | torch.device | None = None,
    dtype: torch.dtype | None = None,
    revision: str | None = None,
    token: str | None = None,
    cache_dir: str | Path | None = None,
    trust_remote_code: bool = False,
) -> IQN:
    """The network that ``save_pretrained`` wrote, bit for bit, in the mode it was saved in.

    Nothing is unpickled. The files may change or vanish later: the network holds copies.

    Args:
        folder: a folder, or the id of a model on the hub such as ``"someone/ms-pacman"``.
        map_location: device to put the network on, the CPU by default.
        dtype: floating dtype to convert the network to, as ``net.to(dtype)`` does.
        revision: branch, tag or commit on the hub.
        token: access token for the hub; by default the one that huggingface_hub finds.
        cache_dir: where files from the hub are kept; huggingface_hub's cache by default.
        trust_remote_code: let a Hugging Face model inside the network that needs code of its own
            fetch and run that code. Set it only for code that you have read.

    Raises:
        CheckpointError: there is no checkpoint in the folder or under the hub id; a file is
            damaged, of a newer format, or does not fit its network. The message names the file and
            lists all misfits.
        ValueError: ``dtype`` is not floating, or hub arguments came with a folder.
    """
    on_hub: dict[str, Any] = {"revision": revision, "token": token, "cache_dir": cache_dir}
    given = [name for name, value in on_hub.items() if value is not None]
    if isinstance(folder, str) and _HUB_ID.fullmatch(folder) and not os.path.lexists(folder):
        folder = _download(folder, on_hub)
    elif given:
        raise ValueError(f"{', '.join(given)}: {os.fspath(folder)} is a folder, not a hub id")
    return load_folder(
        folder, map_location=map_location, dtype=dtype, trust_remote_code=trust_remote_code
    )


def push_to_hub(
    net: IQN,
    repo_id: str,
    *,
    private: bool | None = None,
    token: str | None = None,
    revision: str | None = None,
    commit_message: str = "Upload network",
) -> None:
    """Upload a network to the hub, with a model card; the repository is made if it does not exist.

    One commit replaces ``config.json``, ``model.safetensors`` and ``README.md``; other files there
    stay. In a :mod:`torch.distributed` job rank 0 uploads. ``config.json`` and the card hold the
    whole configuration, the paths that it names included.

    Args:
        net: the network.
        repo_id: ``"owner/name"``.
        private: whether a repository made here is private; the owner's default if omitted.
        token: access token with the right to write; by default the one that huggingface_hub finds.
        revision: branch to commit to, ``main`` by default.
        commit_message: first line of the commit.

    Raises:
        TypeError: as in :meth:`~iqn_blocks.IQN.save_pretrained`.
        ValueError: the network is sharded.
        OSError: the hub cannot be reached or refuses; the message says why.
    """
    net = plain_network(net)
    if any(hasattr(parameter, "full_tensor") for parameter in net.parameters()):
        raise ValueError(
            "net: is sharded over processes; save it with save_pretrained, load it and push that"
        )
    if not is_writer():
        return
    from huggingface_hub import HfApi

    with TemporaryDirectory() as folder:
        net.save_pretrained(folder)
        (Path(folder) / "README.md").write_text(model_card(net, repo_id), encoding="utf-8")
        try:
            api = HfApi(token=token)
            api.create_repo(repo_id, private=private, exist_ok=True)
            api.upload_folder(
                repo_id=repo_id,
                folder_path=folder,
                revision=revision,
                commit_message=commit_message,
            )
        except Exception as error:  # connection, permission and name errors share no base
            raise OSError(
                f"{repo_id}: was not pushed: {error}; the network is unchanged: save_pretrained "
                f"keeps it in a folder until the hub can be reached and lets you write"
            ) from error


def _download(repo_id: str, options: Mapping[str, Any]) -> str:
    """The folder into which both files of one commit were downloaded."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import OfflineModeIsEnabled

    options = {"allow_patterns": [CONFIG_FILE, WEIGHTS_FILE], **options}
    try:
        try:
            path: str = snapshot_download(repo_id, **options)
        except OfflineModeIsEnabled:  # some versions ask for a cached commit's list of files
            path = snapshot_download(repo_id, **options, local_files_only=True)
        return path
    except Exception as error:  # connection, permission, name and cache errors share no base
        raise CheckpointError(
            f"{repo_id}: there is no such folder, and the hub did not give it: {error}"
        ) from error
