"""Checkpoints of trackmania_rl on disk: whole networks, and encoders to start from."""

from __future__ import annotations

import os
import pickle
import shutil
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
import yaml
from torch import Tensor

import iqn_blocks
from iqn_blocks import from_pretrained
from iqn_blocks.errors import CheckpointError, ConfigError, ImportedConfigWarning
from iqn_blocks.interop import trackmania_rl
from iqn_blocks.interop.trackmania_rl.files import read_fusion_folder
from tests.checkpoint.networks import to_version_1
from tests.configs import merge, tiny

THEIRS: dict[str, Any] = {
    "environment": {
        "n_zone_centers_in_inputs": 1,
        "n_prev_actions_in_inputs": 0,
        "n_contact_material_physics_behavior_types": 0,
    },
    "state_normalization": {
        "waypoint_mean_40cp": [-4.0, 0.5, 30.0],
        "waypoint_std_40cp": [7.0, 2.0, 11.0],
    },
    "inputs": {"actions": [{"left": True}, {"right": True}, {"brake": True}]},
    "training": {"run_name": "mine"},
    "neural_network": {
        "w_downsized": 36,
        "h_downsized": 34,
        "float_hidden_dim": 8,
        "dense_hidden_dimension": 16,
        "iqn_embedding_dimension": 6,
    },
}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A folder as that trainer leaves it, with the network it holds beside it."""
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "config.yaml").write_text(yaml.safe_dump(THEIRS))
    net = iqn_blocks.build(trackmania_rl.load_config(THEIRS))
    torch.nn.init.uniform_(net.encoder.float_normalization.std, 1, 2)
    state = {f"_orig_mod.{k}": v for k, v in trackmania_rl.to_state_dict(net).items()}
    torch.save(state, folder / "weights1.torch")
    net.save_pretrained(tmp_path / "ours")
    return folder


def original(run: Path) -> dict[str, Tensor]:
    return from_pretrained(run.with_name("ours")).state_dict()


def assert_same(found: dict[str, Tensor], expected: dict[str, Tensor], prefix: str = "") -> None:
    assert found.keys() == expected.keys()
    names = [name for name in expected if name.startswith(prefix)]
    assert names
    for name in names:
        assert torch.equal(found[name], expected[name]), name


def test_a_checkpoint_with_its_configuration(run: Path) -> None:
    config = trackmania_rl.load_config(THEIRS)
    for path in (run, str(run), run / "weights1.torch"):
        net = trackmania_rl.load_checkpoint(path, run / "config.yaml")
        assert_same(net.state_dict(), original(run))
    for given in (config, config.to_dict(), THEIRS, str(run / "config.yaml")):
        assert trackmania_rl.load_checkpoint(run, given).config == config
    ours = run / "ours.yaml"
    ours.write_text(yaml.safe_dump(config.to_dict()))
    assert trackmania_rl.load_checkpoint(run, ours).config == config


def without_statistics(run: Path) -> None:
    """Make the run one of those whose state dict has no float statistics."""
    state = torch.load(run / "weights1.torch", weights_only=True)
    kept = {name: value for name, value in state.items() if "float_inputs" not in name}
    assert len(kept) == len(state) - 2
    torch.save(kept, run / "weights1.torch")


def test_statistics_of_the_yaml_count_where_the_file_has_none(run: Path) -> None:
    assert original(run)["encoder.float_normalization.std"].max() <= 2  # the file's own win
    without_statistics(run)
    config = trackmania_rl.load_config(THEIRS)
    net = trackmania_rl.load_checkpoint(run, run / "config.yaml")
    stats = net.encoder.float_normalization
    assert stats.mean.tolist() == pytest.approx(config.float_inputs_mean)
    assert stats.std.tolist() == pytest.approx(config.float_inputs_std)
    state = trackmania_rl.to_state_dict(net, float_stats=False)
    assert not any("float_inputs" in name for name in state)
    torch.save(state, run / "weights1.torch")
    assert_same(trackmania_rl.load_checkpoint(run, THEIRS).state_dict(), net.state_dict())

    start = merge(config.to_dict(), {"nn": {"init_from_pretrained": str(run)}})
    assert_same(iqn_blocks.build(start).state_dict(), net.state_dict(), "encoder.")


def test_statistics_that_the_yaml_lacks(run: Path) -> None:
    """They are missed only where the weights have none either."""
    lacking = {key: value for key, value in THEIRS.items() if key != "state_normalization"}
    net = trackmania_rl.load_checkpoint(run, lacking)  # a warning would be an error
    assert_same(net.state_dict(), original(run))
    without_statistics(run)
    with pytest.warns(ImportedConfigWarning, match="state_normalization: missing") as found:
        trackmania_rl.load_checkpoint(run, lacking)
    assert [warning.filename for warning in found] == [__file__]


def test_statistics_that_are_nowhere(run: Path) -> None:
    without_statistics(run)
    nowhere = merge(
        trackmania_rl.load_config(THEIRS).to_dict(),
        {"float_inputs_mean": None, "float_inputs_std": None},
    )
    with pytest.raises(CheckpointError, match=r"missing: float_inputs_mean \(if the file keeps no"):
        trackmania_rl.load_checkpoint(run, nowhere)
    half = torch.load(run / "weights1.torch", weights_only=True)
    torch.save(half | {"float_inputs_mean": torch.zeros(31)}, run / "weights1.torch")
    with pytest.raises(CheckpointError, match="missing: float_inputs_std"):
        trackmania_rl.load_checkpoint(run, THEIRS)


def test_init_from_pretrained_is_not_followed_by_load_checkpoint(run: Path) -> None:
    given = merge(
        trackmania_rl.load_config(THEIRS).to_dict(), {"nn": {"init_from_pretrained": "x"}}
    )
    assert_same(trackmania_rl.load_checkpoint(run, given).state_dict(), original(run))


def test_a_checkpoint_that_does_not_fit(run: Path) -> None:
    given = merge(THEIRS, {"neural_network": {"float_hidden_dim": 9}})
    with pytest.raises(CheckpointError, match=r"run: .*\n.*expected shape \(9, 31\)") as error:
        trackmania_rl.load_checkpoint(run, given)
    assert "float_feature_extractor.0.weight" in str(error.value)
    with pytest.raises(ConfigError, match=r"config\.yaml: zzz: unknown block"):
        (run / "config.yaml").write_text(yaml.safe_dump(THEIRS | {"zzz": 1}))
        trackmania_rl.load_checkpoint(run, run / "config.yaml")


class Payload:
    """Pickles to a call that leaves a file behind."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


