"""Folders: the same network comes back, whatever it is and however it was saved."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import nn
from torch.distributed.fsdp import fully_shard

import iqn_blocks
from iqn_blocks import CheckpointError
from tests import compare, grid
from tests.checkpoint.networks import (
    CONFIG,
    WEIGHTS,
    assert_same,
    build,
    change_settings,
    rewrite,
    to_version_1,
)
from tests.configs import tiny, tiny_btr, tiny_transformer
from tests.registration import forget_later

CLASSIC = grid.classic_grid()
SAMPLE = list(CLASSIC)[::17]


def round_trip(net, folder, **options):
    net.save_pretrained(folder)
    return iqn_blocks.from_pretrained(folder, **options)


# The same network, bit for bit


@pytest.mark.parametrize("name", SAMPLE)
def test_every_structure_comes_back(name, tmp_path):
    torch.manual_seed(0)
    net = iqn_blocks.build(CLASSIC[name])
    compare.randomize(net, torch.Generator().manual_seed(1))
    assert_same(round_trip(net, tmp_path), net)


@pytest.mark.slow
def test_every_structure_of_the_grid_comes_back(tmp_path):
    for config in CLASSIC.values():
        net = iqn_blocks.build(config)
        compare.randomize(net, torch.Generator().manual_seed(1))
        assert_same(round_trip(net, tmp_path), net)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_dtype_comes_back(dtype, tmp_path):
    net = build(tiny_btr()).to(dtype)
    loaded = round_trip(net, tmp_path)
    assert loaded.tau_embedding.projection.weight.dtype == dtype
    assert_same(loaded, net)


def test_mixed_dtypes_come_back(tmp_path):
    net = build(tiny())
    net.encoder.float_mlp.bfloat16()
    loaded = round_trip(net, tmp_path)
    assert loaded.encoder.float_mlp.layers[0].linear.weight.dtype == torch.bfloat16
    assert loaded.encoder.stem.convs[0].weight.dtype == torch.float32
    assert [p.dtype for p in loaded.parameters()] == [p.dtype for p in net.parameters()]


def test_a_network_without_values_is_refused(tmp_path):
    net = build(tiny()).to("meta")
    with pytest.raises(ValueError, match=r"meta device.*to_empty"):
        net.save_pretrained(tmp_path / "net")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("training", [True, False])
def test_mode_comes_back(training, tmp_path):
    net = build(tiny_btr()).train(training)
    loaded = round_trip(net, tmp_path)
    assert all(module.training == training for module in loaded.modules())
    assert_same(loaded, net)


def test_state_of_training_comes_back(tmp_path):
    """Statistics, noise, and the vectors of spectral normalisation after some steps."""
    net = build(tiny_btr())
    net.set_float_stats([1.0, 2, 3, 4, 5], [0.5] * 5)
    optimizer = torch.optim.SGD(net.parameters(), 1e-2)
    for _ in range(3):
        net.reset_noise()
        net(*net.example_inputs(4), 4)[0].square().mean().backward()
        optimizer.step()
    loaded = round_trip(net, tmp_path)
    assert loaded.encoder.float_normalization.mean.tolist() == [1, 2, 3, 4, 5]
    assert loaded.advantage_head.hidden[0].linear.epsilon_in.any()
    assert_same(loaded, net)


def test_freeze_flags_come_from_the_config(tmp_path):
    net = build(tiny(nn={"vis": {"freeze": True}, "decoder": {"value": {"freeze": True}}}))
    loaded = round_trip(net, tmp_path)
    frozen = {name for name, p in loaded.named_parameters() if not p.requires_grad}
    assert frozen == {name for name, p in net.named_parameters() if not p.requires_grad}
    assert any(name.startswith("encoder.stem") for name in frozen)
    assert any(name.startswith("value_head") for name in frozen)
    assert not any(name.startswith("advantage_head") for name in frozen)


def test_channels_last_values_come_back(tmp_path):
    net = build(tiny_btr()).to(memory_format=torch.channels_last)
    loaded = round_trip(net, tmp_path)
    assert_same(loaded, net)


def test_loading_draws_no_random_numbers(tmp_path):
    build(tiny_btr()).save_pretrained(tmp_path)
    before = torch.get_rng_state()
    iqn_blocks.from_pretrained(tmp_path)
    assert torch.equal(torch.get_rng_state(), before)


def test_other_defaults_change_nothing(tmp_path):
    net = build(tiny_btr())
    net.save_pretrained(tmp_path)
    torch.set_default_dtype(torch.float64)
    try:
        with torch.device("meta"):
            loaded = iqn_blocks.from_pretrained(tmp_path)
    finally:
        torch.set_default_dtype(torch.float32)
    assert_same(loaded, net)


def test_loaded_network_trains(tmp_path):
    loaded = round_trip(build(tiny()), tmp_path)
    loaded(*loaded.example_inputs(2), 4)[0].sum().backward()
    assert all(p.grad is not None for p in loaded.parameters())
    assert all(p.is_leaf for p in loaded.parameters())


def test_keys_that_are_not_read_warn_when_built_and_not_when_loaded(tmp_path):
    config = tiny(nn={"encoder": {"post_concat_layout": "token_sequence"}})
    with pytest.warns(iqn_blocks.UnusedConfigWarning, match="post_concat_layout"):
        net = iqn_blocks.build(config)
    assert_same(round_trip(net, tmp_path), net)


# What is in the folder


def test_files(tmp_path):
    net = build(tiny())
    net.save_pretrained(tmp_path / "a" / "b")
    folder = tmp_path / "a" / "b"
    assert sorted(path.name for path in folder.iterdir()) == [CONFIG, WEIGHTS]
    data = json.loads((folder / CONFIG).read_text())
    assert data["format"] == "iqn-blocks"
    assert data["format_version"] == 2
    assert data["library_version"] == iqn_blocks.__version__
    assert iqn_blocks.Config.model_validate(data["config"]) == net.config
    assert set(load_file(folder / WEIGHTS)) == set(net.state_dict())
    with safe_open(folder / WEIGHTS, "pt") as file:
        assert file.metadata() == {"iqn-blocks": (folder / CONFIG).read_text()}


def test_the_copy_of_the_settings_does_not_count(tmp_path):
    net = build(tiny())
    build(tiny_btr()).save_pretrained(tmp_path)
    other = (tmp_path / CONFIG).read_bytes()
    net.save_pretrained(tmp_path)
    for content in (other, b"notes", None):
        (tmp_path / CONFIG).unlink()
        if content is not None:
            (tmp_path / CONFIG).write_bytes(content)
        assert_same(iqn_blocks.from_pretrained(tmp_path), net)
        if content is None:
            iqn_blocks.load_weights(build(tiny(), seed=1), tmp_path)


def test_equal_networks_give_equal_files(tmp_path):
    for name in "ab":
        build(tiny_btr()).save_pretrained(tmp_path / name)
    for file in (CONFIG, WEIGHTS):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_saving_again_replaces(tmp_path):
    first, second = build(tiny(), seed=0), build(tiny_transformer(), seed=1)
    round_trip(first, tmp_path)
    assert_same(round_trip(second, tmp_path), second)
    assert_same(round_trip(second, tmp_path), second)
    assert sorted(path.name for path in tmp_path.iterdir()) == [CONFIG, WEIGHTS]


def test_saving_leaves_files_of_others_alone(tmp_path):
    shard = tmp_path / "model-00001-of-00002.safetensors"
    for path in (shard, tmp_path / "README.md", tmp_path / ".hidden"):
        path.write_text("mine")
    build(tiny()).save_pretrained(tmp_path)
    assert shard.exists()
    assert (tmp_path / ".hidden").exists()
    assert (tmp_path / "README.md").read_text() == "mine"


def test_saving_through_a_link_leaves_its_target_alone(tmp_path):
    """A snapshot of the hub's cache links to files that other snapshots share."""
    target = tmp_path / "blob"
    target.write_bytes(b"shared")
    folder = tmp_path / "snapshot"
    folder.mkdir()
    (folder / WEIGHTS).symlink_to(target)
    net = build(tiny())
    assert_same(round_trip(net, folder), net)
    assert target.read_bytes() == b"shared"


