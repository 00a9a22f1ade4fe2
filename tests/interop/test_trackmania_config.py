"""trackmania_rl's YAML files: what they say of a network, and nothing else of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy
import pytest
import yaml

import iqn_blocks
from iqn_blocks.config import parse
from iqn_blocks.errors import ConfigError, ImportedConfigWarning, UnusedConfigWarning
from iqn_blocks.interop.trackmania_rl import load_config
from tests.configs import merge

ENVIRONMENT = """
environment:
  tm_engine_step_per_action: 5
  n_zone_centers_in_inputs: 40
  one_every_n_zone_centers_in_inputs: 20
  n_zone_centers_extrapolate_after_end_of_map: 1000
  n_zone_centers_extrapolate_before_start_of_map: 20
  n_contact_material_physics_behavior_types: 4
  n_prev_actions_in_inputs: 25
  deck_height: -.inf
  rl_action_offsets_ms: [0, 10, 20]
"""
TRAINER = """
training: {run_name: a, algorithm: iqn, batch_size: 512, lr_schedule: [[0, 1e-3]]}
memory: {memory_size_schedule: [[0, [50_000, 20_000]]], prio_alpha: 0}
exploration: {epsilon_schedule: [[0, 1], [50_000, 0.1]], multi_action_exploration: per_block}
rewards: {constant_reward_per_ms: -0.0012}
map_cycle: {entries: [{short_name: A01, map_path: "A01.Gbx", repeat: 64}]}
performance: {gpu_collectors_count: 4, running_speed: 512}
user: {username: me}
ppo: {gamma: 0.99}
dpo: {dpo_beta: 0.1}
grpo: {grpo_group_size: 4}
inputs:
  actions:
    - {left: false, right: false, accelerate: true, brake: false}
    - {left: true, right: false, accelerate: true, brake: false}
    - {left: false, right: true, accelerate: true, brake: false}
    - {left: false, right: false, accelerate: false, brake: true}
  action_forward_idx: 0
  action_backward_idx: 3
"""
NEWER = """
nn:
  vis:
    image_size: {w: 64, h: 48}
    cnn: {use_impala_cnn: true, impala_model_size: 1}
  float: {mlp: {hidden_dim: 32}}
  encoder:
    fusion_mode: post_concat
    init_from_pretrained: ""
    post_concat_layout: token_sequence
    float_token_layout: per_feature
    transformer: {use_hf_backbone: false, model_name_or_path: "", d_model: 32, n_heads: 2}
  iqn: {embedding_dimension: 64, n: 8, k: 16, kappa: 0.01}
  decoder:
    shared_input: post_tau
    dense_hidden_dimension: 128
    advantage: {mlp: {layers: 2, hidden: 40}}
    value: {transformer_encoder: {d_model: 32, use_hf_backbone: false}}
  training: {use_ddqn: true, clip_grad_norm: 30}
btr:
  use_munchausen: true
  munchausen_alpha: 0.8
  use_adaptive_maxpool: true
  use_spectral_norm: true
  use_noisy_linear: true
"""
OLDER = """
neural_network:
  w_downsized: 160
  h_downsized: 120
  float_hidden_dim: 128
  dense_hidden_dimension: 512
  iqn_embedding_dimension: 64
  iqn_n: 4
  iqn_k: 16
  iqn_kappa: 0.02
  use_iqn_image_head: true
  use_ddqn: false
  clip_grad_value: 1000
  clip_grad_norm: 30
  number_memories_trained_on_between_target_network_updates: 2048
  soft_update_tau: 0.02
  target_self_loss_clamp_ratio: 4
  single_reset_flag: 0
  reset_every_n_frames_generated: 40000000000000
  additional_transition_after_reset: 1600000
  last_layer_reset_factor: 0.8
  overall_reset_mul_factor: 0.01
  use_jit: true
