"""The configuration object: defaults, blocks, unknown keys, copies, plain data."""

from __future__ import annotations

import copy
import json
import pickle
import re
from collections.abc import Mapping
from typing import Any

import pydantic
import pytest
import yaml

import iqn_blocks.config
from iqn_blocks import ConfigError
from iqn_blocks.config import Btr, Cnn, Config, HeadMlp, ImageSize, Vision, parse
from iqn_blocks.config.plain import show

from .config_cases import KEYS, REQUIRED, nested

# The defaults as the specification lists them, without the two blocks that are there on request.
SPECIFIED = """
n_actions_per_block: 1
float_inputs_mean: null
float_inputs_std: null
nn:
  topology: null
  topology_options: {}
  fusion_mode: none
  init_from_pretrained: ""
  activation: leaky_relu
  init: orthogonal
  vis:
    no_image: false
    freeze: false
    in_channels: 1
    uint8_scaling: signed
    image_size: {width: 256, height: 256}
    cnn: {use_impala_cnn: false, impala_model_size: 2, use_adaptive_maxpool: false,
          adaptive_maxpool_size: 6, use_spectral_norm: false, spectral_norm_scope: all}
  float: {freeze: false, mlp: {hidden_dim: 256}}
  encoder:
    freeze: false
    mlp: null
    fusion_encoder: null
    post_concat_layout: fused_vector
    float_token_input: raw
    float_token_layout: dense
    transformer: &transformer
      {use_hf_backbone: false, model_name_or_path: "", trust_remote_code: false,
       hidden_dropout_prob: 0.0, d_model: 256, n_layers: 2, n_heads: 4, ff_mult: 4, dropout: 0.0,
       patch_size: 8, post_concat_seq_len: 4, unified_float_tokens: 1, fusion_tokens: summary}
    fusion_mlp: {hidden_dim: 512, n_layers: 2, dropout: 0.0}
    fusion_cnn: {hidden_channels: [256, 256], kernel_size: 3, dropout: 0.0}
    hf_embedding: {model_name_or_path: "", trust_remote_code: false, hidden_dropout_prob: 0.0}
  iqn: {embedding_dimension: 128, cosine_start: 1, n: 8, k: 32, kappa: 0.005, freeze: false}
  decoder:
    shared_input: post_tau
    dense_hidden_dimension: 1024
    shared_trunk_freeze: false
    advantage: {freeze: false, mlp: {hidden_dim: null, n_hidden_layers: 1}}
    value: {freeze: false, mlp: {hidden_dim: null, n_hidden_layers: 1}}
  training: {}
btr:
  use_layer_norm: false
  use_noisy_linear: false
  noisy_sigma0: 0.5
  noisy_value_readout: false
  use_munchausen: false
  munchausen_alpha: 0.9
  munchausen_entropy_tau: 0.03
  munchausen_lo: -1.0
  munchausen_clamp: scaled
"""
CONV_KEYS_OF_BTR = set(Cnn.model_fields) & set(Btr.model_fields)


def faults(config: object) -> list[str]:
    with pytest.raises(ConfigError) as error:
        parse(config)  # type: ignore[arg-type]
    lines = str(error.value).splitlines()
    return lines if len(lines) == 1 else [line.removeprefix("- ") for line in lines[1:]]


def test_defaults_are_those_of_the_specification() -> None:
    found = parse(REQUIRED).to_dict()
    for key in CONV_KEYS_OF_BTR:
        assert found["btr"].pop(key) is None
    assert found == {**REQUIRED, **yaml.safe_load(SPECIFIED)}
    assert len(CONV_KEYS_OF_BTR) == 5


def test_blocks_on_request_have_the_specified_defaults() -> None:
    transformer = yaml.safe_load(SPECIFIED)["nn"]["encoder"]["transformer"]
    vis = parse(nested("nn.vis.transformer", {})).to_dict()["nn"]["vis"]
    assert vis["transformer"] == transformer
    assert "cnn" not in vis
    slot = parse(nested("nn.decoder.value.transformer", {})).to_dict()["nn"]["decoder"]["value"]
    d = {"d_model": 128, "n_layers": 1, "n_heads": 4, "ff_mult": 4, "dropout": 0.0}
    assert slot == {"freeze": False, "transformer": d}


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
    assert line == f"{alias}: given beside {last}, which means the same; keep one of them"


