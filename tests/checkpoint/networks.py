"""What the tests of checkpoints share."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load, save
from torch import Tensor

import iqn_blocks

CONFIG, WEIGHTS = "config.json", "model.safetensors"
SETTINGS = ("dtype", "other_dtypes", "channels_last", "training", "config", "backbones")


def build(config: Mapping[str, Any], seed: int = 0) -> iqn_blocks.IQN:
    """A network with noise, where it has any."""
    torch.manual_seed(seed)
    net = iqn_blocks.build(config)
    net.reset_noise()
    return net


def outputs(net: iqn_blocks.IQN) -> Tensor:
    """What the network computes in its mode, dropout and spectral norm's steps included."""
    device = net.tau_embedding.projection.weight.device
    inputs = (None if x is None else x.to(device) for x in net.example_inputs(2))
    torch.manual_seed(0)
    with torch.no_grad():
        q, _ = net(*inputs, 4, torch.linspace(0.1, 0.9, 4, device=device)[:, None])
    return q


def assert_same(found: iqn_blocks.IQN, expected: iqn_blocks.IQN) -> None:
    """Equal in config, names, dtypes, every bit of state, frozen parameters, mode and outputs."""
    assert found.config == expected.config
    one, other = found.state_dict(), expected.state_dict()
    assert list(one) == list(other)
    for name, tensor in other.items():
        assert one[name].dtype == tensor.dtype, name
        assert torch.equal(one[name], tensor), name
    frozen = [[p.requires_grad for p in net.parameters()] for net in (found, expected)]
    assert frozen[0] == frozen[1]
    assert [m.training for m in found.modules()] == [m.training for m in expected.modules()]
    assert torch.equal(outputs(found), outputs(expected))
    # The step of spectral norm that `outputs` may have done is the same, too.
    assert all(map(torch.equal, found.state_dict().values(), expected.state_dict().values()))


def change_settings(folder: Path, **changes: object) -> None:
    """Change settings of a checkpoint, so that its digests hold."""
    content = (folder / WEIGHTS).read_bytes()
    start = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:start])
    data = json.loads(header["__metadata__"]["iqn-blocks"]) | changes
    data["settings_sha256"] = settings_sha256(data)
    data["weights_sha256"] = zeros = "0" * 64
    header["__metadata__"]["iqn-blocks"] = json.dumps(data)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    content = len(text).to_bytes(8, "little") + text + content[start:]
    digest = hashlib.sha256(content).hexdigest()
    (folder / WEIGHTS).write_bytes(content.replace(zeros.encode(), digest.encode(), 1))


def settings_sha256(data: Mapping[str, Any]) -> str:
    """The digest of the settings among the keys of config.json."""
    settings = {key: data[key] for key in SETTINGS}
    text = json.dumps(settings, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def to_version_1(folder: Path) -> None:
    """Write a folder anew as format version 1 was: no metadata, and config.json counts."""
    rewrite(folder, load((folder / WEIGHTS).read_bytes()))


def rewrite(folder: Path, weights: Mapping[str, Tensor] | bytes, **changes: object) -> None:
    """As :func:`to_version_1` with other weights; also changes keys of config.json."""
    content = weights if isinstance(weights, bytes) else save(dict(weights), {"format": "pt"})
    (folder / WEIGHTS).write_bytes(content)
    digest = hashlib.sha256(content).hexdigest()
    change_config(folder, format_version=1, weights_sha256=digest, **changes)


def change_config(folder: Path, **changes: object) -> None:
    """Change keys of config.json, which count in folders of version 1."""
    data = json.loads((folder / CONFIG).read_text())
    (folder / CONFIG).write_text(json.dumps(data | changes))
