"""State widths and parameter counts by arithmetic, against networks that were built."""

from __future__ import annotations

import re
from typing import Any

import pytest
from iqn_blocks.config.size import MAX_PARAMETERS

from iqn_blocks import ConfigError
from iqn_blocks.config import parameter_count, parse, quantile_path, route, state_dim, trunk
from iqn_blocks.registry import assemble

from . import tiny_models
from .configs import merge, tiny, tiny_btr, tiny_transformer
from .grid import classic_grid, hf_vision_grid, multimodal_grid


def check_exact(raw: dict[str, Any], *, hf: tuple[str, ...] = ()) -> None:
    """The count is that of the built network without the parameters under the names in ``hf``."""
    config = parse(raw)
    net = assemble(config)
    counted = [
        p.numel() for name, p in net.named_parameters() if not any(part in name for part in hf)
    ]
    assert net.state_dim == state_dim(config)
    assert sum(counted) == parameter_count(config, route(config))


@pytest.mark.parametrize("raw", [tiny(), tiny_btr(), tiny_transformer(), tiny(float_input_dim=0)])
def test_tiny_networks(raw: dict[str, Any]) -> None:
    check_exact(raw)


def test_classic_networks() -> None:
    for raw in list(classic_grid().values())[::25]:
        check_exact(raw)


def test_multimodal_networks() -> None:
    grid = multimodal_grid({}, {"bert": "some/bert"})
    native = [raw for raw in grid.values() if trunk(parse(raw)) != "hf_embedding"]
    assert len(native) > 100
    for raw in native[::5]:
        check_exact(raw)


@pytest.mark.slow
def test_networks_with_models_count_without_them(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("models")
    vit = tiny_models.save("vit", folder / "vit")
    for raw in list(hf_vision_grid({"vit": vit}).values())[::4]:
        check_exact(raw, hf=("backbone", "vision.projection"))
    bert = tiny_models.save("bert", folder / "bert")
    grid = multimodal_grid({}, {"bert": bert})
    for raw in [raw for raw in grid.values() if trunk(parse(raw)) == "hf_embedding"][::4]:
        check_exact(raw, hf=("backbone", "input_projection", "output_projection"))


def test_by_hand() -> None:
    raw = {
        "n_actions": 2,
        "float_input_dim": 3,
        "nn": {
            "vis": {"no_image": True},
            "float": {"mlp": {"hidden_dim": 4}},
            "iqn": {"embedding_dimension": 5},
            "decoder": {"dense_hidden_dimension": 12},
        },
    }
    floats = (3 * 4 + 4) + (4 * 4 + 4)
    tau = 5 * 4 + 4
    hidden = 4 * 6 + 6
    readouts = (6 * 2 + 2) + (6 + 1)
    config = parse(raw)
    assert state_dim(config) == 4
    assert parameter_count(config, "classic") == floats + tau + 2 * hidden + readouts
    noisy = parse(merge(raw, {"btr": {"use_noisy_linear": True, "use_layer_norm": True}}))
    norms = 2 * (4 + 4) + 2 * (6 + 6)  # scale and shift, in the float MLP and in the heads
    doubled = 2 * hidden + (6 * 2 + 2)  # σ beside μ
    assert parameter_count(noisy, "classic") == parameter_count(config, "classic") + norms + doubled


def test_own_topologies_count_from_their_state_on() -> None:
    config = parse(tiny(nn={"topology": "mine"}))
    assert parameter_count(config, "mine") == quantile_path(config, 1)
    classic = parse(tiny(float_input_dim=0))
    stem = parameter_count(classic, "classic") - quantile_path(classic, state_dim(classic))
    assert stem == (16 * 16 + 16) + (16 * 16 * 32 + 32) + (32 * 9 * 64 + 64) + (64 * 9 * 32 + 32)


HUGE: dict[str, dict[str, Any]] = {
    "image": {"nn": {"vis": {"image_size": {"w": 65_536, "h": 65_536}}}},
    "pool": {"btr": {"use_adaptive_maxpool": True, "adaptive_maxpool_size": 65_536}},
    "stem": {"btr": {"use_impala_cnn": True, "impala_model_size": 65_536}},
    "channels": {"nn": {"vis": {"in_channels": 65_536}},
                 "btr": {"use_impala_cnn": True, "impala_model_size": 256}},
    "heads": {"nn": {"decoder": {"value": {"mlp": {"hidden": 65_536, "layers": 2}}}}},
    "slot": {"nn": {"fusion_mode": "unified", "decoder": {
        "dense_hidden_dimension": 32_768, "value": {"transformer": {"d_model": 32_768}}}}},
    "actions": {"n_actions": 65_536, "n_actions_per_block": 65_536},
    "floats": {"float_input_dim": 65_536, "nn": {"float": {"mlp": {"hidden_dim": 65_536}}}},
    "patches": {"nn": {"fusion_mode": "unified", "vis": {
        "transformer": {"patch_size": 1}, "image_size": {"w": 65_536, "h": 65_536}}}},
    "tokens": {"nn": {"fusion_mode": "post_concat", "encoder": {"transformer": {
        "post_concat_seq_len": 65_536}}}},
    "trunk": {"nn": {"fusion_mode": "unified", "encoder": {"fusion_encoder": "mlp", "fusion_mlp": {
        "hidden_dim": 65_536, "n_layers": 3}}}},
    "kernels": {"nn": {"fusion_mode": "unified", "encoder": {"fusion_encoder": "cnn",
        "fusion_cnn": {"hidden_channels": [256, 65_536, 65_536]}}}},
    "layers": {"nn": {"fusion_mode": "unified", "encoder": {"transformer": {"n_layers": 65_536}}}},
    "cosines": {"nn": {"iqn": {"embedding_dimension": 65_536},
                       "vis": {"image_size": {"w": 512, "h": 512}}}},
    "model": {"nn": {"vis": {"transformer": {"use_hf_backbone": True, "model_name_or_path": "a",
                                             "d_model": 65_536}}}},
}  # fmt: skip


@pytest.mark.parametrize("name", HUGE)
def test_huge_networks_are_refused_before_they_are_built(name: str) -> None:
    with pytest.raises(ConfigError) as error:
        parse(merge({"n_actions": 3, "float_input_dim": 4}, HUGE[name]))
    message = str(error.value)
    assert message.startswith("the network: found ")
    assert f"parameters; accepted: at most {MAX_PARAMETERS}; the encoder has " in message
    found, _, encoder, heads = map(int, re.findall(r"\d+", message))
    assert found == encoder + heads > 2**31


def test_the_limit_itself() -> None:
    def sized(width: int) -> dict[str, Any]:
        mlp = {"hidden_dim": width}
        keys = {"vis": {"no_image": True}, "float": {"mlp": mlp}, "iqn": {"embedding_dimension": 1}}
        return {"n_actions": 1, "float_input_dim": 1, "nn": keys}

    def count(n: int) -> int:
        return (n + n) + (n * n + n) + (n + n) + 2 * (n * 512 + 512) + 2 * (512 + 1)

    widest = max(n for n in range(44_000, 46_500) if count(n) <= 2**31)
    assert parameter_count(parse(sized(widest)), "classic") == count(widest)
    with pytest.raises(ConfigError, match=f"the network: found {count(widest + 1)} parameters"):
        parse(sized(widest + 1))
