"""Configurations from files, and data that is not a configuration at all."""

from __future__ import annotations

import json
import os
import pickle
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from iqn_blocks import ConfigError, load_config
from iqn_blocks.config import loading, parse
from iqn_blocks.plain import MAX_DEPTH, MAX_VALUES
from tests.config.cases import REQUIRED, nested

Write = Callable[[str, str], Path]
YAML = "n_actions: 3\nfloat_input_dim: 2\n"


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write_file(name: str, text: str) -> Path:
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        return path

    return write_file


def refuses(path: Path | str) -> str:
    """The message with which the file is refused: it names the file, and takes no time."""
    start = time.monotonic()
    with pytest.raises(ConfigError) as error:
        load_config(path)
    assert time.monotonic() - start < 60
    message = str(error.value)
    assert message.startswith(f"{path}: ")
    return message.removeprefix(f"{path}: ")


@pytest.mark.parametrize("name", ["a.yaml", "a.yml", "a.YAML", "a.json", "a.Json"])
def test_the_suffix_chooses_the_format(write: Write, name: str) -> None:
    text = json.dumps(REQUIRED) if "j" in name.lower() else YAML
    path = write(name, text)
    assert load_config(path) == load_config(str(path)) == parse(path) == parse(str(path))
    assert load_config(path) == parse(REQUIRED)


def test_faults_of_keys_come_with_the_name_of_the_file(write: Write) -> None:
    path = write("a.yaml", "n_actions: '3'\nnn: {iqn: {kappa: 1e-3}}\n")
    lines = refuses(path).splitlines()
    assert lines[0] == "3 faults in the configuration:"
    assert "nn.iqn.kappa: found '1e-3' (str); accepted: a finite number" in lines[3]
    assert "write 1.0e-3 without quotes" in lines[3]


def test_yaml_as_people_write_it(write: Write) -> None:
    text = """
        # floats below
        n_actions: 3
        float_input_dim: 2
        float_inputs_std: [1, 2.0e-1]
        nn:
          vis:            # nothing set
          decoder:
            advantage: &slot {mlp: {hidden: 64, layers: 2}}
            value: *slot
          encoder:
            transformer: &sizes {d_model: 64, n_layers: 1}
          training: {<<: *sizes, n_layers: 3, lr: [{<<: [{a: 1}, {a: 2, b: 2}]}]}
    """
    config = load_config(write("a.yaml", text.replace("\n        ", "\n")))
    assert config.float_inputs_std == (1.0, 0.2)
    assert config.nn.decoder.advantage == config.nn.decoder.value
    assert config.to_dict()["nn"]["training"] == {
        "d_model": 64, "n_layers": 3, "lr": [{"a": 1, "b": 2}]
    }  # fmt: skip


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("a.yaml", YAML + "n_actions: 4\n", "line 3: found the key 'n_actions' a second time"),
        ("a.yaml", YAML + "nn:\n  vis:\n    freeze: true\n    freeze: true\n", "line 6: "),
        ("a.yaml", YAML + "nn: {training: [{a: 1, 'a': 2}]}", "line 3: found the key 'a' a second"),
        ("a.json", '{"n_actions": 3,\n"n_actions": 3}', "line 2: found the key 'n_actions' a sec"),
        ("a.json", '{"a": [{"b": "}"},\n {"c\\u0064": 1,\n "cd": 2}]}', "line 3: found the key"),
        ("a.json", '{"a": {"b": 1}, "c": {"b": 1, "d": "b"},\n "a": 1}', "line 2: found the key"),
    ],
)  # fmt: skip
def test_a_key_is_given_once(write: Write, name: str, text: str, says: str) -> None:
    message = refuses(write(name, text))
    assert message.startswith(says)
    assert message.endswith(" a second time; keep one")