def test_nothing_stays_tied_to_the_file(tmp_path):
    net = build(tiny())
    loaded = round_trip(net, tmp_path)
    with open(tmp_path / WEIGHTS, "r+b") as file:
        file.write(b"\xff" * (tmp_path / WEIGHTS).stat().st_size)
        file.truncate(10)
    assert_same(loaded, net)


@pytest.mark.parametrize("function", [iqn_blocks.IQN.save_pretrained, iqn_blocks.load_weights])
def test_what_is_no_folder(function, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    net = build(tiny())
    net.save_pretrained("best")
    with pytest.raises(
        CheckpointError, match=r"found ''; expected a path; '\.' is the current fol"
    ):
        function(net, "")
    for file in (tmp_path / "best" / WEIGHTS, f"best/{CONFIG}"):
        with pytest.raises(CheckpointError, match=f"{file}: is a file; .*pass '.*best', which"):
            function(net, file)
    with pytest.raises(CheckpointError, match="found ''"):
        iqn_blocks.from_pretrained("")
    assert [path.name for path in tmp_path.iterdir()] == ["best"]


# Compiled networks


def test_compiled_network(tmp_path):
    net = build(tiny())
    compiled = torch.compile(net, backend="eager")
    compiled(*net.example_inputs(2), 4)
    assert_same(round_trip(compiled, tmp_path / "method"), net)


def test_network_with_compiled_parts(tmp_path):
    net, plain = build(tiny()), build(tiny())
    net.encoder.stem = torch.compile(net.encoder.stem)
    assert any("_orig_mod." in name for name in net.state_dict())
    assert_same(round_trip(net, tmp_path), plain)
    with torch.no_grad():
        net.encoder.stem.convs[0].weight.zero_()
    iqn_blocks.load_weights(net, tmp_path)
    assert torch.equal(net.encoder.stem.convs[0].weight, plain.encoder.stem.convs[0].weight)


# dtype and map_location


def test_dtype_argument(tmp_path):
    net = build(tiny_btr())
    loaded = round_trip(net, tmp_path, dtype=torch.bfloat16)
    assert loaded.encoder.float_normalization.mean.dtype == torch.float32
    assert_same(loaded, net.to(torch.bfloat16))


@pytest.mark.parametrize("dtype", [torch.int64, torch.bool])
def test_dtype_must_be_floating(dtype, tmp_path):
    with pytest.raises(ValueError, match=f"floating dtype, got {dtype}"):
        round_trip(build(tiny()), tmp_path, dtype=dtype)


@pytest.mark.parametrize(("dtype", "way_out"), [("bfloat16", "torch.bfloat16"), (3, "such as")])
def test_dtype_that_is_none(dtype, way_out, tmp_path):
    with pytest.raises(ValueError, match=f"floating dtype, got {dtype!r}; write .*{way_out}"):
        round_trip(build(tiny()), tmp_path, dtype=dtype)


@pytest.mark.parametrize("location", ["meta", torch.device("meta")])
def test_map_location(location, tmp_path):
    loaded = round_trip(build(tiny_btr()), tmp_path, map_location=location)
    assert {tensor.device.type for tensor in loaded.state_dict().values()} == {"meta"}


@pytest.mark.gpu
def test_devices(tmp_path):
    net = build(tiny_btr())
    moved = round_trip(net.cuda(), tmp_path, map_location="cuda")
    assert {tensor.device.type for tensor in moved.state_dict().values()} == {"cuda"}
    assert_same(moved, net)
    assert_same(round_trip(moved, tmp_path), net.cpu())


# A network that exists


def test_load_weights(tmp_path):
    net, other = build(tiny_btr(), seed=0), build(tiny_btr(), seed=1).eval()
    weight = other.encoder.stem.stages[0].conv.weight
    net.save_pretrained(tmp_path)
    iqn_blocks.load_weights(other, tmp_path)
    assert other.encoder.stem.stages[0].conv.weight is weight
    assert not other.training
    assert_same(other, net.eval())


def test_load_weights_changes_nothing_where_one_name_does_not_fit(tmp_path):
    build(tiny(n_actions=4), seed=1).save_pretrained(tmp_path)
    net, before = build(tiny()), build(tiny())
    with pytest.raises(CheckpointError, match=WEIGHTS) as caught:
        iqn_blocks.load_weights(net, tmp_path)
    assert_same(net, before)
    misfits = str(caught.value).splitlines()[1:]
    assert misfits == [
        "advantage_head.readout.weight: found float32 (4, 8), expected float32 (3, 8)",
        "advantage_head.readout.bias: found float32 (4,), expected float32 (3,)",
    ]


def test_load_weights_does_not_convert(tmp_path):
    build(tiny()).double().save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match=r"value_head.readout.bias: found float64 \(1,\)"):
        iqn_blocks.load_weights(build(tiny()), tmp_path)


