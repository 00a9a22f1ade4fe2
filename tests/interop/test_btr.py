"""The network of Beyond The Rainbow: the preset, and the state dicts of its code."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor

import iqn_blocks
from iqn_blocks.errors import CheckpointError, ConfigError
from iqn_blocks.interop import btr
from iqn_blocks.presets import btr as btr_preset
from tests import compare
from tests.configs import merge, tiny
from tests.reference.literal import Btr, OneHeadBtr, WiiBtr

ACTIONS, BATCH, QUANTILES = 5, 2, 3


def pair(kind: type[Btr] = Btr, *, layer_norm: bool = False) -> tuple[Any, Btr]:
    """The preset at a third of its width, and the literal network, in float64."""
    torch.manual_seed(0)
    cnn = {"impala_model_size": 1, "adaptive_maxpool_size": 2}
    width = {"mlp": {"hidden_dim": 16}}
    small: dict[str, Any] = {
        "nn": {"vis": {"cnn": cnn}, "decoder": {"advantage": width, "value": width}},
        "btr": {"use_layer_norm": layer_norm},
    }
    if kind is OneHeadBtr:
        unset = {"mlp": {"hidden_dim": None}}
        small["nn"]["decoder"] = {"advantage": width, "value": unset, "dueling": "none"}
        small["btr"]["noisy_value_readout"] = False
    net = iqn_blocks.build(merge(btr_preset(ACTIONS, in_channels=3).to_dict(), small)).double()
    torch.set_default_dtype(torch.float64)
    try:
        literal = kind(ACTIONS, 3, 1, 16, 2, layer_norm=layer_norm)
    finally:
        torch.set_default_dtype(torch.float32)
    for module in literal.modules():
        if isinstance(module, torch.nn.LayerNorm):
            torch.nn.init.normal_(module.weight)
            torch.nn.init.normal_(module.bias)
    return net, literal


def state_of(net: Any) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in net.state_dict().items()}


def assert_same_state(found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert torch.equal(found[name], value.to(found[name])), name


def values(net: Any, frames: Tensor, tau: Tensor) -> Tensor:
    """``(B, K, A)`` for τ as ``(B, K)``."""
    q, _ = net(frames, num_quantiles=QUANTILES, tau=tau.T.reshape(-1, 1))
    return q.view(QUANTILES, BATCH, ACTIONS).transpose(0, 1)


KINDS = [(Btr, False), (Btr, True), (WiiBtr, False), (WiiBtr, True), (OneHeadBtr, False)]


@pytest.mark.parametrize(("kind", "layer_norm"), KINDS)
def test_values_are_those_of_the_code(kind: type[Btr], layer_norm: bool) -> None:
    net, literal = pair(kind, layer_norm=layer_norm)
    btr.load_state_dict(net, {f"_orig_mod.{k}": v for k, v in literal.state_dict().items()})
    frames = torch.randint(0, 256, (BATCH, 3, 84, 84), dtype=torch.uint8)
    tau = torch.rand(BATCH, QUANTILES, dtype=torch.float64)
    # Not in training mode, where the parametrization iterates u before v.
    with torch.no_grad():
        expected = literal.eval()(frames, tau)
        compare.assert_agrees(values(net.eval(), frames, tau), expected, 1e-10, "q")
        net.disable_noise()
        assert not torch.equal(values(net, frames, tau), expected)


@pytest.mark.parametrize(("kind", "layer_norm"), KINDS)
def test_state_dicts_return(kind: type[Btr], layer_norm: bool) -> None:
    net, literal = pair(kind, layer_norm=layer_norm)
    btr.load_state_dict(net, literal.state_dict())
    exported = btr.to_state_dict(net, variant="wii" if kind is WiiBtr else "atari")
    assert_same_state(exported, literal.state_dict())
    literal.load_state_dict(exported, strict=True)
    other, _ = pair(kind, layer_norm=layer_norm)
    btr.load_state_dict(other, exported)
    assert_same_state(other.state_dict(), state_of(net))
    with pytest.raises(ValueError, match="variant: got 'gba', accepted are atari, wii"):
        btr.to_state_dict(net, variant="gba")  # type: ignore[arg-type]


def test_a_file_without_what_follows_from_others() -> None:
    net, literal = pair(WiiBtr)
    state = literal.state_dict()
    kept = {k: v for k, v in state.items() if k != "pis" and not k.startswith("linear_layers.")}
    assert len(kept) == len(state) - 1 - 2 * 2 * 6
    btr.load_state_dict(net, kept)
    assert_same_state(btr.to_state_dict(net, variant="wii"), state)


def test_what_should_follow_from_others_but_does_not() -> None:
    net, literal = pair(WiiBtr)
    before = state_of(net)
    state = literal.state_dict()
    state["pis"] = state["pis"] + torch.pi  # i from 1
    again = "linear_layers.value_branch.fc2V.bias_mu"
    state[again] = state[again] + 1
    with pytest.raises(CheckpointError, match=rf"other numbers than expected in pis, {again}") as e:
        btr.load_state_dict(net, state)
    assert "cos(π·i·τ), i = 0…63" in str(e.value)
    assert_same_state(net.state_dict(), before)


@pytest.mark.parametrize(
    ("kind", "other", "message"),
    [
        (Btr, OneHeadBtr, r"found linear_layers\.0, .*build it with nn\.decoder\.dueling: none"),
        (OneHeadBtr, Btr, r"this network has one head; .* nn\.decoder\.dueling: per_level"),
        (OneHeadBtr, WiiBtr, r"this network has one head; .* nn\.decoder\.dueling: per_level"),
    ],
)
def test_files_of_other_heads(kind: type[Btr], other: type[Btr], message: str) -> None:
    net, _ = pair(kind)
    before = state_of(net)
    with pytest.raises(CheckpointError, match=message):
        btr.load_state_dict(net, pair(other)[1].state_dict())
    assert_same_state(net.state_dict(), before)


def test_one_head_that_the_code_never_has() -> None:
    net, literal = pair(OneHeadBtr, layer_norm=True)
    message = r"no names for: advantage_head\.hidden\.0\.norm.*; .*set btr\.use_layer_norm: false"
    with pytest.raises(CheckpointError, match=message):
        btr.load_state_dict(net, literal.state_dict())
    net, _ = pair(OneHeadBtr)
    with pytest.raises(
        CheckpointError, match=r"BTR \(Wii\) has no names for: the network.*='atari'"
    ):
        btr.to_state_dict(net, variant="wii")


@pytest.mark.parametrize(("iterations", "low", "high"), [(1, 1e-6, 2e-2), (400, 0.0, 1e-5)])
def test_the_order_of_the_power_iteration(iterations: int, low: float, high: float) -> None:
    """It is v before u here, the other way round there: training differs until both converge."""
    net, literal = pair()
    btr.load_state_dict(net, literal.state_dict())
    stage = torch.zeros(1, 3, 8, 8, dtype=torch.float64)
    with torch.no_grad():
        for _ in range(iterations):
            net.encoder.stem.train()(stage)
            literal.conv.train()(stage)
        frames = torch.randint(0, 256, (BATCH, 3, 84, 84), dtype=torch.uint8)
        tau = torch.rand(BATCH, QUANTILES, dtype=torch.float64)
        expected = literal.eval()(frames, tau)
        error = (values(net.eval(), frames, tau) - expected).abs().max() / expected.abs().max()
    assert low <= error <= high


def test_names_are_those_of_the_code() -> None:
    _, literal = pair()
    names = set(literal.state_dict())
    for name in (
        "conv.2.conv.weight",
        "conv.0.residual_1.conv_0.parametrizations.weight.original",
        "conv.0.residual_1.conv_0.parametrizations.weight.0._u",
        "conv.0.residual_1.conv_0.parametrizations.weight.0._v",
        "cos_embedding.bias",
        "dueling.value_branch.2.weight_epsilon",
        "dueling.advantage_branch.0.bias_sigma",
    ):
        assert name in names
    _, literal = pair(OneHeadBtr)
    assert {"linear_layers.0.bias_mu", "linear_layers.2.weight_mu"} < set(literal.state_dict())


def test_faults_come_together_and_change_nothing() -> None:
    net, literal = pair()
    state = literal.state_dict()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    del state["cos_embedding.bias"]
    state["dueling.value_branch.0.weight_mu"] = torch.zeros(2, 2)
    state["dueling.advantage_branch.2.weight_epsilon"][0, 0] += 1
    state["fc.weight"] = torch.zeros(1)
    with pytest.raises(CheckpointError, match="BTR tensors do not fit") as error:
        btr.load_state_dict(net, state)
    for message in (
        "missing: cos_embedding.bias",
        "not in the network: fc.weight",
        "dueling.value_branch.0.weight_mu: expected shape (16, 128), found (2, 2)",
    ):
        assert message in str(error.value)
    for name, value in net.state_dict().items():
        assert torch.equal(value, before[name])


def test_a_network_with_other_parts() -> None:
    with pytest.raises(CheckpointError, match=r"BTR has no names for: .*encoder\.float_mlp"):
        btr.load_state_dict(iqn_blocks.build(tiny()), {})


def test_the_preset_is_the_paper() -> None:
    torch.manual_seed(0)
    net = iqn_blocks.build(btr_preset(6), strict=True).eval()
    assert iqn_blocks.route(net.config) == "classic"
    literal = Btr(6, 4, 2, 512, 6)
    btr.load_state_dict(net, literal.state_dict())
    img, floats = net.example_inputs(2)
    assert img is not None
    assert img.shape == (2, 4, 84, 84)
    assert floats is None
    assert net.encoder.state_dim == 64 * 6 * 6
    q, tau = net(torch.full((2, 4, 84, 84), 255, dtype=torch.uint8))
    assert q.shape == (2 * 8, 6)
    white, _ = net(torch.ones(2, 4, 84, 84), num_quantiles=8, tau=tau)
    assert torch.equal(q, white)


def test_the_preset_refuses_what_no_network_has() -> None:
    with pytest.raises(ConfigError, match="n_actions: found 0"):
        btr_preset(0)
    with pytest.raises(ConfigError, match=r"nn\.vis\.in_channels: found -1"):
        btr_preset(3, in_channels=-1)