def test_the_same_key_in_two_blocks_is_no_duplicate(write: Write) -> None:
    blocks = {"a": {"x": '{"x": 1, "x": 2}'}, "b": {"x": [{"x": 1}, {"x": 1}]}}
    raw = nested("nn.training", blocks)
    assert load_config(write("a.json", json.dumps(raw))) == parse(raw)


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("a.txt", YAML, "found the suffix '.txt'; accepted: .yaml, .yml, .json"),
        ("a", YAML, "found the suffix ''"),
        ("a.yaml", "", "found null at the top level; accepted: a block of keys"),
        ("a.yaml", "- n_actions: 3", "found [{'n_actions': 3}] (list) at the top level"),
        ("a.json", "3", "found 3 (int) at the top level"),
        ("a.yaml", "n_actions: 3\n\tfloat_input_dim: 2", "line 2: is not YAML: found character"),
        ("a.yaml", "n_actions: [3", "line 1: is not YAML: expected ',' or ']'"),
        ("a.yaml", YAML + "---\n" + YAML, "line 3: is not YAML: but found another document"),
        ("a.yaml", "n_actions: \0", "is not YAML: unacceptable character #x0000"),
        ("a.yaml", "a: *b", "line 1: is not YAML: found undefined alias 'b'"),
        ("a.yaml", "a: !!python/object/apply:os.system ['true']", "line 1: found the tag tag:yaml"),
        ("a.yaml", "a: !!python/name:os.system x", "line 1: is not YAML: could not determine"),
        ("a.yaml", "a: !mine 3", "line 1: is not YAML: could not determine a constructor"),
        ("a.yaml", "a: !!set {b}", "line 1: found the tag tag:yaml.org,2002:set"),
        ("a.yaml", "a: 2024-13-45", "line 1: found '2024-13-45' (str), which is no timestamp"),
        ("a.yaml", "? [a, b]\n: 3", "line 1: found the key ['a', 'b'] (list); accepted: strings"),
        ("a.yaml", "a:\n  <<: 3", "line 2: found 3 (int) after <<; accepted: blocks"),
        ("a.json", "{'n_actions': 3}", "is not JSON: Expecting property name"),
        ("a.json", YAML, "is not JSON: Expecting value"),
        ("a.json", '{"n_actions": 3} {}', "is not JSON: Extra data"),
    ],
)  # fmt: skip
def test_files_that_hold_no_configuration(write: Write, name: str, text: str, says: str) -> None:
    assert refuses(write(name, text)).startswith(says)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    assert refuses(tmp_path / "missing.yaml") == "cannot be read: No such file or directory"
    (tmp_path / "folder.yaml").mkdir()
    assert refuses(tmp_path / "folder.yaml") == "cannot be read: Is a directory"
    (tmp_path / "latin.yaml").write_bytes("name: grün".encode("latin-1"))
    assert refuses(tmp_path / "latin.yaml") == "is not UTF-8 at byte 8; save it as UTF-8"
    (tmp_path / "large.json").write_bytes(b" " * (2**22 + 1))
    assert refuses(tmp_path / "large.json").startswith("found more than 4194304 bytes")


def test_a_configuration_in_place_of_a_path() -> None:
    with pytest.raises(ConfigError) as error:
        parse(YAML * 100)
    assert len(str(error.value)) < 600
    with pytest.raises(ConfigError, match="cannot be read: embedded null byte"):
        parse("a\0b.yaml")


def test_a_byte_order_mark_is_no_fault(tmp_path: Path) -> None:
    for name, text in (("a.yaml", YAML), ("a.json", json.dumps(REQUIRED))):
        (tmp_path / name).write_bytes(b"\xef\xbb\xbf" + text.encode())
        assert load_config(tmp_path / name) == parse(REQUIRED)


BOMB = "a0: &a0 [x, x]\n" + "".join(f"a{i}: &a{i} [{f'*a{i - 1}, ' * 10}]\n" for i in range(1, 30))
MERGES = "a0: &a0 {x: 1}\n" + "".join(
    f"a{i}: &a{i} {{<<: [{f'*a{i - 1}, ' * 10}]}}\n" for i in range(1, 30)
)


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("a.yaml", BOMB, f"found more than {MAX_VALUES} values; accepted: at most that many"),
        ("a.yaml", MERGES, f"found more than {MAX_VALUES} values"),
        ("a.yaml", "a: &a [1, *a]", "found a block that holds itself; accepted: plain data"),
        ("a.yaml", "a: &a {b: {c: *a}}", "found a block that holds itself"),
        ("a.yaml", "a: &a\n  <<: *a", "found a block that holds itself"),
        ("a.yaml", "[" * 100, "is not YAML"),
        ("a.yaml", "a: " + "[" * 99 + "]" * 99, f"nested too deeply; accepted: {MAX_DEPTH} levels"),
        ("a.yaml", "a: " + "[" * 9999 + "]" * 9999, "nested too deeply"),
        ("a.yaml", "a: " + "{b: " * 9999 + "}" * 9999, "nested too deeply"),
        ("a.yaml", "- " * 9999, "nested too deeply"),
        ("a.json", '{"a": ' * 99 + "1" + "}" * 99, "a: unknown key"),
        ("a.json", '{"a": ' * 99_999 + "1" + "}" * 99_999, "nested too deeply"),
        ("a.json", "[" * 99_999, "nested too deeply"),
    ],
)  # fmt: skip
def test_hostile_files_end_in_a_message(write: Write, name: str, text: str, says: str) -> None:
    assert says in refuses(write(name, text))


def test_long_files_are_left_early(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "MAX_VALUES", 1000)
    assert refuses(write("a.yaml", "a: [" + "1," * 2000 + "]")).startswith("found more than 1000")
    assert "a: unknown key" in refuses(write("a.yaml", "a: [" + "1," * 900 + "]"))


def holding_itself() -> dict[str, Any]:
    data: dict[str, Any] = {"a": []}
    data["a"].append(data)
    return data


def deep(levels: int, leaf: Any = 1) -> Any:
    for _ in range(levels):
        leaf = [leaf]
    return leaf


