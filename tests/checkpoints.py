"""What the tests of checkpoints share."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor

import iqn_blocks

CONFIG, WEIGHTS = "config.json", "model.safetensors"


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


def rewrite(folder: Path, weights: Mapping[str, Tensor] | bytes, **changes: object) -> None:
    """Put other weights into a folder, so that its digest holds, and change keys of config.json."""
    content = weights if isinstance(weights, bytes) else save(dict(weights))
    (folder / WEIGHTS).write_bytes(content)
    change_config(folder, weights_sha256=hashlib.sha256(content).hexdigest(), **changes)


def change_config(folder: Path, **changes: object) -> None:
    """Change keys of config.json."""
    data = json.loads((folder / CONFIG).read_text())
    (folder / CONFIG).write_text(json.dumps(data | changes))
