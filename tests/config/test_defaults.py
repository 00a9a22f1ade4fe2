"""The configuration object: defaults, blocks, unknown keys, copies, plain data."""

from __future__ import annotations

import copy
import json
import pickle
from typing import Any

import pydantic
import pytest
import yaml

import iqn_blocks.config
from iqn_blocks import ConfigError
from iqn_blocks.config import Btr, Cnn, Config, FloatMlp, parse
from tests.config.cases import REQUIRED, faults, nested

# The defaults, written down once more, without the two blocks that are there on request.
DEFAULTS = """
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
       patch_size: 8, post_concat_seq_len: 4, unified_float_tokens: 1, fusion_tokens: summary,
       summary_token: auto, missing_processor: model}
    fusion_mlp: {hidden_dim: 512, n_layers: 2, dropout: 0.0}
    fusion_cnn: {hidden_channels: [256, 256], kernel_size: 3, dropout: 0.0}
    hf_embedding: {model_name_or_path: "", trust_remote_code: false, hidden_dropout_prob: 0.0}
  core: null
  iqn: {embedding_dimension: 128, cosine_start: 1, n_layers: 1, mixer: hadamard,
        fractions: sampled, n: 8, k: 32, kappa: 0.005, freeze: false}
  decoder:
    shared_input: post_tau
    dense_hidden_dimension: 1024
    dueling: per_level
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


def test_defaults_are_those_listed() -> None:
    found = parse(REQUIRED).to_dict()
    for key in CONV_KEYS_OF_BTR:
        assert found["btr"].pop(key) is None
    assert found == {**REQUIRED, **yaml.safe_load(DEFAULTS)}
    assert len(CONV_KEYS_OF_BTR) == 5


def test_blocks_on_request_have_the_listed_defaults() -> None:
    transformer = yaml.safe_load(DEFAULTS)["nn"]["encoder"]["transformer"]
    vis = parse(nested("nn.vis.transformer", {})).to_dict()["nn"]["vis"]
    assert vis["transformer"] == transformer
    assert "cnn" not in vis
    slot = parse(nested("nn.decoder.value.transformer", {})).to_dict()["nn"]["decoder"]["value"]
    d = {"d_model": 128, "n_layers": 1, "n_heads": 4, "ff_mult": 4, "dropout": 0.0}
    d["hidden_dim"] = None
    assert slot == {"freeze": False, "transformer": d}


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
        "n_actions: missing; accepted: a whole number from 1 to 65536, or a list of these; add "
        "this key"
    )


def test_a_config_built_directly_raises_the_same_error() -> None:
    with pytest.raises(ConfigError, match="n_actions: found '3'"):
        Config(n_actions="3", float_input_dim=2)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="nn: found 3"):
        Config.model_validate({**REQUIRED, "nn": 3})
    with pytest.raises(ConfigError, match=r"^hidden_dim: found 0"):
        FloatMlp(hidden_dim=0)
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
    assert str(config) == repr(config)  # for print() too
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
