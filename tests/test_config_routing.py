"""Routing, and the plain cases of keys that nobody reads."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn as torch_nn

from iqn_blocks import ConfigError, UnsupportedTopologyError, check, register
from iqn_blocks.build import unused_keys
from iqn_blocks.config import (
    Config,
    floats_part,
    parse,
    route,
    trunk,
    trunk_part,
    vision_branch,
)

from .configs import merge
from .grid import classic_grid, hf_vision_grid, multimodal_grid
from .registration import forget_later

VISION, TEXT = {"vit": "some/vit"}, {"bert": "some/bert"}
GRID = {
    "classic": classic_grid(),
    "hf_vision": hf_vision_grid(VISION),
    "multimodal": multimodal_grid(VISION, TEXT),
}
VIT: dict[str, Any] = {"transformer": {}}
HF = {"use_hf_backbone": True, "model_name_or_path": "some/vit"}


def nn(**keys: Any) -> dict[str, Any]:
    return {"n_actions": 3, "float_input_dim": 4, "nn": keys}


@pytest.mark.parametrize("topology", GRID)
def test_every_network_of_the_grids(topology: str) -> None:
    """That these networks read each key of theirs is shown where they are built."""
    assert len(GRID[topology]) > 20
    for raw in GRID[topology].values():
        config = parse(raw)
        assert route(config) == topology
        named = parse(merge(raw, {"nn": {"topology": topology}}))
        assert route(named) == topology
        assert parse(config.to_dict()) == config


@pytest.mark.parametrize(
    ("keys", "topology", "branch"),
    [
        ({}, "classic", "cnn"),
        ({"vis": {"no_image": True}}, "classic", "none"),
        ({"vis": {"no_image": True, "transformer": {}}}, "classic", "none"),
        ({"vis": {"no_image": True, "transformer": HF}}, "classic", "none"),
        ({"vis": {"transformer": HF}}, "hf_vision", "hf_transformer"),
        ({"fusion_mode": "unified", "vis": {"transformer": HF}}, "multimodal", "hf_transformer"),
        ({"fusion_mode": "unified", "vis": VIT}, "multimodal", "native_transformer"),
        ({"fusion_mode": "post_concat"}, "multimodal", "cnn"),
        ({"fusion_mode": "vision_transformer", "vis": {"no_image": True}}, "multimodal", "none"),
        ({"topology": "mine", "vis": {"transformer": {}}}, "mine", "native_transformer"),
    ],
)  # fmt: skip
def test_routes(keys: dict[str, Any], topology: str, branch: str) -> None:
    config = parse(nn(**keys))
    assert route(config) == topology
    assert vision_branch(config) == branch


def test_a_native_vision_transformer_alone_names_both_ways_out() -> None:
    config = parse(nn(vis={"transformer": {}}))
    with pytest.raises(UnsupportedTopologyError) as error:
        route(config)
    message = str(error.value)
    assert "found a native vision transformer with nn.fusion_mode none" in message
    assert "set nn.fusion_mode to vision_transformer, post_concat or unified" in message
    assert "or nn.vis.transformer.use_hf_backbone to true" in message


@pytest.mark.parametrize("chosen", ["linear", "native_transformer", "mlp", "cnn", "hf_embedding"])
@pytest.mark.parametrize("mode", ["vision_transformer", "post_concat", "unified"])
def test_trunks(mode: str, chosen: str) -> None:
    paths = {"hf_embedding": {"model_name_or_path": "some/bert"}}
    assert trunk(parse(nn(fusion_mode=mode, encoder={"fusion_encoder": chosen, **paths}))) == chosen
    default = "linear" if mode == "vision_transformer" else "native_transformer"
    assert trunk(parse(nn(fusion_mode=mode))) == default
    assert trunk(parse(nn(fusion_mode=mode, encoder={"transformer": HF}))) == "hf_embedding"


def test_where_a_trunk_model_comes_from() -> None:
    chosen = {"fusion_encoder": "hf_embedding"}
    own = {"model_name_or_path": "some/bert", "trust_remote_code": True}
    part = trunk_part(parse(nn(fusion_mode="unified", encoder={**chosen, "hf_embedding": own})))
    assert part.options == {
        **own,
        "hidden_dropout_prob": 0.0,
        "key": "nn.encoder.hf_embedding.model_name_or_path",
    }
    shared = {"transformer": HF, "hf_embedding": {"hidden_dropout_prob": 0.5}}
    part = trunk_part(parse(nn(fusion_mode="unified", encoder=shared)))
    assert part.options == {
        "model_name_or_path": "some/vit",
        "trust_remote_code": False,
        "hidden_dropout_prob": 0.0,
        "key": "nn.encoder.transformer.model_name_or_path",
    }


def test_width_of_the_float_mlp() -> None:
    keys = {"float": {"mlp": {"hidden_dim": 7}}, "encoder": {"mlp": {"hidden_dim": 9}}}
    assert floats_part(parse(nn(**keys))).hidden_dim == 7
    assert floats_part(parse(nn(**keys, fusion_mode="unified"))).hidden_dim == 9
    assert floats_part(parse(nn(float=keys["float"], fusion_mode="unified"))).hidden_dim == 7


@pytest.mark.parametrize(
    ("raw", "paths"),
    [
        (nn(), []),
        (nn(vis={"no_image": True, "cnn": {}, "freeze": True}), []),
        (nn(vis={"no_image": True, "cnn": {"impala_model_size": 3}, "image_size": {"w": 64}}),
         ["nn.vis.image_size.width", "nn.vis.cnn.impala_model_size"]),
        (nn(vis={"no_image": True, "transformer": {}}), ["nn.vis.transformer"]),
        (nn(fusion_mode="vision_transformer", vis={"no_image": True, "transformer": {}}), []),
        (nn(encoder={"mlp": {}}), ["nn.encoder.mlp"]),
        (nn(encoder={"mlp": {"hidden_dim": 9}, "freeze": True}),
         ["nn.encoder.freeze", "nn.encoder.mlp.hidden_dim"]),
        (merge(nn(), {"btr": {"impala_model_size": 3}}), ["btr.impala_model_size"]),
        (nn(vis={"cnn": {"impala_model_size": 3}}), ["nn.vis.cnn.impala_model_size"]),
        (merge(nn(vis={"cnn": {"use_impala_cnn": True, "impala_model_size": 1}}),
               {"btr": {"impala_model_size": 3, "use_impala_cnn": True}}),
         ["btr.impala_model_size"]),
        (merge(nn(vis={"no_image": True}), {"btr": {"use_impala_cnn": True}}),
         ["btr.use_impala_cnn"]),
        (merge(nn(vis={"no_image": True}), {"btr": {"use_impala_cnn": False}}), []),
        (merge(nn(vis={"transformer": HF}), {"btr": {"adaptive_maxpool_size": 5}}),
         ["btr.adaptive_maxpool_size"]),
        (nn(topology="mine", topology_options={"a": 1}, encoder={"freeze": True}),
         ["nn.encoder.freeze"]),
        (merge(nn(topology="mine"), {"btr": {"noisy_sigma0": 1.0, "use_impala_cnn": True}}),
         ["btr.use_impala_cnn", "btr.noisy_sigma0"]),
        (nn(vis={"no_image": True, "impala": {}}), ["nn.vis.impala"]),
        (nn(decoder={"dueling": "none", "value": {"mlp": {}}}), []),
        (nn(decoder={"dueling": "none", "value": {"transformer": {}}}),
         ["nn.decoder.value.transformer"]),
        (merge(nn(training={"lr": 1}, iqn={"kappa": 1.0}, decoder={"shared_trunk_freeze": True}),
               {"btr": {"use_munchausen": True, "munchausen_alpha": 0.5, "munchausen_lo": -2,
                        "munchausen_entropy_tau": 0.1, "munchausen_clamp": "log_pi"}}), []),
    ],
)  # fmt: skip
def test_keys_that_nobody_reads(
    raw: dict[str, Any],
    paths: list[str],
    folders: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    forget_later(monkeypatch)
    register("mine")(Mine)
    if raw["nn"].get("vis", {}).get("transformer"):
        raw = merge(raw, {"nn": {"vis": {"transformer": {"model_name_or_path": folders["vit"]}}}})
    assert unused_keys(raw) == paths


class Mine(torch_nn.Module):
    """A topology of the user's own, with an option."""

    def __init__(self, config: Config, *, a: int = 0) -> None:
        super().__init__()
        self.state_dim = config.float_input_dim + a

    def forward(self, img: torch.Tensor, floats: torch.Tensor) -> torch.Tensor:
        return torch_nn.functional.pad(floats, (0, self.state_dim - floats.shape[1]))


def test_an_option_that_a_topology_does_not_take(monkeypatch: pytest.MonkeyPatch) -> None:
    forget_later(monkeypatch)
    register("mine")(Mine)
    for keys, message in [
        ({}, r"nn\.topology_options\.aa: unknown option; valid here: none"),
        ({"topology": "mine"}, r"nn\.topology_options\.aa: unknown option; did you mean a\?"),
    ]:
        with pytest.raises(ConfigError, match=message):
            check(nn(topology_options={"aa": 1}, **keys))
