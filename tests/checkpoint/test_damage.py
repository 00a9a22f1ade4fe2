"""Damaged and hostile folders: one type of error, which names the file."""

from __future__ import annotations

import json
import os
import pickle
import random
import struct
from pathlib import Path

import pytest
import torch
from safetensors.torch import load, save

import iqn_blocks
from iqn_blocks import CheckpointError
from iqn_blocks.blocks import FloatNormalization
from iqn_blocks.checkpoint.reading import read_folder
from tests.checkpoint.networks import (
    CONFIG,
    WEIGHTS,
    assert_same,
    build,
    change_config,
    change_settings,
    rewrite,
    settings_sha256,
    to_version_1,
)
from tests.configs import tiny_transformer


@pytest.fixture(scope="module", params=[1, 2])
def written(request, tmp_path_factory):
    """The network and its two files, in either version of the format."""
    folder = tmp_path_factory.mktemp("saved")
    net = build(tiny_transformer())
    net.save_pretrained(folder)
    if request.param == 1:
        to_version_1(folder)
    return net, {name: (folder / name).read_bytes() for name in (CONFIG, WEIGHTS)}


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """As format version 1, where config.json counts."""
    folder = tmp_path_factory.mktemp("saved")
    net = build(tiny_transformer())
    net.save_pretrained(folder)
    to_version_1(folder)
    return net, {name: (folder / name).read_bytes() for name in (CONFIG, WEIGHTS)}


@pytest.fixture
def folder(saved, tmp_path):
    for name, content in saved[1].items():
        (tmp_path / name).write_bytes(content)
    return tmp_path


def test_a_whole_folder_of_either_version(written, tmp_path):
    for name, content in written[1].items():
        (tmp_path / name).write_bytes(content)
    assert_same(iqn_blocks.from_pretrained(tmp_path), written[0])


def refused(folder: Path, file: str, reason: str = "") -> None:
    """Loading fails with our error, about ``file``, with ``reason`` in its text."""
    with pytest.raises(CheckpointError) as caught:
        iqn_blocks.from_pretrained(folder)
    text = str(caught.value)
    assert text.startswith(f"{folder / file}: "), text
    assert reason in text, text


def with_bit_flipped(content: bytes, index: int, bit: int) -> bytes:
    damaged = bytearray(content)
    damaged[index] ^= 1 << bit
    return bytes(damaged)


# Weights


def test_truncated_weights(written, tmp_path):
    content = written[1][WEIGHTS]
    (tmp_path / CONFIG).write_bytes(written[1][CONFIG])
    header = 8 + struct.unpack("<Q", content[:8])[0]
    lengths = {*range(10), header - 1, header, header + 1, len(content) - 1}
    lengths |= set(random.Random(0).sample(range(len(content)), 100))
    for length in lengths:
        (tmp_path / WEIGHTS).write_bytes(content[:length])
        refused(tmp_path, WEIGHTS, "damaged, incomplete or of another save")


def test_appended_weights(written, tmp_path):
    (tmp_path / CONFIG).write_bytes(written[1][CONFIG])
    (tmp_path / WEIGHTS).write_bytes(written[1][WEIGHTS] + b"\0")
    refused(tmp_path, WEIGHTS, "damaged")


def test_flipped_bits_in_weights(written, tmp_path):
    """Where they make other settings, these may be refused before the digest is."""
    content = written[1][WEIGHTS]
    (tmp_path / CONFIG).write_bytes(written[1][CONFIG])
    header = 8 + struct.unpack("<Q", content[:8])[0]
    draw = random.Random(0)
    indices = [*range(8), *draw.sample(range(8, header), 200)]
    indices += draw.sample(range(header, len(content)), 60)
    for index in indices:
        (tmp_path / WEIGHTS).write_bytes(with_bit_flipped(content, index, draw.randrange(8)))
        metadata = b"__metadata__" in content and 8 <= index < header
        refused(tmp_path, WEIGHTS, "" if metadata else "damaged")


def header(length: int, text: bytes = b"", data: bytes = b"") -> bytes:
    return struct.pack("<Q", length) + text + data


def one_tensor(**changes: object) -> bytes:
    entry = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]} | changes
    text = json.dumps({"x": entry}).encode()
    return header(len(text), text, bytes(8))


class Payload:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self):
        return (Path.touch, (self.trace,))


