"""What every single key accepts and refuses: the cases come from the schema."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from iqn_blocks import ConfigError
from iqn_blocks.config import Config, parse
from iqn_blocks.config.part import PartOf
from iqn_blocks.kinds import (
    MAX_LAYERS,
    MAX_REAL,
    MAX_SIZE,
    Choice,
    Flag,
    FreeMapping,
    Real,
    Sequence,
    Text,
    Whole,
)
from tests.config.cases import KEYS, nested, of_kind

WHOLE, REAL, TEXT = of_kind(Whole), of_kind(Real), of_kind(Text)
FLAGS, CHOICES, FREE = of_kind(Flag), of_kind(Choice), of_kind(FreeMapping)
SEQUENCES = of_kind(Sequence)
PARTS = of_kind(PartOf)
NOT_A_NUMBER = (True, np.True_, "8", None, [], {}, 1j, b"8", object())


def refuses(path: str, value: object) -> str:
    """The message with which a configuration refuses the value: one line, about this path."""
    with pytest.raises(ConfigError) as error:
        parse(nested(path, value))
    message = str(error.value)
    assert message.startswith(f"{path}: found ")
    assert f"accepted: {KEYS[path].kind.accepts}" in message
    assert "pydantic" not in message
    return message


def test_the_walk_found_keys_of_every_kind() -> None:
    groups = WHOLE, REAL, TEXT, FLAGS, CHOICES, FREE, SEQUENCES, PARTS
    assert all(groups)
    assert sorted(path for group in groups for path in group) == sorted(KEYS)


@pytest.mark.parametrize("path", WHOLE)
def test_sizes_are_whole_numbers_in_range(path: str) -> None:
    kind, build = KEYS[path].kind, KEYS[path].build
    assert isinstance(kind, Whole)
    assert kind.low in (0, 1)
    is_count = path.endswith(("layers", "blocks"))
    assert kind.high == (MAX_LAYERS if is_count else MAX_SIZE) == (128 if is_count else 65_536)
    for value in (kind.low, kind.high, np.int64(7), np.uint8(7), np.array(7)):
        built = build(value)
        assert built == int(value)
        assert type(built) is int
    for value in (kind.low - 1, kind.high + 1, 10**30, 10**5000, -(10**30), 8.5, *NOT_A_NUMBER):
        if not (value is None and kind.null):
            refuses(path, value)
    for value in (math.nan, math.inf, np.float32("nan")):
        refuses(path, value)


@pytest.mark.parametrize("path", ["n_actions", "nn.decoder.advantage.mlp.hidden_dim"])
def test_near_misses_of_whole_numbers_say_what_to_write(path: str) -> None:
    assert refuses(path, 8.0).endswith("found 8.0 (float); accepted: "
                                       f"{KEYS[path].kind.accepts}; write 8")  # fmt: skip
    assert refuses(path, np.float32(8)).endswith("; write 8")
    assert refuses(path, "8").endswith("; write it without quotes")
    assert "found true;" in refuses(path, True)
    assert "found a whole number of about 5000 digits (int)" in refuses(path, 10**5000)
    assert "found 1e+30 (float)" in refuses(path, 1e30)


@pytest.mark.parametrize("path", REAL)
def test_reals_are_finite_and_in_range(path: str) -> None:
    kind, build = KEYS[path].kind, KEYS[path].build
    assert isinstance(kind, Real)
    inside = -1 if kind.high <= 0 else 0.5
    for value in (inside, np.float64(inside), np.float32(inside), np.array(inside)):
        built = build(value)
        assert built == inside
        assert type(built) is float
    whole = build(-1 if kind.high <= 0 else int(kind.high == MAX_REAL))
    assert type(whole) is float
    outside = [kind.high if kind.below else kind.high * 2 + 1, kind.low * 2 - 1, 10**400]
    for value in (math.nan, math.inf, -math.inf, *outside, *NOT_A_NUMBER):
        refuses(path, value)


@pytest.mark.parametrize(
    ("text", "way_out"),
    [
        ("1e-3", "write 1.0e-3 without quotes (YAML reads 1e-3 as a string)"),
        ("2E5", "write 2.0e+5 without quotes (YAML reads 2E5 as a string)"),
        ("1.5e2", "write 1.5e+2 without quotes (YAML reads 1.5e2 as a string)"),
        ("0.5", "write it without quotes"),
    ],
)
def test_a_number_that_yaml_reads_as_a_string(text: str, way_out: str) -> None:
    message = refuses("nn.iqn.kappa", text)
    assert f"found {text!r} (str)" in message
    assert message.endswith(f"; {way_out}")


@pytest.mark.parametrize("text", ["a lot", "nan", "inf", ""])
def test_other_strings_get_no_such_advice(text: str) -> None:
    assert refuses("nn.iqn.kappa", text).endswith("accepted: a finite number at least 0")


def test_reals_keep_to_what_float32_can_hold() -> None:
    mean, std = "float_inputs_mean", "float_inputs_std"
    assert parse({**nested(mean, [MAX_REAL, -MAX_REAL])}).float_inputs_mean == (MAX_REAL, -MAX_REAL)
    assert np.isfinite(np.float32(MAX_REAL))
    for path, value in ((mean, 3.5e38), (mean, -1e300), (mean, 10**400), (std, 1e-39)):
        with pytest.raises(ConfigError, match=r"\[1\]: found .*; it does not fit float32$"):
            parse(nested(path, [1, value]))


@pytest.mark.parametrize("path", FLAGS)
def test_flags_are_true_or_false(path: str) -> None:
    build = KEYS[path].build
    for value in (True, False, np.True_, np.False_, np.array(True)):
        built = build(value)
        assert built is bool(value)
    for value in (2, 1.0, "maybe", [], b"true"):
        refuses(path, value)
    for value, way_out in ((1, "true"), (0, "false"), ("yes", "true"), ("False", "false")):
        assert refuses(path, value).endswith(f"; write {way_out}")


@pytest.mark.parametrize("path", TEXT)
def test_strings(path: str) -> None:
    assert KEYS[path].build("a") == "a"
    assert type(KEYS[path].build(np.str_("a"))) is str
    for value in (1, True, b"a", ["a"], Path("a")):
        assert refuses(path, value).endswith("; put it in quotes")


def test_a_topology_has_a_name() -> None:
    assert "found '' (str)" in refuses("nn.topology", "")


@pytest.mark.parametrize("path", CHOICES)
def test_choices(path: str) -> None:
    kind = KEYS[path].kind
    assert isinstance(kind, Choice)
    for name in kind.names:
        assert KEYS[path].build(name) == name
        assert KEYS[path].build(np.str_(name)) == name
        near = refuses(path, f"{name}x")
        assert near.endswith(f"; did you mean {name}?")
    for value in (1, True, ["linear"], {}, "", "LINEAR!"):
        refuses(path, value)


@pytest.mark.parametrize("path", SEQUENCES)
@pytest.mark.parametrize("make", [list, tuple, np.array])
def test_sequences(path: str, make: Any) -> None:
    built = KEYS[path].build(make([4, 2]))
    assert built == (4, 2)
    assert type(built) is tuple
    assert {type(item) for item in built} <= {int, float}
    for value in ("42", {4: 2}, {4, 2}, 4, iter([4]), b"42", True):
        refuses(path, value)


@pytest.mark.parametrize("path", SEQUENCES)
def test_items_are_read_like_single_keys(path: str) -> None:
    for bad in (True, "4", math.nan, None, [4]):
        with pytest.raises(ConfigError) as error:
            parse(nested(path, [4, bad, bad]))
        lines = str(error.value).splitlines()
        assert [line.split(": found ")[0] for line in lines[1:]] == [
            f"- {path}[1]",
            f"- {path}[2]",
        ]


def test_lengths_of_sequences_are_bounded() -> None:
    assert "at least 1" in refuses("nn.encoder.fusion_cnn.hidden_channels", [])
    assert "at most 65536 items" in refuses("float_inputs_mean", [0.0] * 65_537)


def test_long_lists_of_faults_are_cut() -> None:
    with pytest.raises(ConfigError) as error:
        parse(nested("float_inputs_mean", ["x"] * 5000))
    lines = str(error.value).splitlines()
    assert lines[0] == "5000 faults in the configuration:"
    assert lines[-1] == "- and 4900 more"
    assert len(lines) == 102


@pytest.mark.parametrize("path", [p for p, k in KEYS.items() if not k.kind.null and p not in FREE])
def test_null_is_refused_with_a_way_out(path: str) -> None:
    message = refuses(path, None)
    assert message.startswith(f"{path}: found null")
    assert message.endswith("; leave the key out for its default")


@pytest.mark.parametrize("path", [p for p, key in KEYS.items() if key.kind.null])
def test_null_where_it_means_something(path: str) -> None:
    assert KEYS[path].build(None) is None
    assert KEYS[path].kind.accepts.endswith(", or null")


@pytest.mark.parametrize("path", [p for p, key in KEYS.items() if not key.required])
def test_defaults_are_themselves_accepted(path: str) -> None:
    assert KEYS[path].build(KEYS[path].default) == KEYS[path].default


def test_values_found_are_shown_in_short() -> None:
    class Loud:
        def __repr__(self) -> str:
            raise RuntimeError("no repr")

    array = np.arange(100_000.0)
    for value in ("x" * 10_000, array, [[1] * 1000] * 1000, Loud(), "\n\n\n"):
        message = refuses("float_input_dim", value)
        assert len(message) < 250
        assert "\n" not in message


def test_numbers_survive_as_they_are() -> None:
    config = Config(n_actions=3, float_input_dim=1, float_inputs_std=np.array([0.1], np.float32))
    assert config.float_inputs_std == (float(np.float32(0.1)),)
