"""Networks that two processes hold in parts: their values, gradients and files."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method

import iqn_blocks
from iqn_blocks import CheckpointError
from tests.checkpoint.networks import assert_same, build
from tests.configs import tiny, tiny_btr, tiny_multimodal, tiny_transformer

CONFIGS = {
    "stem": tiny(),
    "btr": tiny_btr(),
    "multimodal": tiny_multimodal(),
    "transformer": tiny_transformer(),
}
pytestmark = pytest.mark.slow


def start(rank: int, folder: Path) -> None:
    torch.set_num_threads(1)
    rendezvous = f"file://{folder}/rendezvous"
    torch.distributed.init_process_group("gloo", init_method=rendezvous, rank=rank, world_size=2)


def shard(net: iqn_blocks.IQN) -> iqn_blocks.IQN:
    """Both heads on their own, then the rest; it takes contiguous weights alone."""
    net.to(memory_format=torch.contiguous_format)
    for part in (net.value_head, net.advantage_head, net):
        fully_shard(part)
    register_fsdp_forward_method(net, "q_values")
    assert any(p.to_local().numel() < p.numel() for p in net.parameters())
    return net


def _sharded_is_whole(rank: int, folder: Path) -> None:
    start(rank, folder)
    for name, raw in CONFIGS.items():
        for recompute in (False, True):
            whole = build(raw).double()
            sharded = shard(copy.deepcopy(whole))
            sharded.recompute = recompute
            inputs, tau = whole.example_inputs(2), torch.linspace(0.1, 0.9, 8)[:, None]
            for net in (whole, sharded):
                net(*inputs, tau=tau)[0].square().sum().backward()
            for one, other in zip(whole.parameters(), sharded.parameters(), strict=True):
                torch.testing.assert_close(other.grad.full_tensor(), one.grad, msg=name)
            for net in (whole, sharded):
                net.eval()
            torch.testing.assert_close(sharded.q_values(*inputs), whole.q_values(*inputs))
    torch.distributed.destroy_process_group()


def test_values_and_gradients_are_those_of_the_whole(tmp_path: Path) -> None:
    torch.multiprocessing.spawn(_sharded_is_whole, (tmp_path,), nprocs=2)


def test_weights_of_stems_are_refused_as_they_are(tmp_path: Path) -> None:
    """Once PyTorch takes them, `shard` and docs/scaling.md need not change their layout."""
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{tmp_path}/rendezvous", rank=0, world_size=1
    )
    try:
        with pytest.raises(NotImplementedError, match="non-contiguous parameters"):
            fully_shard(build(tiny()))
    finally:
        torch.distributed.destroy_process_group()


def _load(rank: int, folder: Path) -> None:
    start(rank, folder)
    net = shard(build(tiny_btr(), seed=1))
    before = {name: t.to_local().clone() for name, t in net.named_parameters()}
    with pytest.raises(CheckpointError, match="does not fit the network\nmissing: "):
        iqn_blocks.load_weights(net, folder / "other")
    assert all(torch.equal(before[name], t.to_local()) for name, t in net.named_parameters())
    if rank == 1:  # no rank waits for another
        iqn_blocks.load_weights(net, folder / "network")
    torch.distributed.barrier()
    if rank == 0:
        iqn_blocks.load_weights(net, folder / "network")
    net.save_pretrained(folder / "again")
    torch.distributed.destroy_process_group()


def test_weights_are_loaded_into_parts(tmp_path: Path) -> None:
    net = build(tiny_btr())
    net.save_pretrained(tmp_path / "network")
    build(tiny()).save_pretrained(tmp_path / "other")
    torch.multiprocessing.spawn(_load, (tmp_path,), nprocs=2)
    again = iqn_blocks.from_pretrained(tmp_path / "again")
    again.encoder.to(memory_format=torch.channels_last)
    assert_same(again, net)
