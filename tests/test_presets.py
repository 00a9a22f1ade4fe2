"""Presets: built without a warning, counted against their sources, named and overridden."""

from __future__ import annotations

import inspect

import pytest
import torch

import iqn_blocks
from iqn_blocks import Config, ConfigError, list_presets, presets
from iqn_blocks.config import parse
from iqn_blocks.presets import list_presets as listed

GIVEN = {"minatar": {"in_channels": 6}, "simba_iqn": {"float_input_dim": 17}}


def config_of(name: str, **keys: object) -> Config:
    arguments = {"n_actions": 6, **GIVEN.get(name, {}), **keys}
    config: Config = getattr(presets, name)(**arguments)
    return config


def size(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def linear(before: int, after: int) -> int:
    return before * after + after


def conv(before: int, after: int, kernel: int) -> int:
    return before * after * kernel**2 + after


def test_the_list_is_what_the_module_has() -> None:
    functions = {
        name
        for name, value in vars(presets).items()
        if inspect.isfunction(value) and value.__module__ == presets.__name__
    }
    assert set(list_presets()) == {name for name in functions if not name.startswith("_")}
    assert {"btr", "iqn", "linesight", "minatar"} <= set(list_presets())
    assert listed() == list_presets()


@pytest.mark.parametrize("name", list_presets())
def test_every_key_of_a_preset_is_read(name: str) -> None:
    net = iqn_blocks.build(config_of(name), strict=True)
    inputs = net.example_inputs(2)
    values = net.q_values(*inputs)
    assert getattr(values, "q", values).shape == (2, 6)  # named where memory is too


@pytest.mark.parametrize("name", list_presets())
def test_a_preset_by_its_name(name: str, tmp_path) -> None:
    config = config_of(name)
    own = {
        "n_actions": 6,
        "float_input_dim": config.float_input_dim,
        "nn": {"vis": {"in_channels": config.nn.vis.in_channels}},
    }
    if config.nn.vis.no_image:
        del own["nn"]
    assert parse({"preset": name, **own}) == config
    path = tmp_path / "mine.yaml"
    path.write_text(f"preset: {name}\n" + config.to_yaml())
    assert iqn_blocks.load_config(path) == config


def test_parameters_of_iqn() -> None:
    """The layers of arXiv:1806.06923 for 6 actions: DQN's, and 64 cosines to 3136 features."""
    net = iqn_blocks.build(presets.iqn(6))
    stem = conv(4, 32, 8) + conv(32, 64, 4) + conv(64, 64, 3)
    features = 64 * 7 * 7
    published = stem + linear(64, features) + linear(features, 512) + linear(512, 6)
    assert published == 1_891_046
    assert size(net) == published


def test_parameters_of_fqf() -> None:
    """The layers of IQN, and a Linear from 3136 features to 32 fractions."""
    published = size(iqn_blocks.build(presets.iqn(6))) + linear(64 * 7 * 7, 32)
    assert published == 1_991_430
    assert size(iqn_blocks.build(presets.fqf(6))) == published


def test_parameters_of_btr() -> None:
    """Its program: IMPALA of 32, 64, 64, pooled to 6×6; each noisy Linear has a σ for each μ."""
    net = iqn_blocks.build(presets.btr(6))
    stages = sum(
        conv(before, after, 3) + 4 * conv(after, after, 3)
        for before, after in [(4, 32), (32, 64), (64, 64)]
    )
    features = 64 * 6 * 6
    heads = 2 * (2 * linear(features, 512) + linear(512, 6) + linear(512, 1))
    assert size(net) == stages + linear(64, features) + heads


def test_parameters_of_linesight() -> None:
    """Its program: a CNN with 5632 features, 184 floats, 12 actions."""
    net = iqn_blocks.build(presets.linesight())
    assert net.encoder.stem.out_dim == 5632
    stem = conv(1, 16, 4) + conv(16, 32, 4) + conv(32, 64, 3) + conv(64, 32, 3)
    floats, width = linear(184, 256) + linear(256, 256), 5632 + 256
    heads = 2 * linear(width, 512) + linear(512, 12) + linear(512, 1)
    assert size(net) == stem + floats + linear(64, width) + heads


def test_parameters_of_minatar() -> None:
    """The DQN of arXiv:1903.03176: its convolution, 1024 features, 128 hidden units."""
    net = iqn_blocks.build(presets.minatar(6, in_channels=4))
    published = conv(4, 16, 3) + linear(1024, 128) + linear(128, 6)
    assert size(net.encoder) + size(net.advantage_head) == published


def test_parameters_of_impoola_iqn() -> None:
    """IMPALA of 32, 64, 64, and 64 features whatever the image."""
    net = iqn_blocks.build(presets.impoola_iqn(15))
    stages = sum(
        conv(before, after, 3) + 4 * conv(after, after, 3)
        for before, after in [(3, 32), (32, 64), (64, 64)]
    )
    assert size(net) == stages + linear(64, 64) + linear(64, 256) + linear(256, 15)
    larger = presets.impoola_iqn(15, nn={"vis": {"image_size": {"width": 84, "height": 84}}})
    assert size(iqn_blocks.build(larger)) == size(net)


def test_parameters_of_recurrent_iqn() -> None:
    """DQN's stem, an LSTM of 512 with a bias of the state and one of the memory, dueling heads."""
    net = iqn_blocks.build(presets.recurrent_iqn(6))
    stem = conv(4, 32, 8) + conv(32, 64, 4) + conv(64, 64, 3)
    lstm = 4 * (linear(64 * 7 * 7, 512) + linear(512, 512))
    heads = 2 * linear(512, 512) + linear(512, 6) + linear(512, 1)
    assert size(net) == stem + lstm + linear(64, 512) + heads


def test_parameters_of_simba_iqn() -> None:
    """SimBa of width 512: a LayerNorm and two Linear layers a block, 4 times as wide inside."""
    net = iqn_blocks.build(presets.simba_iqn(6, 17))
    block = 2 * 512 + linear(512, 2048) + linear(2048, 512)
    assert size(net.encoder) == linear(17, 512) + 2 * block + 2 * 512


def test_keys_are_laid_over_a_preset() -> None:
    base, config = presets.btr(6), presets.btr(6, float_input_dim=20, nn={"iqn": {"n": 16}})
    assert (config.float_input_dim, config.nn.iqn.n) == (20, 16)
    assert config.replace(float_input_dim=0, nn={"iqn": {"n": 8}}) == base
    assert presets.btr(6, 1, nn={"vis": {"image_size": {"w": 40}}}).nn.vis.image_size.width == 40
    in_channels = presets.btr(6, nn={"vis": {"in_channels": 2}}).nn.vis.in_channels
    assert in_channels == 2


def test_a_chosen_part_takes_the_place_of_the_presets() -> None:
    config = presets.btr(6, nn={"vis": {"hadamax": {}}})
    assert config.nn.vis.cnn is None
    assert config.nn.vis.hadamax is not None
    assert config.nn.vis.image_size.width == 84
    assert presets.iqn(6, nn={"vis": "impoola"}).nn.vis.impoola is not None
    head = {"simba": {"hidden_dim": 32}}
    decoder = presets.btr(6, nn={"decoder": {"value": head}}).nn.decoder
    assert [part.name for part in decoder.value.parts] == ["simba"]
    assert decoder.advantage.mlp.hidden_dim == 512
    floats = presets.simba_iqn(6, 2, nn={"float": {"mlp": {"hidden_dim": 32}}}).nn.float
    assert floats.parts == () and floats.mlp.hidden_dim == 32


def test_options_of_the_same_part_are_merged() -> None:
    config = presets.btr(6, nn={"decoder": {"value": {"mlp": {"layers": 3}}, "advantage": None}})
    value = config.nn.decoder.value.mlp
    assert (value.n_hidden_layers, value.hidden_dim) == (3, 512)
    assert config.nn.decoder.advantage.mlp.hidden_dim == 512
    film = config.replace(nn={"iqn": {"mixer": {"film": {"phi_dim": 9}}}})
    assert film.nn.iqn.mixer.phi_dim == 9
    assert film.replace(nn={"iqn": {"mixer": {"film": {}}}}) == film
    assert film.replace(nn={"iqn": {"mixer": "hadamard"}}) == config


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (
            {"preset": "btrr"},
            r"^preset: found 'btrr' \(str\); accepted: btr, .*; did you mean btr\?",
        ),
        ({"preset": 3}, r"^preset: found 3 \(int\); accepted: btr, fqf, impoola_iqn, iqn, "),
        ({"preset": "iqn"}, r"^n_actions: missing; accepted: a whole number .*; add this key$"),
        (
            {"preset": "iqn", "n_actions": 0, "nn": {"iqn": {"m": 3}}},
            r"- n_actions: found 0 .*\n- nn\.iqn\.m: unknown key",
        ),
        (
            {"preset": "iqn", "n_actions": 1, "nn": {"decoder": {"value": {"mlp": {"width": 3}}}}},
            r"^nn\.decoder\.value\.mlp\.width: unknown option",
        ),
        ({"preset": "iqn", "n_actions": 1, "nn": 3}, r"^nn: found 3 .*; accepted: a block"),
    ],
)
def test_faults_name_the_users_keys(keys, message) -> None:
    with pytest.raises(ConfigError, match=message):
        parse(keys)


def test_faults_in_a_file_with_a_preset(tmp_path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("preset: btr\nn_actions: 0\n")
    with pytest.raises(ConfigError, match=r"mine\.yaml: n_actions: found 0"):
        iqn_blocks.load_config(path)


def test_replace_leaves_the_first_as_it_is() -> None:
    config = presets.iqn(6)
    other = config.replace(n_actions=3, nn={"vis": {"freeze": True}})
    assert (config.n_actions, config.nn.vis.freeze) == (6, False)
    assert (other.n_actions, other.nn.vis.freeze) == (3, True)
    assert config.replace() == config
    assert config.nn.iqn.replace(n=4).n == 4
    with pytest.raises(ConfigError, match=r"nn\.iqn\.nn: unknown key; did you mean n"):
        config.replace(nn={"iqn": {"nn": 3}})


@pytest.mark.parametrize("name", list_presets())
def test_yaml_reads_back_as_equal(name, tmp_path) -> None:
    config = config_of(name, float_inputs_mean=None, nn={"training": {"π": [1e-9, "1e-9", None]}})
    path = tmp_path / "written.yaml"
    path.write_text(config.to_yaml(), encoding="utf-8")
    assert iqn_blocks.load_config(path) == config
