"""Single blocks beside those of other libraries, where these are installed."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec

import torch
from torch import Tensor, nn

from benchmarks.results import SECONDS, Record
from benchmarks.setup import Setup
from benchmarks.timing import Call, time_sides
from iqn_blocks.blocks import NoisyLinear, TauEmbedding
from iqn_blocks.functional import hadamard_mix

BATCH, QUANTILES, STATE_DIM, WIDTH, COSINES = 64, 8, 768, 512, 64


def measure_peers(setup: Setup) -> list[Record]:
    """Forward and backward of the τ embedding with its mix, and of a noisy layer."""
    return [
        *_compare(setup, "cosine embedding and mix", _mixers(setup.device)),
        *_compare(setup, "noisy linear", _noisy_layers(setup.device)),
    ]


def _compare(setup: Setup, case: str, sides: dict[str, Call]) -> list[Record]:
    return [
        Record.of("peers", "", case, side, SECONDS, seconds)
        for side, seconds in time_sides(sides, setup.clock, setup.repetitions).items()
    ]


def _installed(library: str) -> bool:
    found = find_spec(library) is not None
    if not found:
        print(f"peers: {library} is not installed, left out")
    return found


def _mixers(device: torch.device) -> dict[str, Call]:
    state = torch.randn(BATCH, STATE_DIM, device=device)
    tau = torch.rand(BATCH, QUANTILES, device=device)  # batch-major, as elsewhere
    rows = tau.T.reshape(-1, 1)
    ours = TauEmbedding(COSINES, STATE_DIM).to(device)
    sides: dict[str, Call] = {
        "ours": _step(ours, lambda: hadamard_mix(state, ours(rows), QUANTILES))
    }
    if _installed("tianshou"):
        theirs = import_module("tianshou.utils.net.discrete").CosineEmbeddingNetwork(
            COSINES, STATE_DIM
        )
        sides["tianshou"] = _step(
            theirs.to(device), lambda: (state.unsqueeze(1) * theirs(tau)).view(-1, STATE_DIM)
        )
    if _installed("pfrl"):
        module = import_module("pfrl.agents.iqn")
        basis = nn.Sequential(module.CosineBasisLinear(COSINES, STATE_DIM), nn.ReLU()).to(device)
        sides["pfrl"] = _step(basis, lambda: (state.unsqueeze(1) * basis(tau)).view(-1, STATE_DIM))
    return sides


def _noisy_layers(device: torch.device) -> dict[str, Call]:
    x = torch.randn(BATCH * QUANTILES, STATE_DIM, device=device)
    layers: dict[str, nn.Module] = {"ours": NoisyLinear(STATE_DIM, WIDTH)}
    if _installed("tianshou"):
        module = import_module("tianshou.utils.net.discrete")
        layers["tianshou"] = module.NoisyLinear(STATE_DIM, WIDTH)
    if _installed("torchrl"):
        layers["torchrl"] = import_module("torchrl.modules").NoisyLinear(STATE_DIM, WIDTH)
    if _installed("pfrl"):
        # It draws new noise at each forward and cannot be told not to.
        module = import_module("pfrl.nn.noisy_linear")
        layers["pfrl"] = module.FactorizedNoisyLinear(nn.Linear(STATE_DIM, WIDTH))
    return {name: _layer_step(layer.to(device), x) for name, layer in layers.items()}


def _layer_step(layer: nn.Module, x: Tensor) -> Call:
    return _step(layer, lambda: layer(x))


def _step(module: nn.Module, forward: Callable[[], Tensor]) -> Call:
    def step() -> None:
        out = forward()
        torch.autograd.backward(out, torch.ones_like(out))
        module.zero_grad(set_to_none=True)

    return step
