"""Blocks of keys: what may stand in their place, other names, misspellings, keys that move."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import pytest

from iqn_blocks.config import Btr, Cnn, ImageSize, Vision, parse
from iqn_blocks.plain import show
from tests.config.cases import KEYS, REQUIRED, faults, nested


@pytest.mark.parametrize(
    "path",
    ["nn", "btr", "nn.vis", "nn.vis.image_size", "nn.encoder.transformer", "nn.decoder.value",
     "nn.training", "nn.vis.cnn", "nn.vis.transformer", "nn.decoder.value.mlp", "nn.encoder.mlp"],
)  # fmt: skip
def test_a_block_without_keys_is_the_default(path: str) -> None:
    assert parse(nested(path, None)) == parse(REQUIRED)


@pytest.mark.parametrize("value", [3, "cnn", [], [{}], True, ImageSize()])
def test_a_block_is_a_mapping(value: object) -> None:
    (line,) = faults(nested("nn.vis.cnn", value))
    assert line.startswith("nn.vis.cnn: found ")
    assert line.endswith(f"accepted: a block with the keys {', '.join(Cnn.model_fields)}")


@pytest.mark.parametrize("value", [3, "relu", [], [{}], True, object])
def test_options_of_a_part_are_a_mapping(value: object) -> None:
    (line,) = faults(nested("nn.decoder.value.mlp", value))
    assert line.startswith("nn.decoder.value.mlp: found ")
    assert line.endswith("accepted: a block of options of mlp")


@pytest.mark.parametrize("value", [3, ["n_actions"], b"config.yaml", object()])
def test_a_configuration_is_a_mapping(value: object) -> None:
    (line,) = faults(value)
    assert re.match(r"top level: found .*; accepted: a block with the keys n_actions, ", line)


def test_any_mapping_will_do() -> None:
    class Odd(Mapping[str, Any]):
        def __init__(self, keys: dict[str, Any]) -> None:
            self.keys_ = keys

        def __getitem__(self, key: str) -> Any:
            return self.keys_[key]

        def __iter__(self) -> Any:
            return iter(self.keys_)

        def __len__(self) -> int:
            return len(self.keys_)

    config = Odd({**REQUIRED, "nn": Odd({"vis": Odd({"image_size": Odd({"w": 64})})})})
    assert parse(config) == parse(nested("nn.vis.image_size.width", 64))
    blocks = {**REQUIRED, "nn": {"vis": Vision(image_size={"w": 64})}}
    assert parse(blocks) == parse(config)


@pytest.mark.parametrize(
    ("alias", "name", "value"),
    [
        ("nn.vis.image_size.w", "nn.vis.image_size.width", 64),
        ("nn.vis.image_size.h", "nn.vis.image_size.height", 64),
        ("nn.decoder.value.mlp.hidden", "nn.decoder.value.mlp.hidden_dim", 7),
        ("nn.decoder.advantage.mlp.layers", "nn.decoder.advantage.mlp.n_hidden_layers", 3),
    ],
)
def test_aliases(alias: str, name: str, value: int) -> None:
    config = parse(nested(alias, value))
    assert config == parse(nested(name, value))
    assert config != parse(REQUIRED)
    both = nested(alias, value)
    block: Any = both
    for part in alias.split(".")[:-1]:
        block = block[part]
    block[name.rpartition(".")[2]] = value
    (line,) = faults(both)
    last = name.rpartition(".")[2]
    assert line.startswith(f"{alias}: ")
    assert line.endswith(f"given beside {last}, which means the same; keep one of them")


@pytest.mark.parametrize("path", [*KEYS, "nn.vis.cnn", "nn.decoder.value.transformer", "btr"])
def test_a_misspelled_key_is_named_with_the_nearest(path: str) -> None:
    above, _, name = path.rpartition(".")
    misspelled = f"{path}_"
    (line,) = faults(nested(misspelled, 1))
    what = "option" if path in KEYS and KEYS[path].inside else "key"
    assert line == f"{misspelled}: unknown {what}; did you mean {name}?"
    assert above in misspelled


@pytest.mark.parametrize("key", ["k" * 100_000, "a\nb", "\x1b[31m", ""])
def test_keys_that_nobody_would_write(key: str) -> None:
    (line,) = faults({**REQUIRED, "nn": {key: 1}})
    assert re.match(r"nn\..*: unknown key; the nearest is \w+; valid here: topology, ", line)
    assert len(line) < 400
    assert line.isprintable()


def test_a_key_in_the_wrong_block() -> None:
    (line,) = faults(nested("nn.embedding_dimension", 64))
    assert line.endswith("unknown key; did you mean nn.iqn.embedding_dimension?")
    (line,) = faults(nested("nn.zzz", 64))
    assert re.search(r"unknown key; the nearest is \w+; valid here: topology, .*, training$", line)


@pytest.mark.parametrize("key", [1, None, True, (1, 2), 2.5])
def test_keys_are_strings(key: object) -> None:
    (line,) = faults({**REQUIRED, "nn": {"vis": {key: 1}}})
    assert line == f"nn.vis: found the key {show(key)}; accepted: strings; put it in quotes"


def test_conv_keys_of_btr_fill_what_is_omitted() -> None:
    btr = {"use_impala_cnn": True, "impala_model_size": 3, "adaptive_maxpool_size": 2}
    config = parse({**REQUIRED, "nn": {"vis": {"cnn": {"impala_model_size": 4}}}, "btr": btr})
    assert config.nn.vis.cnn == Cnn(
        use_impala_cnn=True, impala_model_size=4, adaptive_maxpool_size=2
    )
    assert config.btr == Btr(impala_model_size=3)  # overruled, and so not read
    written_out = {"use_impala_cnn": False, "impala_model_size": 2}
    assert parse({**nested("nn.vis.cnn", written_out), "btr": btr}).nn.vis.cnn == Cnn(
        adaptive_maxpool_size=2
    )


@pytest.mark.parametrize("vis", [{"no_image": True}, {"transformer": {}}])
def test_conv_keys_of_btr_stay_where_there_is_no_cnn(vis: dict[str, Any]) -> None:
    config = parse({**REQUIRED, "nn": {"vis": vis}, "btr": {"use_spectral_norm": True}})
    assert config.btr.use_spectral_norm is True
    assert config.nn.vis.cnn in (None, Cnn())
    assert parse(config.to_dict()) == config


@pytest.mark.parametrize("slot", ["advantage", "value"])
def test_huggingface_decoder_slots(slot: str) -> None:
    path = f"nn.decoder.{slot}.transformer"
    spelled_out = {"use_hf_backbone": False, "model_name_or_path": "", "trust_remote_code": False}
    assert parse(nested(path, spelled_out)) == parse(nested(path, {}))
    (line,) = faults(nested(path, {"use_hf_backbone": True}))
    assert line.startswith(f"{path}.use_hf_backbone: found true; a Hugging Face model in a decoder")
    assert "not supported; remove the key" in line
    assert len(faults(nested(path, {"use_hf_backbone": 0, "model_name_or_path": "bert"}))) == 2


def test_pre_tau() -> None:
    for slot in ({"mlp": {}}, {"transformer": {}}):
        (line,) = faults(nested("nn.decoder", {"shared_input": "pre_tau", "value": slot}))
        assert line == (
            "nn.decoder.shared_input: found 'pre_tau' (str); accepted: post_tau; no system builds "
            "pre_tau, for either kind of slot: write post_tau"
        )
