"""trackmania_rl state dicts: the same values on both sides, exact round trips, clear errors."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import iqn_blocks
from iqn_blocks.blocks import ImpalaStem, NoisyLinear
from iqn_blocks.errors import CheckpointError
from iqn_blocks.interop import trackmania_rl
from iqn_blocks.interop._transfer import split_noise
from tests import compare, grid
from tests.configs import tiny, tiny_btr
from tests.reference.literal import Classic
from tests.registration import forget_later

GRID = grid.classic_grid()
# Names of stem and heads do not depend on each other: each kind of heads once, stems in turn.
# The whole product is slow.
_STEMS = list(dict.fromkeys(name.split("-")[0] for name in GRID))
_HEADS = list(dict.fromkeys(name.split("-", 1)[1] for name in GRID))
NAMES = [
    name
    if _STEMS.index(name.split("-")[0]) == _HEADS.index(name.split("-", 1)[1]) % len(_STEMS)
    else pytest.param(name, marks=pytest.mark.slow)
    for name in GRID
]
NOISY = tiny_btr(btr={"use_spectral_norm": False})
FLOATS_ONLY = {
    "n_actions": 3,
    "float_input_dim": 5,
    "nn": {
        "vis": {"no_image": True},
        "float": {"mlp": {"hidden_dim": 8}},
        "decoder": {"value": {"transformer": {"d_model": 4, "n_heads": 2}}},
    },
}


def pair(cfg: dict[str, Any], dtype: torch.dtype = torch.float32) -> tuple[Any, Classic]:
    """A network of ours and a literal one, with different weights."""
    torch.manual_seed(0)
    net = iqn_blocks.build(cfg).to(dtype)
    torch.set_default_dtype(dtype)  # noise must be drawn in its dtype: casts keep its rounding
    try:
        return net, Classic(net.config)
    finally:
        torch.set_default_dtype(torch.float32)


def values_of(net: Any) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in net.state_dict().items()}


def assert_same_state(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.equal(found[name], tensor), name


def assert_same_values(net: Any, literal: Classic) -> None:
    """In eval mode, then in training mode, where spectral normalisation iterates."""
    dtype = literal.iqn_fc[0].weight.dtype
    inputs = compare.draw_inputs(net.config, dtype, torch.Generator().manual_seed(1))
    for training in (False, True):
        net.train(training)
        literal.train(training)
        with torch.no_grad():
            q, _ = net(inputs.img, inputs.floats, compare.QUANTILES, inputs.per_sample)
            expected = literal(inputs.img, inputs.floats, inputs.per_sample)
        compare.assert_agrees(q, expected, compare.TOLERANCES[dtype][0], f"q, training={training}")


@pytest.mark.parametrize("name", NAMES)
def test_values_and_round_trip(name: str) -> None:
    net, literal = pair(GRID[name], torch.float64)
    trackmania_rl.load_state_dict(net, literal.state_dict())
    exported = trackmania_rl.to_state_dict(net)
    assert_same_state(exported, dict(literal.state_dict()))

    other = copy.deepcopy(net)
    compare.randomize(other, torch.Generator().manual_seed(2))
    trackmania_rl.load_state_dict(other, exported)
    assert_same_state(other.state_dict(), net.state_dict())
    assert_same_values(net, literal)


@pytest.mark.parametrize("cfg", [tiny(), tiny_btr(n_actions_per_block=3), FLOATS_ONLY])
def test_a_network_trained_here_returns(cfg: dict[str, Any]) -> None:
    net, literal = pair(cfg)
    compare.randomize(net, torch.Generator().manual_seed(2))
    literal.load_state_dict(trackmania_rl.to_state_dict(net), strict=True)
    assert_same_values(net, literal)


@pytest.mark.parametrize("outputs", [1, 2, 12])
def test_round_trip_of_noise(outputs: int) -> None:
    layer = NoisyLinear(500, outputs)
    for seed in range(20):
        layer.reset_noise(torch.Generator().manual_seed(seed))
        matrix = torch.outer(layer.epsilon_out, layer.epsilon_in)
        found = split_noise(matrix, layer.epsilon_out)
        assert found is not None
        assert torch.equal(torch.outer(layer.epsilon_out, found), matrix)
        # The products of few outputs leave the last bit of ε_in open.
        torch.testing.assert_close(found, layer.epsilon_in, rtol=1.2e-7 * (outputs < 12), atol=0)


def test_exported_tensors_are_copies() -> None:
    net = iqn_blocks.build(tiny())
    before = values_of(net)
    for tensor in trackmania_rl.to_state_dict(net).values():
        tensor.zero_()
    assert_same_state(net.state_dict(), before)


@pytest.mark.parametrize("mark", ["_orig_mod.{}", "{}", "_orig_mod._orig_mod.{}"])
def test_names_of_compiled_networks(mark: str) -> None:
    net, literal = pair(tiny_btr())
    trackmania_rl.load_state_dict(
        net, {mark.format(name): value for name, value in literal.state_dict().items()}
    )
    assert_same_values(net, literal)


def test_a_compiled_network_is_loaded_and_exported() -> None:
    net, literal = pair(tiny())
    compiled = torch.compile(net, backend="eager")
    net.encoder = torch.compile(net.encoder, backend="eager")
    trackmania_rl.load_state_dict(compiled, literal.state_dict())
    assert_same_state(trackmania_rl.to_state_dict(compiled), dict(literal.state_dict()))


def test_names_of_the_newer_spectral_normalisation() -> None:
    net, literal = pair(tiny_btr())
    newer = {
        "weight_orig": "parametrizations.weight.original",
        "weight_u": "parametrizations.weight.0._u",
        "weight_v": "parametrizations.weight.0._v",
    }
    state = {}
    for name, value in literal.state_dict().items():
        owner, _, leaf = name.rpartition(".")
        state[f"{owner}.{newer[leaf]}" if leaf in newer else name] = value
    assert state.keys() != literal.state_dict().keys()
    trackmania_rl.load_state_dict(net, state)
    assert_same_values(net, literal)


def test_noise_that_is_zero_is_off() -> None:
    net, literal = pair(NOISY)
    state = literal.state_dict()
    for name in state:
        if name.endswith("_epsilon"):
            state[name].zero_()
    net.reset_noise()
    trackmania_rl.load_state_dict(net, state)
    assert all((v == 0).all() for k, v in net.state_dict().items() if "epsilon" in k)
    assert_same_values(net, literal)


def _one_entry(matrix: Tensor, vector: Tensor) -> None:
    matrix[1, 1] += 0.01


def _no_vector(matrix: Tensor, vector: Tensor) -> None:
    vector.zero_()


def _another_vector(matrix: Tensor, vector: Tensor) -> None:
    vector[0] *= 1.001


def _not_a_number(matrix: Tensor, vector: Tensor) -> None:
    matrix[0, 0] = torch.nan


@pytest.mark.parametrize("spoil", [_one_entry, _no_vector, _another_vector, _not_a_number])
def test_noise_that_is_no_outer_product(spoil: Callable[[Tensor, Tensor], None]) -> None:
    net, literal = pair(NOISY)
    state, before = literal.state_dict(), values_of(net)
    spoil(state["A_head.0.weight_epsilon"], state["A_head.0.bias_epsilon"])
    spoil(state["V_head.0.weight_epsilon"], state["V_head.0.bias_epsilon"])
    with pytest.raises(CheckpointError) as error:
        trackmania_rl.load_state_dict(net, state)
    for name in ("A_head.0", "V_head.0"):
        assert f"{name}.weight_epsilon: the noise is not the outer product" in str(error.value)
    assert_same_state(net.state_dict(), before)


def test_statistics_of_the_checkpoint_win() -> None:
    net, literal = pair(tiny(float_inputs_mean=[1.0] * 5, float_inputs_std=[2.0] * 5))
    trackmania_rl.load_state_dict(net, literal.state_dict())
    stats = net.encoder.float_normalization
    assert torch.equal(stats.mean, literal.float_inputs_mean)
    assert torch.equal(stats.std, literal.float_inputs_std)


@pytest.mark.parametrize("value", [0.0, -1.0, torch.inf, torch.nan])
def test_statistics_that_cannot_normalise(value: float) -> None:
    net, literal = pair(tiny())
    state, before = literal.state_dict(), values_of(net)
    state["float_inputs_std"][2] = value
    with pytest.raises(CheckpointError, match="float_inputs_std: every number must be finite"):
        trackmania_rl.load_state_dict(net, state)
    assert_same_state(net.state_dict(), before)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_floating_tensors_are_cast(dtype: torch.dtype) -> None:
    net, literal = pair(tiny())
    literal.to(dtype)
    trackmania_rl.load_state_dict(net, literal.state_dict())
    assert torch.equal(net.value_head.readout.weight, literal.V_head[2].weight.float())
    half, _ = pair(tiny())
    trackmania_rl.load_state_dict(half.half(), literal.state_dict())
    assert half.value_head.readout.weight.dtype == torch.float16
    assert half.encoder.float_normalization.mean.dtype == torch.float32


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_noise_of_low_precision(dtype: torch.dtype) -> None:
    net, literal = pair(NOISY)
    literal.to(dtype).float()
    trackmania_rl.load_state_dict(net, literal.state_dict())
    matrix = torch.outer(
        net.advantage_head.readout.epsilon_out, net.advantage_head.readout.epsilon_in
    )
    expected = literal.A_head[3].weight_epsilon
    compare.assert_agrees(matrix, expected, 4 * torch.finfo(dtype).eps, "noise")


def test_every_name_that_is_missing_is_an_error() -> None:
    net, literal = pair(NOISY)
    state, before = literal.state_dict(), values_of(net)
    for name in state:
        rest = {key: value for key, value in state.items() if key != name}
        with pytest.raises(CheckpointError, match=rf"missing: {name}\b"):
            trackmania_rl.load_state_dict(net, rest)
    with pytest.raises(CheckpointError) as error:
        trackmania_rl.load_state_dict(net, {})
    assert all(f"missing: {name}" in str(error.value) for name in state)
    assert_same_state(net.state_dict(), before)


def _faults() -> Iterator[tuple[str, object, str]]:
    yield "iqn_fc.0.weight", torch.zeros(2, 3), r"expected shape \(\d+, 6\), found \(2, 3\)"
    yield "iqn_fc.0.bias", "text", "expected a tensor, found str"
    yield (
        "float_inputs_mean",
        torch.zeros(5, dtype=torch.int64),
        "floating dtype, found torch.int64",
    )
    yield "V_head.0.bias", torch.zeros(8, dtype=torch.complex64), "found torch.complex64"
    yield "V_head.2.bias", torch.zeros(1, device="meta"), "expected a dense tensor with data"
    yield "A_head.2.bias", torch.zeros(3).to_sparse(), "expected a dense tensor with data"
    yield "policy_head.weight", torch.zeros(1), "not in the network: policy_head.weight"


def test_all_faults_come_in_one_error() -> None:
    net, literal = pair(tiny())
    before = values_of(net)
    state = dict(literal.state_dict()) | {name: value for name, value, _ in _faults()}
    del state["A_head.0.weight"]
    with pytest.raises(CheckpointError, match="the network is unchanged") as error:
        trackmania_rl.load_state_dict(net, state)
    for _, _, message in (*_faults(), ("", None, "missing: A_head.0.weight")):
        assert error.match(message)
    assert_same_state(net.state_dict(), before)


def test_what_is_no_state_dict() -> None:
    net, literal = pair(tiny())
    with pytest.raises(CheckpointError, match="expected names with their tensors, found list"):
        trackmania_rl.load_state_dict(net, [1])  # type: ignore[arg-type]
    twice = {**literal.state_dict(), "_orig_mod.V_head.2.bias": torch.zeros(1)}
    with pytest.raises(CheckpointError, match=r"found more than once: V_head\.2\.bias"):
        trackmania_rl.load_state_dict(net, twice)
    with pytest.raises(TypeError, match=r"net: expected a network made by iqn_blocks\.build, got"):
        trackmania_rl.load_state_dict(literal, literal.state_dict())


def test_missing_statistics_are_explained() -> None:
    net, literal = pair(tiny())
    state = literal.state_dict()
    del state["float_inputs_mean"]
    with pytest.raises(CheckpointError, match="give the configuration those that it was"):
        trackmania_rl.load_state_dict(net, state)


def test_a_state_dict_without_statistics() -> None:
    net, literal = pair(tiny(float_inputs_mean=[1.0] * 5, float_inputs_std=[2.0] * 5))
    names = {"float_inputs_mean", "float_inputs_std"}
    state = {name: value for name, value in literal.state_dict().items() if name not in names}
    trackmania_rl.load_state_dict(net, state, float_stats=False)
    assert torch.equal(net.encoder.float_normalization.std, torch.full((5,), 2.0))
    assert_same_state(trackmania_rl.to_state_dict(net, float_stats=False), state)
    literal.float_inputs_mean.fill_(1)
    literal.float_inputs_std.fill_(2)
    assert_same_values(net, literal)
    with pytest.raises(CheckpointError, match="not in the network: float_inputs_mean"):
        trackmania_rl.load_state_dict(net, literal.state_dict(), float_stats=False)


def test_an_encoder_of_ones_own_has_no_names_there(monkeypatch: pytest.MonkeyPatch) -> None:
    forget_later(monkeypatch)

    class Mine(nn.Module):
        state_dim = 5

        def __init__(self, config: Any) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.ones(5))

        def forward(self, img: Tensor | None, floats: Tensor) -> Tensor:
            return floats * self.scale

    iqn_blocks.register("trackmania_test")(Mine)
    net = iqn_blocks.build(
        {"n_actions": 3, "float_input_dim": 5, "nn": {"topology": "trackmania_test"}}
    )
    with pytest.raises(
        CheckpointError, match=r"has no names for: encoder \(Mine\); .* save_pretrained$"
    ):
        trackmania_rl.to_state_dict(net)


def _lookalike(known: type[nn.Module]) -> Callable[[Any], nn.Module]:
    """A module with all attributes of another one, but of another class."""

    def make(module: nn.Module) -> nn.Module:
        assert type(module) is known
        other = nn.Module()
        other.__dict__.update(module.__dict__)
        return other

    return make


def _subclass(module: nn.Module) -> nn.Module:
    module.__class__ = type("Mine", (type(module),), {})
    return module


IMPALA = tiny(nn={"vis": {"cnn": {"use_impala_cnn": True, "impala_model_size": 1}}})
LOOKALIKES: dict[str, tuple[dict[str, Any], str, Callable[[Any], nn.Module], str]] = {
    "stem": (IMPALA, "encoder.stem", _lookalike(ImpalaStem), r"encoder\.stem \(Module\); build"),
    "stage": (
        IMPALA,
        "encoder.stem.stages.1",
        _subclass,
        r"encoder\.stem\.stages\.1 \(Mine\); build",
    ),
    "head": (tiny(), "advantage_head", _subclass, r"advantage_head \(Mine\); build"),
    "layer": (NOISY, "value_head.hidden.0.linear", _subclass, r"hidden\.0\.linear \(Mine\); build"),
    "activation": (
        tiny(),
        "encoder.stem.activation",
        lambda _: nn.GELU(),
        r"activation \(GELU\); build",
    ),
    "whole": (tiny(), "", _subclass, r"for: the network \(Mine\); build"),
}


@pytest.mark.parametrize(("cfg", "path", "change", "message"), LOOKALIKES.values(), ids=LOOKALIKES)
def test_a_part_of_another_type_has_no_names(
    cfg: dict[str, Any], path: str, change: Callable[[Any], nn.Module], message: str
) -> None:
    net = iqn_blocks.build(cfg)
    state = trackmania_rl.to_state_dict(net)
    changed = change(net.get_submodule(path))
    if path:
        owner, _, leaf = path.rpartition(".")
        setattr(net.get_submodule(owner), leaf, changed)
    with pytest.raises(CheckpointError, match=message):
        trackmania_rl.to_state_dict(net)
    with pytest.raises(CheckpointError, match=message):
        trackmania_rl.load_state_dict(net, state)


@pytest.mark.parametrize("dueling", ["none", "at_midpoints"])
def test_heads_that_join_in_another_way_have_no_names(dueling: str) -> None:
    net = iqn_blocks.build(tiny(nn={"decoder": {"dueling": dueling}}))
    with pytest.raises(
        CheckpointError, match=r"has no names for: the network \(IQN\); .*dueling: per_level"
    ):
        trackmania_rl.to_state_dict(net)
