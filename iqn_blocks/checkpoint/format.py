"""The file of a checkpoint: ``model.safetensors``, with the settings in its metadata.

``config.json`` beside it is a copy of the settings for people. Format version 1 had no metadata:
there ``config.json`` counts, and names the SHA-256 of ``model.safetensors``, or of
``model-<digest>.safetensors`` where a save was cut short.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import save as encode_tensors
from torch import Tensor

from iqn_blocks._version import VERSION
from iqn_blocks.config import Config
from iqn_blocks.errors import CheckpointError, ConfigError
from iqn_blocks.plain import show

FORMAT = "iqn-blocks"
FORMAT_VERSION = 2
CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"

# Every dtype that a tensor in the file may have, by the name `config.json` uses.
_NAMES = "float64 float32 bfloat16 float16 int64 int32 int16 int8 uint8 bool"
DTYPES: Mapping[str, torch.dtype] = {name: getattr(torch, name) for name in _NAMES.split()}
DTYPE_NAMES = {dtype: name for name, dtype in DTYPES.items()}

_NO_DIGEST = "0" * 64  # stands for a file's digest while that is computed
_DIGEST = re.compile(r"[0-9a-f]{64}")
_KEYS = {
    "format": str,
    "format_version": int,
    "library_version": str,
    "weights_sha256": str,
    "dtype": str,
    "other_dtypes": dict,
    "channels_last": list,
    "training": bool,
    "config": dict,
    "backbones": dict,
    "settings_sha256": str,
}
_SETTINGS = ("dtype", "other_dtypes", "channels_last", "training", "config", "backbones")


class Manifest(NamedTuple):
    """The settings of a network, and the digest of the file that holds its weights.

    ``dtype`` is that of the network's parameters. ``other_dtypes`` names the tensors of another
    dtype, such as the statistics of floats in a half-precision network. ``channels_last`` names the
    tensors in that layout, which files do not hold, but which changes how convolutions round.
    ``backbones`` holds what the Hugging Face models inside the network are rebuilt from. ``edited``
    is empty, or the SHA-256 of settings that were changed after they were saved.
    """

    config: Config
    dtype: torch.dtype
    other_dtypes: Mapping[str, torch.dtype]
    channels_last: Sequence[str]
    training: bool
    backbones: Mapping[str, Any]
    weights_sha256: str = _NO_DIGEST
    edited: str = ""

    def encode(self, tensors: Mapping[str, Tensor]) -> tuple[bytes, bytes]:
        """The bytes of ``model.safetensors`` and of ``config.json``."""
        settings = {
            "dtype": DTYPE_NAMES[self.dtype],
            "other_dtypes": {name: DTYPE_NAMES[d] for name, d in self.other_dtypes.items()},
            "channels_last": list(self.channels_last),
            "training": self.training,
            "config": self.config.to_dict(),
            "backbones": dict(self.backbones),
        }
        data = {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "library_version": VERSION,
            "weights_sha256": self.weights_sha256,
            **settings,
            "settings_sha256": sha256(canonical_json(settings)),
        }
        text = json.dumps(data, indent=2, allow_nan=False) + "\n"
        # A single key, since several would be written in a random order.
        weights = encode_tensors(dict(tensors), metadata={FORMAT: text})
        old, new = _NO_DIGEST.encode(), sha256(weights).encode()
        return weights.replace(old, new, 1), text.encode().replace(old, new, 1)

    @classmethod
    def decode(cls, content: bytes, path: Path) -> Manifest:
        """The manifest in ``content``, the bytes of the file ``path``.

        Raises:
            CheckpointError: not JSON, of a newer format, a key missing or of another type, or a
                configuration that is not valid.
        """
        data = _checked_keys(_read_json(content, path), path)
        try:
            config = Config.model_validate(data["config"])
        except ConfigError as error:
            raise CheckpointError(f"{path}: the configuration is not valid:\n{error}") from error
        settings = sha256(canonical_json({key: data[key] for key in _SETTINGS}))
        names = data["channels_last"]
        if not all(isinstance(name, str) for name in names):
            raise CheckpointError(f"{path}: channels_last: expected names, found {show(names)}")
        floating = [name for name, dtype in DTYPES.items() if dtype.is_floating_point]
        return cls(
            config,
            _dtype(data["dtype"], "dtype", path, floating),
            {
                name: _dtype(value, f"other_dtypes.{name}", path)
                for name, value in data["other_dtypes"].items()
            },
            names,
            data["training"],
            data["backbones"],
            data["weights_sha256"],
            edited="" if settings == data["settings_sha256"] else settings,
        )


def checked_folder(folder: str | os.PathLike[str]) -> Path:
    """The path of a folder, which need not exist; raises CheckpointError for a file."""
    if not os.fspath(folder):
        raise CheckpointError("folder: found ''; expected a path; '.' is the current folder")
    if os.path.isfile(folder):
        parent = Path(folder).parent
        is_inside = (parent / WEIGHTS_FILE).is_file()
        way_out = (
            f"{str(parent)!r}, which holds it, or another one" if is_inside else "another path"
        )
        raise CheckpointError(f"{folder}: is a file; a checkpoint is a folder: pass {way_out}")
    return Path(folder)


def settings_in(weights: bytes) -> bytes | None:
    """The settings in the metadata of a safetensors file; None where there are none."""
    end = 8 + int.from_bytes(weights[:8], "little")
    try:
        text = json.loads(weights[8:end])["__metadata__"][FORMAT]
        return text.encode()  # type: ignore[no-any-return]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


def sha256(content: bytes, named: str = _NO_DIGEST) -> str:
    """SHA-256 as 64 hexadecimal digits; a digest ``named`` in ``content`` is read as zeros."""
    at = content.find(named.encode())
    digest = hashlib.sha256(content if at < 0 else memoryview(content)[:at])
    if at >= 0:
        digest.update(_NO_DIGEST.encode())
        digest.update(memoryview(content)[at + len(named) :])
    return digest.hexdigest()


def canonical_json(data: object) -> bytes:
    """JSON that is the same for equal data in any order of keys."""
    return json.dumps(data, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def _read_json(content: bytes, path: Path) -> dict[str, Any]:
    try:
        data = json.loads(
            content.decode(),
            object_pairs_hook=_without_duplicates,
            parse_constant=_finite,
            parse_float=_finite,
        )
        canonical_json(data)  # too deep a nesting can be read, but not written
    except UnicodeDecodeError as error:
        raise CheckpointError(f"{path}: is not UTF-8 at byte {error.start}") from None
    except ValueError as error:
        raise CheckpointError(f"{path}: is not JSON: {error}") from None
    except RecursionError:
        raise CheckpointError(f"{path}: is nested too deeply") from None
    if not isinstance(data, dict):
        raise CheckpointError(f"{path}: expected a JSON object, found {show(data)}")
    return data


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    data = dict(pairs)
    if len(data) != len(pairs):
        raise ValueError("the same key twice in one object")
    return data


def _finite(number: str) -> float:
    value = float(number)
    if not math.isfinite(value):
        raise ValueError(f"{number} is not a finite number")
    return value


def _checked_keys(data: dict[str, Any], path: Path) -> dict[str, Any]:
    if data.get("format") != FORMAT:
        raise CheckpointError(
            f"{path}: is not of an iqn-blocks checkpoint: its format is "
            f"{show(data.get('format'))}, expected {FORMAT!r}"
        )
    version = data.get("format_version")
    if isinstance(version, int) and version > FORMAT_VERSION:
        raise CheckpointError(
            f"{path}: has format version {version}, written by iqn-blocks "
            f"{show(data.get('library_version'))}; this version reads up to {FORMAT_VERSION}: "
            f"upgrade iqn-blocks"
        )
    faults = [f"missing key {key!r}" for key in _KEYS if key not in data]
    faults += [f"unknown key {key!r}" for key in data if key not in _KEYS]
    faults += [
        f"{key}: expected {kind.__name__}, found {show(data[key])}"
        for key, kind in _KEYS.items()
        if key in data and type(data[key]) is not kind
    ]
    if not faults and version not in (1, FORMAT_VERSION):
        faults.append(f"format_version: expected 1 or {FORMAT_VERSION}, found {show(version)}")
    if not faults and not _DIGEST.fullmatch(data["weights_sha256"]):
        faults.append(
            f"weights_sha256: expected 64 hexadecimal digits, found {show(data['weights_sha256'])}"
        )
    if faults:
        raise CheckpointError("\n".join(f"{path}: {fault}" for fault in faults))
    return data


def _dtype(name: object, key: str, path: Path, accepted: Iterable[str] = DTYPES) -> torch.dtype:
    if not isinstance(name, str) or name not in accepted:
        raise CheckpointError(
            f"{path}: {key}: expected one of {', '.join(accepted)}, found {show(name)}"
        )
    return DTYPES[name]
