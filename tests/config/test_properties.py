"""Whatever is thrown at the configuration: a Config that survives copying, or a ConfigError."""

from __future__ import annotations

import copy
import json
import pickle
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

import iqn_blocks.config
from iqn_blocks import ConfigError, load_config
from iqn_blocks.config import Config, parse
from iqn_blocks.kinds import Choice, Flag, FreeMapping, Real, Sequence, Whole
from tests.config.cases import KEYS, REQUIRED
from tests.configs import merge

SETTINGS = settings(max_examples=60, deadline=None)
PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.text(max_size=5)
    | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)  # fmt: skip


def values(path: str) -> st.SearchStrategy[Any]:
    """Valid values of a key, mostly small ones."""
    kind = KEYS[path].kind
    strategy: st.SearchStrategy[Any]
    if isinstance(kind, Flag):
        strategy = st.booleans()
    elif isinstance(kind, Whole):
        strategy = st.sampled_from([1, 2, 4, 8, 64]) | st.integers(max(kind.low, 1), 300)
    elif isinstance(kind, Real):
        strategy = st.floats(max(kind.low, -100), min(kind.high, 100), exclude_max=kind.below)
    elif isinstance(kind, Choice):
        strategy = st.sampled_from(kind.names)
    elif isinstance(kind, Sequence):
        strategy = st.lists(st.integers(1, 9), min_size=1, max_size=4)
    elif isinstance(kind, FreeMapping):
        strategy = st.dictionaries(st.text(max_size=5), PLAIN, max_size=3)
    else:
        strategy = st.sampled_from(["some/model", "classic"])
    return st.none() | strategy if kind.null else strategy


def nest(flat: dict[str, Any]) -> dict[str, Any]:
    config: dict[str, Any] = dict(REQUIRED)
    for path, value in flat.items():
        change: Any = value
        for name in reversed(path.split(".")):
            change = {name: change}
        config = merge(config, change)
    return config


@st.composite
def configs(draw: st.DrawFn) -> dict[str, Any]:
    paths = draw(st.lists(st.sampled_from(sorted(KEYS)), max_size=6, unique=True))
    return nest({path: draw(values(path)) for path in paths})


@SETTINGS
@given(configs())
def test_a_valid_config_survives_every_copy(raw: dict[str, Any]) -> None:
    try:
        config = parse(raw)
    except ConfigError:
        return
    plain = config.to_dict()
    for other in (
        parse(plain),
        parse(json.loads(json.dumps(plain))),
        eval(repr(config), vars(iqn_blocks.config)),
        pickle.loads(pickle.dumps(config)),
        copy.deepcopy(config),
    ):
        assert other == config
        assert hash(other) == hash(config)
        assert other.to_dict() == plain


def test_many_of_them_are_valid() -> None:
    """The property above is about something: many drawn configurations are accepted."""
    accepted: list[bool] = []

    @settings(max_examples=60, deadline=None, database=None, derandomize=True)
    @given(configs())
    def count(raw: dict[str, Any]) -> None:
        try:
            parse(raw)
            accepted.append(True)
        except ConfigError:
            accepted.append(False)

    count()
    assert sum(accepted) > len(accepted) / 6


ANYTHING = PLAIN | st.binary(max_size=3) | st.floats() | st.integers() | st.complex_numbers()
NAMES = st.sampled_from(sorted({name for path in KEYS for name in path.split(".")}))


JUNK = st.recursive(
    ANYTHING,
    lambda inner: st.dictionaries(NAMES | st.text() | st.integers(), inner),
    max_leaves=20,
)


@SETTINGS
@given(JUNK)
def test_nothing_else_than_a_config_error(junk: Any) -> None:
    if isinstance(junk, str):
        junk = {"n_actions": junk}
    with pytest.raises(ConfigError) as error:
        parse(junk)
    assert "pydantic" not in str(error.value)


@SETTINGS
@given(st.sampled_from(sorted(KEYS)), ANYTHING)
def test_nothing_else_for_a_single_key(path: str, value: Any) -> None:
    try:
        assert isinstance(parse(nest({path: value})), Config)
    except ConfigError as error:
        message = str(error)
        assert path in message or path.startswith("float_inputs") or "nn." in message
        assert "pydantic" not in message


@SETTINGS
@given(
    text=st.text(alphabet="ab: {}[],\"'\n-&*<!?1|>#%", max_size=40),
    suffix=st.sampled_from(["yaml", "json"]),
)
def test_nothing_else_from_a_file(
    text: str, suffix: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path: Path = tmp_path_factory.getbasetemp() / f"junk.{suffix}"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError) as error:
        load_config(path)
    assert str(error.value).startswith(f"{path}: ")