def test_nothing_in_a_file_is_executed(tmp_path: Path) -> None:
    trap, file = tmp_path / "trap", tmp_path / "weights1.torch"
    for write in (torch.save, lambda value, path: path.write_bytes(pickle.dumps(value))):
        write({"A_head.0.weight": Payload(trap)}, file)
        with pytest.raises(CheckpointError, match="holds something else than tensors") as error:
            trackmania_rl.load_checkpoint(file, THEIRS)
        assert not trap.exists()
        assert "weights_only" not in str(error.value)
        assert error.value.__cause__ is None


def test_damaged_files(run: Path) -> None:
    file = run / "weights1.torch"
    content = file.read_bytes()
    for size in range(0, len(content), len(content) // 40):
        file.write_bytes(content[:size])
        with pytest.raises(CheckpointError, match=r"weights1\.torch: is damaged"):
            trackmania_rl.load_checkpoint(run, THEIRS)
    torch.save([torch.zeros(1)], file)
    with pytest.raises(CheckpointError, match="expected a state dict, found list"):
        trackmania_rl.load_checkpoint(run, THEIRS)
    file.unlink()
    with pytest.raises(CheckpointError, match=r"weights1\.torch: cannot be read: No such file"):
        trackmania_rl.load_checkpoint(run, THEIRS)


@pytest.mark.parametrize("name", ["run", "run/weights1.torch", "ours"])
def test_an_encoder_starts_from_a_checkpoint(run: Path, name: str) -> None:
    cfg = trackmania_rl.load_config(THEIRS).to_dict()
    path = str(run.parent / name)
    net = iqn_blocks.build(merge(cfg, {"nn": {"init_from_pretrained": path}}), strict=True)
    expected = original(run)
    assert_same(net.state_dict(), expected, "encoder.")
    assert not torch.equal(
        net.tau_embedding.projection.weight, expected["tau_embedding.projection.weight"]
    )
    assert net.config.nn.init_from_pretrained == path


def test_the_heads_may_differ_and_a_frozen_encoder_stays_frozen(run: Path) -> None:
    cfg = merge(
        trackmania_rl.load_config(THEIRS).to_dict(),
        {
            "n_actions": 7,
            "nn": {
                "init_from_pretrained": str(run),
                "vis": {"freeze": True},
                "decoder": {"dense_hidden_dimension": 64},
            },
        },
    )
    net = iqn_blocks.build(cfg)
    found = {name: value for name, value in net.state_dict().items() if name.startswith("encoder.")}
    for name, value in found.items():
        assert torch.equal(value, original(run)[name])
    assert not any(p.requires_grad for p in net.encoder.stem.parameters())


def test_a_saved_network_needs_no_checkpoint_to_start_from(run: Path, tmp_path: Path) -> None:
    cfg = merge(
        trackmania_rl.load_config(THEIRS).to_dict(), {"nn": {"init_from_pretrained": str(run)}}
    )
    net = iqn_blocks.build(cfg)
    net.save_pretrained(tmp_path / "saved")
    shutil.rmtree(run)
    again = from_pretrained(tmp_path / "saved")
    assert again.config == net.config
    assert_same(again.state_dict(), net.state_dict())


def _wrong_size(run: Path) -> tuple[str, str]:
    torch.save({"float_inputs_mean": torch.zeros(3)}, run / "weights1.torch")
    return str(run), r"missing: img_head\.0\.weight[\s\S]*float_inputs_mean: expected shape"


def _absent(run: Path) -> tuple[str, str]:
    return str(run / "nowhere"), "there is no such file or folder"


def _empty_folder(run: Path) -> tuple[str, str]:
    (run / "empty").mkdir()
    return str(run / "empty"), "found neither config.json"


def _damaged(run: Path) -> tuple[str, str]:
    file = run.with_name("ours") / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1])
    return str(run.with_name("ours")), "model.safetensors: is damaged"


