"""Target updates: every tensor that counts moves, by the right rule, and nothing else does."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from iqn_blocks.blocks import NoisyLinear
from iqn_blocks.blocks.spectral import SpectralNormConv2d
from iqn_blocks.target import hard_update_, polyak_update_


class Everything(nn.Module):
    """One of each: plain parameters, statistics, a count, noise, spectral norm, an own ``u``."""

    mean: Tensor
    count: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 2)
        self.noisy = NoisyLinear(3, 2)
        self.conv = SpectralNormConv2d(1, 2, 3)
        self.register_buffer("mean", torch.randn(3))
        self.register_buffer("count", torch.tensor(0))
        self.register_buffer("scratch", torch.randn(2), persistent=False)
        self.u = nn.Parameter(torch.randn(4))  # a parameter, so averaged whatever its name


def pair(noise: bool = True) -> tuple[Everything, Everything]:
    """A target and an online network whose tensors all differ."""
    torch.manual_seed(0)
    target, online = Everything(), Everything()
    online.count += 5
    if noise:
        target.noisy.reset_noise()
        online.noisy.reset_noise()
    return target, online


def tensors(module: nn.Module) -> dict[str, Tensor]:
    named = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    return {name: tensor.detach().clone() for name, tensor in named.items()}


COPIED = {"conv.u", "conv.v", "count"}
NOISE = {"noisy.epsilon_in", "noisy.epsilon_out"}


@pytest.mark.parametrize("weight", [0.0, 0.005, 0.5, 1.0])
def test_polyak_update(weight: float) -> None:
    target, online = pair()
    old, new = tensors(target), tensors(online)
    polyak_update_(target, online, weight)
    for name, tensor in tensors(target).items():
        if name in NOISE:
            expected = old[name]
        elif name in COPIED:
            expected = new[name]
        else:
            expected = (1 - weight) * old[name] + weight * new[name]
        torch.testing.assert_close(tensor, expected, msg=name)
    assert all(torch.equal(tensor, new[name]) for name, tensor in tensors(online).items())


def test_hard_update_copies_all_but_noise() -> None:
    target, online = pair()
    old, new = tensors(target), tensors(online)
    hard_update_(target, online)
    for name, tensor in tensors(target).items():
        assert torch.equal(tensor, (old if name in NOISE else new)[name]), name


@pytest.mark.parametrize("hard", [False, True])
def test_noise_when_asked(hard: bool) -> None:
    target, online = pair()
    if hard:
        hard_update_(target, online, noise=True)
    else:
        polyak_update_(target, online, 0.1, noise=True)
    for name in ("epsilon_in", "epsilon_out"):
        assert torch.equal(getattr(target.noisy, name), getattr(online.noisy, name))


def test_target_noise_that_is_off_stays_off() -> None:
    target, online = pair(noise=False)
    online.noisy.reset_noise()
    hard_update_(target, online)
    assert not target.noisy.epsilon_in.any()


def test_hard_update_recovers_from_nan() -> None:
    target, online = pair()
    with torch.no_grad():
        target.linear.weight.fill_(math.nan)
    hard_update_(target, online)
    assert torch.equal(target.linear.weight, online.linear.weight)


def test_updates_are_in_place_and_outside_the_graph() -> None:
    target, online = pair()
    pointers = {name: p.data_ptr() for name, p in target.named_parameters()}
    polyak_update_(target, online, 0.5)
    hard_update_(target, online)
    assert {name: p.data_ptr() for name, p in target.named_parameters()} == pointers
    for parameter in (*target.parameters(), *online.parameters()):
        assert parameter.requires_grad
        assert parameter.grad_fn is None


def test_repeated_updates_converge() -> None:
    target, online = pair()
    for _ in range(200):
        polyak_update_(target, online, 0.1)
    for name, tensor in tensors(target).items():
        if name not in NOISE:
            torch.testing.assert_close(tensor, tensors(online)[name], msg=name)


def test_spectral_norm_of_the_target_follows_its_weights() -> None:
    """With parameters alone the target's u and v go stale, and σ is no longer its spectral norm."""
    torch.manual_seed(0)
    online = SpectralNormConv2d(8, 16, 3)
    target, careless = copy.deepcopy(online).eval(), copy.deepcopy(online).eval()
    x = torch.randn(2, 8, 5, 5)
    for _ in range(100):
        with torch.no_grad():
            online.weight += 0.05 * torch.randn_like(online.weight)
        online(x)  # one power iteration
        polyak_update_(target, online, 0.05)
        with torch.no_grad():
            careless.weight.lerp_(online.weight, 0.05)

    def norm_after_division(conv: SpectralNormConv2d) -> float:
        weight = conv.normalized_weight().detach().flatten(1)
        return torch.linalg.matrix_norm(weight, 2).item()

    assert norm_after_division(target) == pytest.approx(1, abs=0.1)
    assert norm_after_division(careless) > 1.2


