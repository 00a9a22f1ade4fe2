"""Reading the files of a checkpoint, before a network is made of them."""

from __future__ import annotations

import json
import os
import stat
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from safetensors import safe_open
from safetensors.torch import load as decode_tensors
from torch import Tensor

from iqn_blocks.checkpoint.format import (
    CONFIG_FILE,
    FORMAT,
    WEIGHTS_FILE,
    Manifest,
    checked_folder,
    settings_in,
    sha256,
)
from iqn_blocks.errors import CheckpointError


class Checkpoint(NamedTuple):
    """The content of a folder.

    ``tensors`` by name, in memory of their own, come from ``path``, the manifest from ``source``.
    """

    manifest: Manifest
    tensors: dict[str, Tensor]
    path: Path
    source: Path


def read_folder(folder: str | os.PathLike[str]) -> Checkpoint:
    """The content of a checkpoint folder, in memory: the files may change later.

    Raises:
        CheckpointError: a file is missing, damaged or of a newer format.
    """
    folder = checked_folder(folder)
    path = source = folder / WEIGHTS_FILE
    content = read_bytes(path)

    def unusable(reason: str) -> CheckpointError:
        return CheckpointError(f"{path}: {'not found' if content is None else reason}")

    settings = settings_in(content or b"")
    if settings is None:  # version 1
        source = folder / CONFIG_FILE
        settings = read_bytes(source)
    if settings is None:
        raise unusable(
            f"is damaged, or no checkpoint: it holds no settings, and there is no {CONFIG_FILE} "
            f"beside it"
        )
    manifest = Manifest.decode(settings, source)
    expected = manifest.weights_sha256
    if content is None or sha256(content, expected) != expected:
        other = folder / f"model-{expected}.safetensors"
        spare = read_bytes(other)
        if spare is None or sha256(spare) != expected:
            if read_bytes(path) != content:  # another process has saved meanwhile
                return read_folder(folder)
            raise unusable(
                f"is damaged, incomplete or of another save: its SHA-256 is "
                f"{sha256(content or b'', expected)}, {source.name} names {expected}"
            )
        path, content = other, spare
    try:
        tensors = decode_tensors(content)
    except Exception as error:  # the parser raises many types; each means the same here
        raise CheckpointError(f"{path}: is not a safetensors file: {error}") from error
    return Checkpoint(manifest, tensors, path, source)


def is_checkpoint(folder: Path) -> bool:
    """Whether a folder is one of ours, or its config.json is too damaged to know."""
    weights = folder / WEIGHTS_FILE
    if weights.is_file():  # opening a pipe would wait
        with suppress(Exception), safe_open(weights, "pt") as file:
            if FORMAT in (file.metadata() or {}):
                return True
    try:
        config = read_bytes(folder / CONFIG_FILE)
        data = {} if config is None else json.loads(config)
    except (ValueError, RecursionError):  # CheckpointError is a ValueError
        return True
    return not isinstance(data, dict) or data.get("format") == FORMAT


def read_bytes(path: Path) -> bytes | None:
    """The content of a file, None where there is none: a save may remove it at any moment."""
    try:
        if stat.S_ISREG(path.stat().st_mode):  # reading a pipe would wait for its writer
            return path.read_bytes()
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise CheckpointError(f"{path}: cannot be read: {reason}") from error
    raise CheckpointError(f"{path}: is not a file")