def _damaged_config(run: Path) -> tuple[str, str]:
    to_version_1(run.with_name("ours"))
    (run.with_name("ours") / "config.json").write_bytes(b"{")
    return str(run.with_name("ours")), r"config\.json: is not JSON"


def _pipes(run: Path) -> tuple[str, str]:
    for name in ("model.safetensors", "config.json"):
        (run.with_name("ours") / name).unlink()
        os.mkfifo(run.with_name("ours") / name)
    return str(run.with_name("ours")), r"model\.safetensors: is not a file"


def _other_network(run: Path) -> tuple[str, str]:
    iqn_blocks.build(tiny()).save_pretrained(run.with_name("other"))
    return str(run.with_name("other")), r"float_normalization\.mean: expected shape \(31,\), found"


@pytest.mark.parametrize(
    "spoil",
    [_wrong_size, _absent, _empty_folder, _damaged, _damaged_config, _other_network, _pipes],
)
def test_a_start_that_does_not_exist_or_fit(run: Path, spoil: Any) -> None:
    cfg = trackmania_rl.load_config(THEIRS).to_dict()
    path, message = spoil(run)
    with pytest.raises(CheckpointError, match=message) as error:
        iqn_blocks.build(merge(cfg, {"nn": {"init_from_pretrained": path}}))
    assert str(error.value).startswith("nn.init_from_pretrained: ")
    assert path in str(error.value)


def test_folders_of_fusion_policies(tmp_path: Path) -> None:
    state = {"policy.img_head.0.weight": torch.ones(2), "policy.trunk.0.weight": torch.zeros(2)}
    safetensors.torch.save_file(state, tmp_path / "model.safetensors")
    found = read_fusion_folder(tmp_path)
    assert_same(found, {"fusion.img_head.0.weight": torch.ones(2)})
    safetensors.torch.save_file({"x": torch.ones(2)}, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"names start with 'policy\.', found x"):
        read_fusion_folder(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"no")
    with pytest.raises(CheckpointError, match="is not a safetensors file"):
        read_fusion_folder(tmp_path)