def exponential() -> Any:
    leaf: Any = [1]
    for _ in range(60):
        leaf = [leaf, leaf]
    return leaf


@pytest.mark.parametrize("path", ["nn.training", "nn.topology_options"])
@pytest.mark.parametrize(
    ("value", "says"),
    [
        (holding_itself(), "found data that holds itself"),
        ({"a": deep(10_000)}, "found data nested deeper than 64"),
        ({"a": exponential()}, "found more than 200000 values"),
        ({"a": [[[0] * 100] * 100] * 100}, "found more than 200000 values"),
        ({"a": float("nan")}, "found nan; accepted: finite numbers"),
        ({"a": [np.float32("inf")]}, "found inf; accepted: finite numbers"),
        ({"a": {1: 2}}, r"found the key 1 \(int\); accepted: strings; put it in quotes"),
        ({3: 2}, r"found the key 3 \(int\); accepted: strings"),
        ({"a": {1, 2}}, r"found \{1, 2\} \(set\); accepted: null, .*; write it as a string"),
        ({"a": object()}, "found <object object"),
        ({"a": b"x"}, r"found b'x' \(bytes\)"),
        ({"a": 2**64}, r"found 18446744073709551616 \(int\); accepted: whole numbers of up to 64"),
        ({"a": 10**5000}, "found a whole number of about 5000 digits"),
        ([1], r"found \[1\] \(list\); accepted: a block of the user's own keys with plain data"),
        (3, r"found 3 \(int\)"),
    ],
)  # fmt: skip
def test_free_blocks_hold_plain_data(path: str, value: Any, says: str) -> None:
    with pytest.raises(ConfigError, match=rf"^{path}: ({says})"):
        parse(nested(path, value))


@pytest.mark.parametrize("path", ["nn", "nn.iqn.n", "nn.vis.cnn"])
def test_endless_data_in_place_of_keys(path: str) -> None:
    for value in (holding_itself(), deep(10_000), exponential()):
        with pytest.raises(ConfigError, match=rf"^{path}"):
            parse(nested(path, value))


def test_free_blocks_keep_what_they_are_given() -> None:
    value = {"a": deep(60), "b": np.arange(3), "c": (np.float64(0.5), np.True_, None), "d": {}}
    kept = parse(nested("nn.training", value)).to_dict()["nn"]["training"]
    assert kept == {"a": deep(60), "b": [0, 1, 2], "c": [0.5, True, None], "d": {}}
    assert [type(item) for item in kept["c"][:2]] == [float, bool]


@pytest.mark.parametrize(
    "tagged", ["!!bool x", "!!timestamp x", "!!int ''", "!!float ''", "!!null x"]
)
def test_a_tag_that_does_not_fit_its_value(write: Write, tagged: str) -> None:
    _, kind, value = tagged.replace("!!", "! ").split()
    value = value.strip("'")
    text = f"n_actions: 3\nfloat_input_dim: {tagged}\n"
    message = refuses(write("a.yaml", text))
    assert message.startswith(f"line 2: found {value!r} (str), which is no {kind}; accepted: ")
    assert message.endswith("put it in quotes, without a tag")


@pytest.mark.parametrize("name", ["a.yaml", "a.json"])
def test_a_pipe_is_no_file(tmp_path: Path, name: str) -> None:
    os.mkfifo(tmp_path / name)
    assert "it is a pipe or a device, not a file" in refuses(tmp_path / name)


@pytest.mark.parametrize(
    "path",
    [(), ("nn",), ("nn", "iqn"), ("nn", "decoder", "value", "mlp"), ("nn", "float", "simba")],
)
def test_many_unknown_keys(path: tuple[str, ...]) -> None:
    """Looking for near names of all of them would take minutes."""
    config: Any = {f"key_{i}": i for i in range(150_000)}
    for key in reversed(path):
        config = {key: config}
    start = time.process_time()
    with pytest.raises(ConfigError) as error:
        parse(config)
    assert time.process_time() - start < 2
    message = str(error.value)
    missing = len(REQUIRED)
    assert message.startswith(f"{150_000 + missing} faults in the configuration:\n")
    assert (
        f"{'.'.join([*path, 'key_0'])}: unknown {'option' if len(path) > 2 else 'key'}; " in message
    )
    assert len(message.encode()) <= 8192


def test_long_messages_are_cut() -> None:
    """A hundred faults with long keys; what is cut is counted."""
    with pytest.raises(ConfigError) as error:
        parse({**REQUIRED, "nn": {"é" * 79 + str(i): "x" * 90 for i in range(500)}})
    message = str(error.value)
    assert 8000 < len(message.encode()) <= 8192
    assert re.search(r"…\n\(cut: \d+ bytes in all\)$", message)
    assert str(ConfigError("x" * 8192)) == "x" * 8192
    assert str(pickle.loads(pickle.dumps(error.value))) == message