def test_shared_tensors_stay_as_they_are() -> None:
    target, online = pair()
    target.linear = online.linear  # a frozen backbone held once, for instance
    before = online.linear.weight.detach().clone()
    polyak_update_(target, online, 0.3)
    hard_update_(target, online)
    assert torch.equal(online.linear.weight, before)


def test_dtypes_may_differ() -> None:
    target, online = pair()
    online = online.bfloat16()
    old, new = tensors(target), tensors(online)
    polyak_update_(target, online, 0.25)
    weight = target.linear.weight.detach()
    assert weight.dtype == torch.float32
    expected = 0.75 * old["linear.weight"] + 0.25 * new["linear.weight"].float()
    torch.testing.assert_close(weight, expected)
    hard_update_(target, online)
    assert torch.equal(target.linear.weight, new["linear.weight"].float())


@pytest.mark.parametrize("wrapped", ["target", "online", "part"])
def test_compiled_networks(wrapped: str) -> None:
    target, online = pair()
    expected = copy.deepcopy(target)
    polyak_update_(expected, online, 0.3)
    t: nn.Module = target
    o: nn.Module = online
    if wrapped == "target":
        t = torch.compile(target)
    elif wrapped == "online":
        o = torch.compile(online)
    else:
        target.linear = torch.compile(target.linear)
    polyak_update_(t, o, 0.3)
    for (name, tensor), exact in zip(
        tensors(target).items(), tensors(expected).values(), strict=True
    ):
        assert torch.equal(tensor, exact), name


@pytest.mark.parametrize("backend", ["eager", "inductor"])
def test_update_under_compile(backend: str) -> None:
    target, online = pair()
    expected = copy.deepcopy(target)
    polyak_update_(expected, online, 0.3)
    hard_update_(expected.conv, online.conv)

    @torch.compile(fullgraph=True, backend=backend)
    def step(target: Everything, online: Everything) -> None:
        polyak_update_(target, online, 0.3)
        hard_update_(target.conv, online.conv)

    step(target, online)
    for name, tensor in tensors(target).items():
        torch.testing.assert_close(tensor, tensors(expected)[name], msg=name)


def test_one_fused_call_of_each_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    for name in ("_foreach_lerp_", "_foreach_copy_"):
        original = getattr(torch, name)

        def spy(*args: Any, name: str = name, original: Any = original) -> Any:
            calls.append(name)
            return original(*args)

        monkeypatch.setattr(torch, name, spy)
    target, online = pair()
    polyak_update_(target, online, 0.3)
    assert sorted(calls) == ["_foreach_copy_", "_foreach_lerp_"]
    calls.clear()
    hard_update_(target, online)
    assert calls == ["_foreach_copy_"]


def test_networks_without_anything_to_copy_or_at_all() -> None:
    target, online = nn.Linear(2, 2), nn.Linear(2, 2)
    polyak_update_(target, online, 1.0)
    assert torch.equal(target.weight, online.weight)
    polyak_update_(nn.ReLU(), nn.ReLU(), 0.5)
    hard_update_(nn.ReLU(), nn.ReLU())


@pytest.mark.parametrize("hard", [False, True])
def test_differences_are_listed(hard: bool) -> None:
    target = nn.ModuleDict({"a": nn.Linear(2, 3), "b": nn.Linear(1, 1)})
    online = nn.ModuleDict({"a": nn.Linear(2, 4), "c": nn.BatchNorm1d(1)})
    before = tensors(target)
    with pytest.raises(ValueError, match="target and online differ") as error:
        if hard:
            hard_update_(target, online)
        else:
            polyak_update_(target, online, 0.5)
    lines = str(error.value).splitlines()[1:]
    assert [line.strip() for line in lines] == [
        "b.weight: only in target",
        "b.bias: only in target",
        "c.weight: only in online",
        "c.bias: only in online",
        "c.running_mean: only in online",
        "c.running_var: only in online",
        "c.num_batches_tracked: only in online",
        "a.weight: (3, 2) in target, (4, 2) in online",
        "a.bias: (3,) in target, (4,) in online",
    ]
    assert all(torch.equal(tensor, before[name]) for name, tensor in tensors(target).items())


def test_a_long_list_of_differences_is_cut() -> None:
    target = nn.ModuleList(nn.Linear(1, 1) for _ in range(20))
    with pytest.raises(ValueError, match="target and online differ") as error:
        hard_update_(target, nn.Identity())
    lines = str(error.value).splitlines()
    assert len(lines) == 12
    assert lines[-1].strip() == "and 30 more"
    with pytest.raises(ValueError, match="target and online differ") as error:
        hard_update_(target[:5], nn.Identity())  # ten of them
    assert len(str(error.value).splitlines()) == 11
    assert "more" not in str(error.value)


@pytest.mark.parametrize("weight", [-0.1, 1.1, math.nan, math.inf, True, "0.5"])
def test_weight(weight: Any) -> None:
    with pytest.raises(ValueError, match=r"weight: got .*, accepted is 0 <= weight <= 1"):
        polyak_update_(nn.Linear(1, 1), nn.Linear(1, 1), weight)