@pytest.mark.parametrize("path", [*KEYS, "nn.vis.cnn", "nn.decoder.value.transformer", "btr"])
def test_a_misspelled_key_is_named_with_the_nearest(path: str) -> None:
    above, _, name = path.rpartition(".")
    misspelled = f"{path}_"
    (line,) = faults(nested(misspelled, 1))
    assert line == f"{misspelled}: unknown key; did you mean {name}?"
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


def test_all_field_faults_come_at_once_and_before_those_between_keys() -> None:
    config = {
        "float_input_dim": -1,
        "nn": {"vis": {"cnn": {}, "transformer": {"d_model": "8"}}, "iqn": {"N": 8}},
        "btr": 5,
    }
    assert [line.split(":")[0] for line in faults(config)] == [
        "n_actions",
        "float_input_dim",
        "nn.vis.transformer.d_model",
        "nn.iqn.N",
        "btr",
    ]
    assert faults({"float_input_dim": 2})[0] == (
        "n_actions: missing; accepted: a whole number from 1 to 65536; add this key"
    )


def test_a_config_built_directly_raises_the_same_error() -> None:
    with pytest.raises(ConfigError, match="n_actions: found '3'"):
        Config(n_actions="3", float_input_dim=2)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="nn: found 3"):
        Config.model_validate({**REQUIRED, "nn": 3})
    with pytest.raises(ConfigError, match=r"^hidden_dim: found 0"):
        HeadMlp(hidden_dim=0)
    with pytest.raises(ConfigError, match="float_input_dim: found 0"):
        Config(n_actions=1, float_input_dim=0, nn={"vis": {"no_image": True}})  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="self: unknown key"):
        parse({**REQUIRED, "self": 1})


def test_parse_takes_a_config_as_it_is() -> None:
    config = parse(REQUIRED)
    assert parse(config) is config
    assert Config(**REQUIRED) == config  # type: ignore[arg-type]


def test_configs_do_not_change() -> None:
    options = {"sizes": [1, {"a": [2]}]}
    raw = {**REQUIRED, "nn": {"training": options, "topology_options": {}}}
    config = parse(raw)
    before = repr(config)
    options["sizes"].append(3)
    raw["nn"]["topology_options"]["x"] = 1  # type: ignore[index]
    config.to_dict()["nn"]["training"]["sizes"].clear()
    assert repr(config) == before
    with pytest.raises(pydantic.ValidationError):
        config.n_actions = 4
    with pytest.raises(TypeError):
        config.nn.training["sizes"] = 1  # type: ignore[index]


EXAMPLES: list[dict[str, Any]] = [
    dict(REQUIRED),
    nested("nn.vis.transformer", {"d_model": 64}),
    nested("nn.vis", {"no_image": True, "cnn": {"use_impala_cnn": True}}),
    nested("nn.decoder.value", {"transformer": {}, "freeze": True}),
    nested("nn.training", {"lr": [1.5, {"a": None}], "b": {"c": True}, "é": "ü"}),
    nested("float_inputs_std", [0.1, 3]),
    nested("btr", {"use_impala_cnn": True, "impala_model_size": 3, "noisy_sigma0": 0.25}),
]


@pytest.mark.parametrize("raw", EXAMPLES)
def test_copies_are_equal(raw: dict[str, Any]) -> None:
    config = parse(raw)
    pasted = eval(repr(config), vars(iqn_blocks.config))
    through_json = json.loads(json.dumps(config.to_dict()))
    copies = [
        pasted, pickle.loads(pickle.dumps(config)), copy.deepcopy(config), parse(config.to_dict()),
        parse(through_json), parse(config.model_dump()),
        parse(json.loads(config.model_dump_json())),
    ]  # fmt: skip
    for other in copies:
        assert other == config
        assert hash(other) == hash(config)
        assert repr(other) == repr(config)
    assert len({config, *copies, *map(parse, EXAMPLES)}) == len(EXAMPLES)


def test_repr_shows_what_differs_from_the_defaults() -> None:
    assert repr(parse(REQUIRED)) == "Config(n_actions=3, float_input_dim=2)"
    assert repr(parse(nested("nn.iqn.n", 4))) == (
        "Config(n_actions=3, float_input_dim=2, nn=Nn(iqn=Quantiles(n=4)))"
    )


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