# Strict


def test_all_misfits_come_together(tmp_path):
    net = build(tiny())
    net.save_pretrained(tmp_path)
    tensors = load_file(tmp_path / WEIGHTS)
    del tensors["tau_embedding.projection.bias"], tensors["encoder.stem.convs.2.weight"]
    tensors["value_head.hidden.9.weight"] = torch.zeros(2, 3)
    tensors["value_head.readout.weight"] = torch.zeros(1, 9)
    tensors["value_head.readout.bias"] = torch.zeros(1, dtype=torch.int64)
    tensors["encoder.float_normalization.std"] = torch.ones(5, dtype=torch.float16)
    rewrite(tmp_path, tensors)
    with pytest.raises(CheckpointError) as caught:
        iqn_blocks.from_pretrained(tmp_path)
    first, *misfits = str(caught.value).splitlines()
    assert first == f"{tmp_path / WEIGHTS}: does not fit the network"
    assert sorted(misfits) == [
        "encoder.float_normalization.std: found float16 (5,), expected float32 (5,)",
        "missing: encoder.stem.convs.2.weight float32 (64, 32, 3, 3)",
        "missing: tau_embedding.projection.bias float32 (40,)",
        "unexpected: value_head.hidden.9.weight float32 (2, 3)",
        "value_head.readout.bias: found int64 (1,), expected float32 (1,)",
        "value_head.readout.weight: found float32 (1, 9), expected float32 (1, 8)",
    ]