NOT_SAFETENSORS = {
    "empty": b"",
    "short": b"\0" * 7,
    "no header": header(0),
    "header of 2**63 bytes": header(2**63),
    "header of 2**64 - 1 bytes": header(2**64 - 1, b"{}"),
    "header of 1 GB": header(10**9, b"{}"),
    "header beyond the file": header(100, b"{}"),
    "header that is no JSON": header(4, b"{{{{"),
    "header that is a list": header(2, b"[]"),
    "header that is not UTF-8": header(8, b'{"\xff":0}'),
    "deep header": header(20_000, b"[" * 20_000),
    "offsets beyond the file": one_tensor(data_offsets=[0, 80], shape=[20]),
    "offsets that do not fit the shape": one_tensor(shape=[3]),
    "offsets that go backwards": one_tensor(data_offsets=[8, 0]),
    "negative shape": one_tensor(shape=[-2]),
    "shape that overflows": one_tensor(shape=[2**32, 2**32, 2**32]),
    "unknown dtype": one_tensor(dtype="F31"),
    "bytes that no tensor covers": one_tensor() + b"12345678",
    "zip file": b"PK\x03\x04" + bytes(100),
    "HTML": b"<!DOCTYPE html><html>Not Found</html>",
    "git lfs pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n",
}


@pytest.mark.parametrize("name", NOT_SAFETENSORS)
def test_weights_that_are_no_safetensors_file(name, folder):
    """Also where the digest holds, as in a folder that somebody made up."""
    (folder / WEIGHTS).write_bytes(NOT_SAFETENSORS[name])
    refused(folder, WEIGHTS, "damaged")
    rewrite(folder, NOT_SAFETENSORS[name])
    refused(folder, WEIGHTS, "is not a safetensors file")