"""
# Numbers that tell way-points and coordinates apart.
WAYPOINTS = {
    "waypoint_mean_40cp": [100.0 + i for i in range(120)],
    "waypoint_std_40cp": [1.0 + i / 8 for i in range(120)],
}
TRAINER += f"state_normalization: {WAYPOINTS}\n"
SIZES = {"n_actions": 4, "n_actions_per_block": 3, "float_input_dim": 27 + 120 + 100 + 16 + 1}


def read(*texts: str, **change: Any) -> Any:
    """The mapping in a file, changed."""
    return merge(yaml.safe_load("".join(texts)), change)


def statistics(
    n_prev: int, n_contact: int, n_waypoints: int, horizon: float, finish: float
) -> dict[str, list[float]]:
    """Mean and std of each float input, number by number; ``horizon`` is half of it, in actions."""
    mean, std = [horizon], [horizon]
    for _ in range(n_prev):
        for m in (0.8, 0.2, 0.3, 0.3):
            mean.append(m)
            std.append(0.5)
    for m in (0.1, 0.9, 0.02):
        for _ in range(4):
            mean.append(m)
            std.append(0.5)
    mean += [0.3, 2.5, 7000.0, 0.1]
    std += [1.0, 2.0, 3000.0, 10.0]
    for _ in range(4 * n_contact):
        mean.append(0.5)
        std.append(0.5)
    mean += [0.0, 0.0, 0.0]
    std += [0.5, 1.0, 0.5]
    mean += [0.0, 0.0, 55.0]
    std += [5.0, 5.0, 20.0]
    mean += [0.0, 1.0, 0.0]
    std += [0.5, 0.5, 0.5]
    for i in range(n_waypoints):
        if i < 40:
            mean += [100.0 + 3 * i, 101.0 + 3 * i, 102.0 + 3 * i]
            std += [1.0 + (3 * i + j) / 8 for j in range(3)]
        else:
            mean += [217.0, 0.0, 0.0]  # 217, 218, 219 are the last numbers of the list
            std += [50.0, 50.0, 50.0]
    mean += [finish, 0.0]
    std += [finish / 2, 1.0]
    assert len(mean) == len(std) == 27 + 3 * n_waypoints + 4 * n_prev + 4 * n_contact + 1
    return {"float_inputs_mean": mean, "float_inputs_std": std}


# Three offsets of 10 ms: 7000 ms are 233 blocks of 30 ms, half of that is 116.
SIZES |= statistics(25, 4, 40, 116.0, 700.0)


def older(**keys: Any) -> Any:
    return read(ENVIRONMENT, TRAINER, neural_network=keys)


def newer(**blocks: Any) -> Any:
    return read(ENVIRONMENT, TRAINER, nn=blocks)


def test_a_newer_file(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(ENVIRONMENT + NEWER + TRAINER)
    expected = {
        **SIZES,
        "nn": {
            "fusion_mode": "post_concat",
            "vis": {
                "image_size": {"width": 64, "height": 48},
                "cnn": {
                    "use_impala_cnn": True,
                    "impala_model_size": 1,
                    "use_adaptive_maxpool": True,
                    "use_spectral_norm": True,
                },
            },
            "float": {"mlp": {"hidden_dim": 32}},
            "encoder": {
                "post_concat_layout": "token_sequence",
                "float_token_layout": "per_feature",
                "transformer": {"d_model": 32, "n_heads": 2},
            },
            "iqn": {"embedding_dimension": 64, "n": 8, "k": 16, "kappa": 0.01},
            "decoder": {
                "dense_hidden_dimension": 128,
                "advantage": {"mlp": {"n_hidden_layers": 2, "hidden_dim": 40}},
                "value": {"transformer": {"d_model": 32}},
            },
            "training": {"use_ddqn": True, "clip_grad_norm": 30},
        },
        "btr": {
            "use_noisy_linear": True,
            "use_munchausen": True,
            "munchausen_alpha": 0.8,
            "munchausen_clamp": "log_pi",
        },
    }
    assert load_config(path) == load_config(str(path)) == parse(expected)
    assert load_config(read(ENVIRONMENT, NEWER, TRAINER)) == parse(expected)


def test_an_older_file(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(ENVIRONMENT + OLDER + TRAINER)
    config = load_config(path)
    trainer = dict(list(read(OLDER)["neural_network"].items())[9:])
    assert config == parse(
        {
            **SIZES,
            "nn": {
                "vis": {"image_size": {"width": 160, "height": 120}},
                "float": {"mlp": {"hidden_dim": 128}},
                "iqn": {"embedding_dimension": 64, "n": 4, "k": 16, "kappa": 0.02},
                "decoder": {"dense_hidden_dimension": 512},
                "training": trainer,
            },
        }
    )
    assert len(trainer) == 12


def test_the_given_mapping_is_left_alone() -> None:
    given = read(ENVIRONMENT, NEWER, TRAINER)
    load_config(given)
    assert given == read(ENVIRONMENT, NEWER, TRAINER)


def test_conv_keys_of_btr_beside_an_older_block() -> None:
    config = load_config(older(w_downsized=64) | {"btr": {"use_impala_cnn": True}})
    assert config.nn.vis.cnn is not None
    assert config.nn.vis.cnn.use_impala_cnn


@pytest.mark.parametrize(
    ("mode", "tokens", "expected"),
    [
        ("none", "summary", "first"),
        ("vision_transformer", "patch_tokens", "first"),
        ("post_concat", "summary", "first"),
        ("post_concat", "patch_tokens", "auto"),  # nothing is summarised
        ("unified", "summary", "auto"),
    ],
)
def test_the_summary_of_a_pretrained_model_is_its_first_token(
    mode: str, tokens: str, expected: str
) -> None:
    transformer = {"use_hf_backbone": True, "model_name_or_path": "x", "fusion_tokens": tokens}
    encoder = {"post_concat_layout": "token_sequence"} if mode == "post_concat" else {}
    given = newer(fusion_mode=mode, vis={"transformer": transformer}, encoder=encoder)
    config = load_config(given)
    assert config.nn.vis.transformer is not None
    assert config.nn.vis.transformer.summary_token == expected
    assert config.nn.vis.transformer.missing_processor == "unit_224"
    given["nn"]["vis"]["transformer"]["summary_token"] = "mean"
    own = load_config(given).nn.vis.transformer
    assert own is not None
    assert own.summary_token == "mean"


def test_native_models_and_float_networks_have_no_such_key() -> None:
    block = {"d_model": 256, "summary_token": "auto"}
    native = load_config(newer(fusion_mode="unified", vis={"transformer": {"d_model": 256}}))
    assert native == load_config(newer(fusion_mode="unified", vis={"transformer": block}))
    floats = {"no_image": True, "transformer": {"use_hf_backbone": True}}
    assert load_config(newer(vis=floats)).nn.vis.transformer.summary_token == "auto"


CONV_KEYS = {"use_impala_cnn": True, "impala_model_size": 2, "use_adaptive_maxpool": False}
PATCHES = {"transformer": {"d_model": 32}}


@pytest.mark.parametrize(
    "vis", [{}, {"cnn": None}, {"cnn": {}, "no_image": True}, PATCHES], ids=repr
)
def test_conv_keys_of_btr_without_a_stem(vis: dict[str, Any]) -> None:
    given = newer(vis=vis, fusion_mode="unified", encoder={"transformer": {"d_model": 32}})
    with pytest.warns(
        UnusedConfigWarning, match=r"btr\.use_impala_cnn: set, but not read"
    ) as found:
        config = load_config(given | {"btr": CONV_KEYS})
    assert len(found) == 1  # the two others have their default value
    reason = "the network has no image" if "no_image" in vis else "the file has no nn.vis.cnn;"
    assert f"not read, because {reason}" in str(found[0].message)
    assert config == load_config(given)
    with pytest.raises(ConfigError, match=r"btr\.impala_model_size: found 'a'"):
        load_config(given | {"btr": {"impala_model_size": "a"}})


def test_conv_keys_of_btr_with_a_stem() -> None:
    vis = {"cnn": {"impala_model_size": 1}}
    config = load_config(newer(vis=vis) | {"btr": CONV_KEYS | {"use_spectral_norm": True}})
    expected = {"use_impala_cnn": True, "impala_model_size": 1, "use_spectral_norm": True}
    cnn = config.nn.vis.cnn
    assert cnn is not None
    assert {key: getattr(cnn, key) for key in expected} == expected


def test_without_an_image() -> None:
    config = load_config(older(use_iqn_image_head=False))
    assert config.nn.vis.no_image
    assert iqn_blocks.route(config) == "classic"


# keys of `environment`, and the arguments of the statistics
STATISTICS: dict[str, tuple[dict[str, Any], tuple[int, int, int, float, float]]] = {
    "defaults": ({}, (5, 4, 40, 70.0, 700.0)),  # 7000 ms / (10 ms · 5) = 140 actions
    "one offset": ({"rl_action_offsets_ms": [0]}, (5, 4, 40, 70.0, 700.0)),
    # 7000 ms // 20 ms = 350 blocks; the steps of an action do not count then
    "two offsets": ({"rl_action_offsets_ms": [0, 10]}, (5, 4, 40, 175.0, 700.0)),
    # 7010 ms // 70 ms = 100
    "seven steps": (
        {"temporal_mini_race_duration_ms": 7010, "tm_engine_step_per_action": 7},
        (5, 4, 40, 50.0, 700.0),
    ),
    # 999 ms // 60 ms = 16
    "slow engine": (
        {"temporal_mini_race_duration_ms": 999, "ms_per_tm_engine_step": 20}
        | {"tm_engine_step_per_action": 3},
        (5, 4, 40, 8.0, 700.0),
    ),
    # 350 actions // 3
    "odd horizon": ({"temporal_mini_race_duration_ms": 350}, (5, 4, 40, 3.0, 700.0)),
    "no previous action": ({"n_prev_actions_in_inputs": 0}, (0, 4, 40, 70.0, 700.0)),
    "one previous action": ({"n_prev_actions_in_inputs": 1}, (1, 4, 40, 70.0, 700.0)),
    "no contact": ({"n_contact_material_physics_behavior_types": 0}, (5, 0, 40, 70.0, 700.0)),
    "few way-points": ({"n_zone_centers_in_inputs": 7}, (5, 4, 7, 70.0, 700.0)),
    "many way-points": ({"n_zone_centers_in_inputs": 43}, (5, 4, 43, 70.0, 700.0)),
    "finish": ({"margin_to_announce_finish_meters": 12.5}, (5, 4, 40, 70.0, 12.5)),
}


@pytest.mark.parametrize(("environment", "arguments"), STATISTICS.values(), ids=STATISTICS)
def test_float_statistics(environment: dict[str, Any], arguments: Any) -> None:
    config = load_config(newer() | {"environment": environment})
    expected = statistics(*arguments)
    assert config.float_input_dim == len(expected["float_inputs_mean"])
    assert config.float_inputs_mean == tuple(expected["float_inputs_mean"])
    assert config.float_inputs_std == tuple(expected["float_inputs_std"])
    assert config.n_actions_per_block == len(environment.get("rl_action_offsets_ms", [0]))


def test_a_file_without_an_environment() -> None:
    given = {key: value for key, value in newer().items() if key != "environment"}
    assert load_config(given) == load_config(newer() | {"environment": {}})


def test_way_points_without_statistics_are_said() -> None:
    given = {key: value for key, value in newer().items() if key != "state_normalization"}
    expected = statistics(25, 4, 40, 116.0, 700.0)
    for key, value in (("float_inputs_mean", 0.0), ("float_inputs_std", 1.0)):
        expected[key][-122:-2] = [value] * 120
    message = r"state_normalization: missing, .* mean 0 and standard deviation 1; add its waypoint_"
    for change in ({}, {"state_normalization": {}}, {"state_normalization": None}):
        with pytest.warns(ImportedConfigWarning, match=message) as found:
            config = load_config(given | change)
        assert found[0].filename == __file__
        assert config.float_inputs_mean == tuple(expected["float_inputs_mean"])
        assert config.float_inputs_std == tuple(expected["float_inputs_std"])
    given["environment"]["n_zone_centers_in_inputs"] = 0
    assert load_config(given).float_inputs_mean[-2:] == (700, 0)


def test_lists_that_the_system_makes_are_skipped() -> None:
    assert load_config(waypoints(float_inputs_mean=[], float_inputs_std=[])) == load_config(newer())


def test_statistics_as_arrays() -> None:
    arrays = {key: numpy.array(value) for key, value in WAYPOINTS.items()}
    counts = {"n_prev_actions_in_inputs": numpy.int64(25)}
    given = merge(newer(), {"environment": counts}) | {"state_normalization": arrays}
    assert load_config(given) == load_config(newer())


@pytest.mark.parametrize("algorithm", ["ppo", "grpo", "dpo"])
def test_a_file_for_another_algorithm(algorithm: str) -> None:
    given = merge(newer(), {"training": {"algorithm": algorithm}})
    with pytest.warns(ImportedConfigWarning, match="its weights fit that encoder alone") as found:
        config = load_config(given)
    assert str(found[0].message).startswith(f"training.algorithm: found '{algorithm}' (str);")
    assert len(found) == 1
    assert config == load_config(newer())
    assert load_config(merge(newer(), {"training": {"algorithm": "iqn"}})) == config


@pytest.mark.parametrize("blocks", ["", NEWER, ENVIRONMENT])
def test_a_file_for_pretraining(blocks: str, tmp_path: Path) -> None:
    path = tmp_path / "pretrain.yaml"
    path.write_text(
        "data_dir: frames\nepochs: 3\nrl_config_path: rl.yaml\nlightning: {devices: 1}\n" + blocks
    )
    with pytest.raises(ConfigError, match=r"pretrain\.yaml: found rl_config_path, a ") as error:
        load_config(path)
    assert "load the one that its rl_config_path names" in str(error.value)
    assert "\n" not in str(error.value)


def test_a_file_without_an_agent() -> None:
    with pytest.raises(ConfigError, match=r"^found none of the blocks nn, .* was trained with$"):
        load_config({"training": {"run_name": "a"}})


def test_a_size_without_an_image() -> None:
    for given in (
        older(w_downsized=64, h_downsized=48, use_iqn_image_head=False),
        newer(vis={"no_image": True, "image_size": {"w": 64, "h": 48}}),
    ):
        config = load_config(given)
        assert config.nn.vis.no_image
        iqn_blocks.build(config, strict=True)
    with pytest.raises(ConfigError, match=r"nn\.vis\.image_size\.width: found 'a'"):
        load_config(newer(vis={"no_image": True, "image_size": {"w": "a"}}))


@pytest.mark.parametrize("mode", ["none", "unified", "post_concat"])
def test_tokens_of_single_features(mode: str) -> None:
    tokens = {"float_token_layout": "per_feature"}
    message = (
        "float_token_layout: found per_feature with nn.encoder.post_concat_layout fused_vector"
    )
    with pytest.raises(ConfigError, match=message):
        load_config(newer(fusion_mode=mode, encoder=tokens))
    tokens |= {"post_concat_layout": "token_sequence", "float_token_input": "mlp_hidden"}
    with pytest.raises(ConfigError, match=r"float_token_input mlp_hidden; accepted: .* with raw;"):
        load_config(newer(fusion_mode=mode, encoder=tokens))
    tokens |= {"float_token_input": "raw"}
    assert load_config(newer(fusion_mode=mode, encoder=tokens)).nn.fusion_mode == mode


def test_pre_tau_with_mlp_slots_is_post_tau() -> None:
    config = load_config(newer(decoder={"shared_input": "pre_tau", "value": {"mlp": {}}}))
    assert config.nn.decoder.shared_input == "post_tau"


@pytest.mark.parametrize("name", ["transformer", "transformer_encoder"])
def test_pre_tau_with_a_transformer_slot_is_an_error(name: str) -> None:
    given = newer(decoder={"shared_input": "pre_tau", "advantage": {name: {"d_model": 32}}})
    with pytest.raises(ConfigError, match=r"nn\.decoder\.shared_input: .*pre_tau"):
        load_config(given)


def test_the_clamp_may_be_given() -> None:
    btr = {"use_munchausen": True, "munchausen_clamp": "scaled"}
    assert load_config(older() | {"btr": btr}).btr.munchausen_clamp == "scaled"
    assert load_config(older() | {"btr": {}}).btr.munchausen_clamp == "scaled"


def test_the_same_key_in_both_places() -> None:
    both = newer(fusion_mode="unified", encoder={"fusion_mode": "unified"})
    assert load_config(both).nn.fusion_mode == "unified"


def test_the_network_builds() -> None:
    given = older(w_downsized=34, h_downsized=34, float_hidden_dim=8, dense_hidden_dimension=16)
    net = iqn_blocks.build(load_config(given), strict=True)
    assert net.q_values(*net.example_inputs(2)).shape == (2, 3, 4)


def environment(**keys: Any) -> Any:
    return merge(newer(), {"environment": keys})


def waypoints(**keys: Any) -> Any:
    return newer() | {"state_normalization": {**WAYPOINTS, **keys}}


FAULTS = {
    "misspelled block": (
        newer() | {"enviroment": {}},
        r"enviroment: unknown block; did you mean env",
    ),
    "unknown block": (newer() | {"zzz": {}}, r"zzz: unknown block; known are nn, neural_network"),
    "key of ours at the top": (newer() | {"n_actions": 4}, r"n_actions: unknown block"),
    "misspelled flat key": (older(iqn_embeding_dimension=64), r"neural_network\.iqn_embeding_"),
    "nearest flat key": (older(use_image_head=True), r"did you mean use_iqn_image_head\?"),
    "flat key in nn": (newer(w_downsized=64), r"nn\.w_downsized: unknown key"),
    "misspelled nn key": (newer(iqn={"embeding_dimension": 2}), r"nn\.iqn\.embeding_dimension"),
    "misspelled btr key": (newer() | {"btr": {"use_noisy": True}}, r"btr\.use_noisy: unknown key"),
    "both forms": (newer() | {"neural_network": {}}, r"nn: given beside neural_network"),
    "nn is no block": (newer() | {"nn": 3}, r"nn: found 3 \(int\); accepted: a block"),
    "flat value": (older(iqn_n="8"), r"neural_network\.iqn_n: found '8' \(str\)"),
    "flat flag": (older(use_iqn_image_head=1), r"neural_network\.use_iqn_image_head: found 1"),
    "flat size": (older(w_downsized=0), r"neural_network\.w_downsized: found 0 \(int\)"),
    "no actions": (newer() | {"inputs": {"actions": []}}, r"inputs\.actions: found \[\] \(list\)"),
    "actions missing": (newer() | {"inputs": {}}, r"inputs\.actions: missing"),
    "no inputs": ({k: v for k, v in newer().items() if k != "inputs"}, r"inputs: missing"),
    "environment is a list": (
        newer() | {"environment": [1]},
        r"environment: found \[1\] \(list\); acc",
    ),
    "size as text": (
        environment(n_prev_actions_in_inputs="5"),
        r"environment\.n_prev_actions_in_inputs: found '5' \(str\); accepted: a whole number fr",
    ),
    "size far too large": (
        environment(n_zone_centers_in_inputs=10**9),
        r"n_zone_centers_in_inputs: found 1000000000 \(int\); accepted: .* 65536",
    ),
    "no time": (environment(ms_per_tm_engine_step=0), r"ms_per_tm_engine_step: found 0 \(int\);"),
    "no horizon": (
        environment(temporal_mini_race_duration_ms=59),
        r"temporal_mini_race_duration_ms: found 1 actions of 30 ms in it; accepted: 2 or more",
    ),
    "no margin": (
        environment(margin_to_announce_finish_meters=0.0),
        r"finish_meters: found 0\.0 \(float\); accepted: a finite number above 0",
    ),
    "far offsets": (
        environment(rl_action_offsets_ms=[0, 20]),
        r"rl_action_offsets_ms: found \[0, 20\] \(list\); accepted: a list of 0, 10, 20",
    ),
    "offset that is a flag": (
        environment(rl_action_offsets_ms=[False]),
        r"rl_action_offsets_ms: found \[False\] \(list\); accepted: a list of 0, 10, 20",
    ),
    "broken offsets": (
        environment(rl_action_offsets_ms=[0.0, 10.0]),
        r"rl_action_offsets_ms: found \[0\.0, 10\.0\] \(list\); accepted: a list of 0, 10, 20",
    ),
    "late offset": (environment(rl_action_offsets_ms=[10]), r"rl_action_offsets_ms: found \[10\]"),
    "misspelled duration": (
        environment(temporal_mini_race_durations_ms=9),
        r"durations_ms: unknown key; did you mean temporal_mini_race_duration_ms\?",
    ),
    "statistics are a list": (
        newer() | {"state_normalization": [1]},
        r"state_normalization: found \[1\] \(list\); accepted: a block of keys",
    ),
    "misspelled list": (
        newer() | {"state_normalization": {"waypoint_mean_40": [0.0] * 120}},
        r"^state_normalization\.waypoint_mean_40: unknown key; did you mean waypoint_mean_40cp\?$",
    ),
    "unknown list": (
        waypoints(zzz=[0.0]),
        r"^state_normalization\.zzz: unknown key; known are waypoint_mean_40cp, waypoint_std_40cp$",
    ),
    "one list of two": (
        newer() | {"state_normalization": {"waypoint_mean_40cp": [0.0] * 120}},
        r"state_normalization\.waypoint_std_40cp: found null; accepted: a list of 120 numbers",
    ),
    "short list": (
        waypoints(waypoint_mean_40cp=[0.0] * 119),
        r"waypoint_mean_40cp: found 119 numbers; accepted: 120 or more, .*centers_in_inputs = 40",
    ),
    "long list and more way-points": (
        waypoints(waypoint_std_40cp=[1.0] * 123)
        | {"environment": {"n_zone_centers_in_inputs": 41}},
        r"waypoint_std_40cp: found 123 numbers; accepted: 120, with",
    ),
    "statistics as text": (
        waypoints(waypoint_mean_40cp=[0.0] * 5 + ["1e-3"] * 115),
        r"waypoint_mean_40cp\[5\]: found '1e-3' \(str\); accepted: a finite number; write 1",
    ),
    "no deviation": (
        waypoints(waypoint_std_40cp=[0.0] * 120),
        r"waypoint_std_40cp\[0\]: found 0\.0 \(float\); accepted: a finite number above 0",
    ),
    "infinite statistics": (
        waypoints(waypoint_std_40cp=[float("inf")] * 120),
        r"waypoint_std_40cp\[0\]: found inf \(float\); accepted: a finite number above 0",
    ),
    "no offsets": (
        read(ENVIRONMENT, TRAINER, environment={"rl_action_offsets_ms": []}),
        r"environment\.rl_action_offsets_ms: found \[\] \(list\); accepted: a list of 0, 10, 20",
    ),
    "misspelled offsets": (
        read(ENVIRONMENT.replace("offsets", "offset"), TRAINER),
        r"environment\.rl_action_offset_ms: unknown key; did you mean rl_action_offsets_ms\?",
    ),
    "conflicting fusion_mode": (
        newer(fusion_mode="none", encoder={"fusion_mode": "unified"}),
        r"nn\.encoder\.fusion_mode: given beside nn\.fusion_mode",
    ),
    "conflicting slots": (
        newer(decoder={"value": {"transformer": {}, "transformer_encoder": {"d_model": 8}}}),
        r"nn\.decoder\.value\.transformer_encoder: given beside nn\.decoder\.value\.transformer",
    ),
}


@pytest.mark.parametrize("given, message", FAULTS.values(), ids=FAULTS)
def test_faults(given: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_config(given)


def test_faults_come_together() -> None:
    given = older(iqn_m=1) | {"enviroment": {}, "inputs": {}}
    with pytest.raises(ConfigError, match="3 faults") as error:
        load_config(given)
    for part in ("neural_network.iqn_m", "enviroment", "inputs.actions"):
        assert part in str(error.value)


def test_a_file_is_named_in_its_errors(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(ENVIRONMENT + TRAINER + "nn: {fusion_mod: none}")
    with pytest.raises(ConfigError, match=r"mine\.yaml: nn\.fusion_mod: unknown key"):
        load_config(path)
    with pytest.raises(ConfigError, match=r"absent\.yaml: cannot be read"):
        load_config(tmp_path / "absent.yaml")


def test_a_block_that_holds_itself() -> None:
    nn: dict[str, Any] = {}
    nn["vis"] = nn
    with pytest.raises(ConfigError, match="nn: found data that holds itself"):
        load_config(newer() | {"nn": nn})