def test_weights_of_another_network(tmp_path):
    build(tiny()).save_pretrained(tmp_path / "a")
    build(tiny_btr()).save_pretrained(tmp_path / "b")
    for folder in (tmp_path / "a", tmp_path / "b"):
        to_version_1(folder)
    (tmp_path / "a" / WEIGHTS).write_bytes((tmp_path / "b" / WEIGHTS).read_bytes())
    with pytest.raises(CheckpointError, match=f"{WEIGHTS}: is damaged, incomplete or of another"):
        iqn_blocks.from_pretrained(tmp_path / "a")


# Encoders of users


class Odd(nn.Module):
    """Tied parameters, a buffer that is not saved, a tensor that is no buffer, an integer one."""

    def __init__(self, config, *, width):
        super().__init__()
        self.state_dim = width
        self.first = nn.Linear(config.float_input_dim, width)
        self.second = nn.Linear(config.float_input_dim, width)
        self.second.weight = self.first.weight
        self.register_buffer("steps", torch.tensor(3))
        self.register_buffer("scale", torch.full((width,), 2.0), persistent=False)
        self.shift = torch.ones(width)

    def forward(self, img, floats):
        return self.first(floats) * self.scale + self.second(floats) * self.shift


@pytest.fixture
def odd(monkeypatch):
    forget_later(monkeypatch)
    iqn_blocks.register("odd")(Odd)
    own = {"topology": "odd", "topology_options": {"width": 8}, "vis": {"no_image": True}}
    torch.manual_seed(0)
    return iqn_blocks.build(
        {
            "n_actions": 3,
            "float_input_dim": 2,
            "nn": own | {"decoder": {"dense_hidden_dimension": 8}},
        }
    )