@pytest.mark.parametrize("dtype", ["F8_E5M2", "F8_E8M0", "F4", "C64", "U64"])
def test_dtypes_that_no_network_has(dtype, folder):
    bits = {"F8_E5M2": 8, "F8_E8M0": 8, "F4": 4}.get(dtype, 64)
    rewrite(folder, one_tensor(dtype=dtype, shape=[64 // bits]))
    refused(folder, WEIGHTS)


@pytest.mark.parametrize("kind", ["pickle", "torch.save"])
def test_pickles_are_not_unpickled(kind, folder, tmp_path):
    trace = tmp_path / "was_here"
    if kind == "pickle":
        content = pickle.dumps(Payload(trace))
    else:
        torch.save(Payload(trace), tmp_path / "weights.pt")
        content = (tmp_path / "weights.pt").read_bytes()
    rewrite(folder, content)
    refused(folder, WEIGHTS, "is not a safetensors file")
    assert not trace.exists()
    pickle.loads(pickle.dumps(Payload(trace)))
    assert trace.exists()  # it would have been seen


def test_names_with_path_tricks(saved, folder):
    tensors = load(saved[1][WEIGHTS])
    strange = ["../../evil", "/etc/passwd", "a/../b", "", "\0", "__class__", "encoder.__init__"]
    rewrite(folder, tensors | {name: torch.zeros(1) for name in strange})
    with pytest.raises(CheckpointError) as caught:
        iqn_blocks.from_pretrained(folder)
    for name in strange:
        assert f"unexpected: {name} float32 (1,)" in str(caught.value)
    assert sorted(path.name for path in folder.iterdir()) == [CONFIG, WEIGHTS]


def test_messages_are_bounded(saved, folder):
    tensors = load(saved[1][WEIGHTS])
    rewrite(folder, tensors | {f"{i}" + "x" * 500: torch.zeros(1) for i in range(1000)})
    with pytest.raises(CheckpointError, match=r"unexpected: .*xxx") as caught:
        iqn_blocks.from_pretrained(folder)
    assert len(str(caught.value).encode()) <= 8192
    change_config(folder, **{"k" * 10_000: 1})
    with pytest.raises(CheckpointError, match=r"(?s)unknown key 'kkk.*cut: \d+ bytes") as caught:
        iqn_blocks.from_pretrained(folder)
    assert len(str(caught.value).encode()) <= 8192


def test_empty_tensors_do_not_fit(saved, folder):
    tensors = load(saved[1][WEIGHTS])
    rewrite(folder, {name: tensor[:0] for name, tensor in tensors.items()})
    refused(folder, WEIGHTS, "does not fit the network")


def test_statistics_that_set_float_stats_refuses(saved, folder):
    tensors = load(saved[1][WEIGHTS])
    (name,) = [
        name for name, layer in saved[0].named_modules() if isinstance(layer, FloatNormalization)
    ]
    rewrite(folder, tensors | {f"{name}.std": torch.full_like(tensors[f"{name}.std"], 2.0**-130)})
    with pytest.raises(
        CheckpointError, match=rf"{name}\.std: got {2.0**-130:g}, accepted are numbers from"
    ):
        iqn_blocks.from_pretrained(folder)


# Settings: in config.json where the format is version 1


def test_truncated_config(saved, folder):
    content = saved[1][CONFIG].rstrip()
    for length in range(0, len(content), 7):
        (folder / CONFIG).write_bytes(content[:length])
        refused(folder, CONFIG, "is not JSON")


def test_flipped_bits_in_config(saved, folder):
    """Found, or without effect: the library's version and white space are for people."""
    net, files = saved
    content = files[CONFIG]
    draw = random.Random(0)
    harmless = 0
    for index in draw.sample(range(len(content)), 500):
        (folder / CONFIG).write_bytes(with_bit_flipped(content, index, draw.randrange(8)))
        try:
            loaded = iqn_blocks.from_pretrained(folder)
        except CheckpointError as error:
            assert str(folder) in str(error)
        else:
            harmless += 1
            assert_same(loaded, net)
    assert harmless < 10


def test_edited_config(saved, folder):
    net, _ = saved
    data = json.loads((folder / CONFIG).read_text())
    data["config"]["nn"]["iqn"]["k"] += 1
    change_config(folder, **data)
    with pytest.raises(CheckpointError, match=r"config\.json: was changed after") as caught:
        iqn_blocks.from_pretrained(folder)
    change_config(folder, settings_sha256=str(caught.value).rpartition(" ")[2])
    loaded = iqn_blocks.from_pretrained(folder)
    assert loaded.config.nn.iqn.k == net.config.nn.iqn.k + 1


CONFIGS = {
    "empty": (b"", "is not JSON"),
    "not UTF-8": (b'{"format": "\xff"}', "is not UTF-8 at byte 12"),
    "UTF-16": ('{"format": "iqn-blocks"}'.encode("utf-16"), "is not UTF-8"),
    "a list": (b"[]", "expected a JSON object"),
    "a number": (b"3", "expected a JSON object"),
    "null": (b"null", "expected a JSON object"),
    "NaN": (b'{"format": NaN}', "NaN is not a finite number"),
    "Infinity": (b'{"format": -Infinity}', "-Infinity is not a finite number"),
    "a number beyond floats": (b'{"format": 1e999}', "1e999 is not a finite number"),
    "a number of 5000 digits": (b'{"format": ' + b"1" * 5000 + b"}", "is not JSON"),
    "a key twice": (b'{"format": 1, "format": 2}', "the same key twice"),
    "deep nesting": (b'{"format": ' + b"[" * 100_000, "nested too deeply"),
    "another format": (b'{"model_type": "vit"}', "is not of an iqn-blocks checkpoint"),
    "YAML": (b"format: iqn-blocks\n", "is not JSON"),
    "keys missing": (
        b'{"format": "iqn-blocks", "format_version": 1}',
        "missing key 'weights_sha256'",
    ),
}


@pytest.mark.parametrize("name", CONFIGS)
def test_config_that_is_none(name, folder):
    content, reason = CONFIGS[name]
    (folder / CONFIG).write_bytes(content)
    refused(folder, CONFIG, reason)


def test_newer_format(folder):
    change_config(folder, format_version=3, library_version="9.0", layers=[])
    refused(
        folder,
        CONFIG,
        "has format version 3, written by iqn-blocks '9.0' (str); this version reads up to 2: "
        "upgrade iqn-blocks",
    )


CHANGES = {
    "format_version": [0, -1, "1", True, 1.0, None],
    "library_version": [None, 3],
    "weights_sha256": [
        None,
        "",
        "../../x",
        "/etc/passwd",
        "A" * 64,
        "a" * 63,
        "a" * 64 + "\n",
        "٣" * 64,
    ],
    "dtype": [None, "int8x", "torch.float32", "complex64"],
    "other_dtypes": [None, [], {"x": "float31"}, {"x": None}],
    "channels_last": [None, {}],
    "training": [None, 1, "true"],
    "config": [None, [], {}, {"n_actions": 0, "float_input_dim": 1}, {"no_such_key": 1}],
    "backbones": [None, [], {"vision": {}}, {"x": {"config": {}}}],
    "settings_sha256": [None, 3, ["x"]],
    "unknown": [1],
}


@pytest.mark.parametrize(
    ("key", "value"), [(key, value) for key, values in CHANGES.items() for value in values]
)
def test_config_with_a_strange_value(key, value, folder):
    change_config(folder, **{key: value})
    refused(folder, CONFIG)


def test_all_faults_of_a_config_come_together(folder):
    change_config(folder, training=1, dtype=2, extra=3)
    with pytest.raises(CheckpointError) as caught:
        iqn_blocks.from_pretrained(folder)
    assert str(caught.value).splitlines() == [
        f"{folder / CONFIG}: unknown key 'extra'",
        f"{folder / CONFIG}: dtype: expected str, found 2 (int)",
        f"{folder / CONFIG}: training: expected bool, found 1 (int)",
    ]


def test_a_digest_cannot_lead_out_of_the_folder(saved, folder):
    secret = folder.parent / "secret.safetensors"
    secret.write_bytes(save({"x": torch.zeros(1)}))
    (folder / WEIGHTS).unlink()
    change_config(folder, weights_sha256="x/../../secret")
    refused(folder, CONFIG, "weights_sha256: expected 64 hexadecimal digits")


WRONG_SETTINGS = {
    "no dtype for parameters": ({"dtype": "int64"}, r"dtype: expected one of float64, .*'int64'"),
    "unknown name": ({"other_dtypes": {"x": "int8"}}, "other_dtypes: x is int8, expected the name"),
    "whole numbers for a parameter": (
        {"other_dtypes": {"value_head.readout.bias": "int8"}},
        "other_dtypes: value_head.readout.bias is int8, expected the name and dtype of a tensor",
    ),
    "unknown layout": ({"channels_last": ["x"]}, "channels_last: x, expected the name of a tensor"),
    "layout of a vector": (
        {"channels_last": ["value_head.readout.bias"]},
        "channels_last: value_head.readout.bias, expected the name of a tensor of four dimensions",
    ),
    "no names": ({"channels_last": ["x", 3, None]}, "channels_last: expected names, found "),
}


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("name", WRONG_SETTINGS)
def test_settings_that_do_not_fit_but_have_a_digest_that_holds(name, version, tmp_path):
    changes, reason = WRONG_SETTINGS[name]
    build(tiny_transformer()).save_pretrained(tmp_path)
    if version == 1:
        to_version_1(tmp_path)
        data = json.loads((tmp_path / CONFIG).read_text()) | changes
        change_config(tmp_path, **changes, settings_sha256=settings_sha256(data))
    else:
        change_settings(tmp_path, **changes)
    with pytest.raises(CheckpointError, match=reason) as caught:
        iqn_blocks.from_pretrained(tmp_path)
    assert str(caught.value).startswith(str(tmp_path))
    assert "was changed" not in str(caught.value)


# Files


def test_missing_file(saved, folder):
    (folder / CONFIG).unlink()
    refused(folder, WEIGHTS, "it holds no settings, and there is no config.json beside it")
    (folder / WEIGHTS).unlink()
    refused(folder, WEIGHTS, "not found")
    (folder / CONFIG).write_bytes(saved[1][CONFIG])
    refused(folder, WEIGHTS, "not found")


@pytest.mark.parametrize("file", [CONFIG, WEIGHTS])
@pytest.mark.parametrize("kind", ["folder", "pipe", "dangling link", "link to itself"])
def test_what_is_no_file(kind, file, folder):
    path = folder / file
    path.unlink()
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to(path if kind == "link to itself" else folder / "nowhere")
    refused(folder, WEIGHTS if kind == "dangling link" else file)


def test_missing_folder(tmp_path):
    refused(tmp_path / "nowhere", WEIGHTS, "not found")
    with pytest.raises(CheckpointError, match=r"nowhere/model\.safetensors: not found"):
        iqn_blocks.from_pretrained(f"{tmp_path}/nowhere/")
    with pytest.raises(CheckpointError, match=r"nowhere/model\.safetensors: not found"):
        iqn_blocks.from_pretrained("./nowhere")


def test_folder_that_is_a_file(folder):
    with pytest.raises(CheckpointError) as caught:
        iqn_blocks.from_pretrained(folder / WEIGHTS)
    assert str(caught.value) == (
        f"{folder / WEIGHTS}: is a file; a checkpoint is a folder: pass '{folder}', which holds "
        "it, or another one"
    )
    refused(folder / WEIGHTS / "x", WEIGHTS, "Not a directory")


def test_names_that_no_system_has(tmp_path):
    for name in ("a\0b", "a" * 5000):
        with pytest.raises(CheckpointError, match="cannot be read"):
            read_folder(tmp_path / name)