def test_encoder_of_a_user(odd, tmp_path):
    odd.encoder.steps += 4
    before = torch.get_rng_state()
    loaded = round_trip(odd, tmp_path)
    assert torch.equal(torch.get_rng_state(), before)
    assert_same(loaded, odd)
    assert loaded.encoder.steps == 7
    assert loaded.encoder.first.weight is loaded.encoder.second.weight


def test_encoder_that_is_not_registered(odd, tmp_path, monkeypatch):
    odd.save_pretrained(tmp_path)
    monkeypatch.delitem(iqn_blocks.registry._PARTS["topology"], "odd")
    with pytest.raises(
        CheckpointError, match=r"(?s)model\.safetensors.*'odd' is not registered.*register"
    ):
        iqn_blocks.from_pretrained(tmp_path)


def test_an_encoder_that_may_load_models_needs_the_callers_trust(odd, tmp_path):
    odd.save_pretrained(tmp_path)
    data = json.loads((tmp_path / CONFIG).read_text())
    data["config"]["nn"]["encoder"]["hf_embedding"] = {"trust_remote_code": True}
    change_settings(tmp_path, config=data["config"])
    with pytest.raises(CheckpointError, match=r"holds trust_remote_code.*pass trust_remote_code="):
        iqn_blocks.from_pretrained(tmp_path)
    loaded = iqn_blocks.from_pretrained(tmp_path, trust_remote_code=True)
    assert torch.equal(loaded.encoder.first.weight, odd.encoder.first.weight)


def test_state_that_is_no_tensor(odd, tmp_path, monkeypatch):
    monkeypatch.setattr(Odd, "get_extra_state", lambda _: {"count": 3}, raising=False)
    with pytest.raises(
        TypeError, match=r"encoder._extra_state: only tensors can be saved, found dict"
    ):
        odd.save_pretrained(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_dtype_that_cannot_be_saved(odd, tmp_path):
    odd.encoder.register_buffer("phase", torch.zeros(2, dtype=torch.complex64))
    with pytest.raises(TypeError, match=r"encoder.phase: dtype torch.complex64 cannot be saved"):
        odd.save_pretrained(tmp_path)


def test_only_networks_are_loaded_and_pushed(tmp_path):
    with pytest.raises(TypeError, match=r"made by iqn_blocks.build, got Linear"):
        iqn_blocks.push_to_hub(nn.Linear(2, 2), "me/racer")
    with pytest.raises(TypeError, match=r"made by iqn_blocks.build, got Linear"):
        iqn_blocks.load_weights(nn.Linear(2, 2), tmp_path)


# torch.distributed


@pytest.mark.parametrize("rank", [0, 1])
def test_rank_0_alone_writes(rank, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_rank", lambda: rank)
    build(tiny()).save_pretrained(tmp_path / "folder")
    assert (tmp_path / "folder").exists() == (rank == 0)


def _save_as_rank(rank: int, folder: Path) -> None:
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2
    )
    build(tiny(), seed=rank).save_pretrained(folder / "network")
    build(tiny(), seed=rank).save_pretrained(folder / f"of_rank_{rank}")
    torch.distributed.destroy_process_group()


def _save_sharded(rank: int, folder: Path) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2
    )
    net = build(tiny_transformer())
    fully_shard(net.value_head)
    fully_shard(net)
    assert any(p.to_local().numel() < p.numel() for p in net.parameters())
    net.save_pretrained(folder / "network")
    with pytest.raises(ValueError, match=r"net: is sharded .*load it and push that"):
        iqn_blocks.push_to_hub(net, "me/racer")
    torch.distributed.destroy_process_group()


@pytest.mark.slow
def test_a_sharded_network_is_saved_whole(tmp_path):
    torch.multiprocessing.spawn(_save_sharded, (tmp_path,), nprocs=2)
    assert_same(iqn_blocks.from_pretrained(tmp_path / "network"), build(tiny_transformer()))


@pytest.mark.slow
def test_two_processes_save(tmp_path):
    torch.multiprocessing.spawn(_save_as_rank, (tmp_path,), nprocs=2)
    assert_same(iqn_blocks.from_pretrained(tmp_path / "network"), build(tiny(), seed=0))
    assert (tmp_path / "of_rank_0").exists()
    assert not (tmp_path / "of_rank_1").exists()
