"""Resets, perturbations, projections and groups of parameters."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from torch import nn

import iqn_blocks
from iqn_blocks.blocks import Head, NoisyLinear
from iqn_blocks.plasticity import (
    parameter_groups,
    project_weights_,
    redo_,
    shrink_perturb_,
    weight_norms,
)
from iqn_blocks.registry import list_parts
from tests.configs import tiny, tiny_btr, tiny_float, tiny_multimodal, tiny_transformer


def silence(linear: nn.Module, *units: int) -> None:
    """Give units so low a bias that a ReLU behind them is always 0."""
    bias = linear.bias_mu if isinstance(linear, NoisyLinear) else linear.bias
    with torch.no_grad():
        bias[list(units)] = -100.0


# -------------------------------------------------------------------------------------------- ReDo


def test_redo_of_two_layers() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3))
    first, last, x = net[0], net[2], torch.randn(200, 4)
    silence(first, 1, 4)
    before, old = net(x), copy.deepcopy(net.state_dict())
    (mask,) = redo_(net, x, threshold=0.0, generator=torch.Generator().manual_seed(1))
    assert mask.nonzero().flatten().tolist() == [1, 4]
    assert torch.equal(net(x), before)  # dormant units gave nothing, and their outputs count 0
    assert (last.weight[:, mask] == 0).all()
    assert (first.bias[mask] == 0).all()
    assert (first.weight[mask].abs() <= 1 / math.sqrt(4)).all()
    assert (first.weight[mask] != old["0.weight"][mask]).all()
    for name, parameter in (("0.weight", first.weight), ("0.bias", first.bias)):
        assert torch.equal(parameter[~mask], old[name][~mask])
    assert torch.equal(last.weight[:, ~mask], old["2.weight"][:, ~mask])
    assert torch.equal(last.bias, old["2.bias"])
    assert (net[:2](x).mean(0)[mask] > 0).any()  # they live again
    assert all(p.requires_grad and p.grad_fn is None for p in net.parameters())


def test_redo_draws_from_the_whole_interval_and_its_generator() -> None:
    nets = [nn.Sequential(nn.Linear(4, 500), nn.ReLU(), nn.Linear(500, 1)) for _ in range(2)]
    for net in nets:
        silence(net[0], *range(500))
        redo_(net, torch.rand(2, 4), generator=torch.Generator().manual_seed(3))
    assert torch.equal(nets[0][0].weight, nets[1][0].weight)
    weight = 2 * nets[0][0].weight.detach()  # U(−1, 1) times √in = 2: mean 0, variance ⅓
    assert weight.mean().item() == pytest.approx(0, abs=0.05)
    assert weight.var().item() == pytest.approx(1 / 3, abs=0.03)
    assert weight.abs().max().item() == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize("noisy", [False, True])
@pytest.mark.parametrize("layer_norm", [False, True])
def test_redo_of_a_head(noisy: bool, layer_norm: bool) -> None:
    torch.manual_seed(0)
    head = Head(
        5, [7, 6], (3,), noisy=noisy, noisy_readout=noisy, layer_norm=layer_norm, activation="relu"
    )
    layers, x = [*head.hidden, head.readout], 3 * torch.randn(500, 5)
    if layer_norm:
        with torch.no_grad():
            head.hidden[1].norm.weight[2], head.hidden[1].norm.bias[2] = 0, -1
    else:
        silence(head.hidden[1].linear, 2)
    before = head(x)
    masks = redo_(layers, x, threshold=0.0)
    assert [len(mask) for mask in masks] == [7, 6]
    assert masks[1].tolist() == [False, False, True, False, False, False]
    assert not masks[0].any()
    if not layer_norm:  # it would spread the fresh unit over the others
        torch.testing.assert_close(head(x), before)
    if noisy:
        second, last = head.hidden[1].linear, head.readout
        assert second.weight_sigma[2].tolist() == pytest.approx([0.5 / math.sqrt(7)] * 7)
        assert second.bias_sigma[2].item() == pytest.approx(0.5 / math.sqrt(7))
        assert second.bias_mu[2] == 0
        assert not last.weight_mu[:, 2].any() and not last.weight_sigma[:, 2].any()
        assert last.weight_sigma[:, 3].all()
        head.hidden[1].linear.reset_noise()
        assert head.readout(torch.eye(6)[2:3]).allclose(last.bias_mu)


def test_redo_across_a_normalisation_by_default_threshold() -> None:
    # Behind the norm unit 0 is 0.02 and 0.03 of the mean, for which the other two make up.
    for low, dormant in ((0.02, True), (0.03, False)):
        norm = nn.LayerNorm(3)
        with torch.no_grad():
            norm.weight.zero_()
            norm.bias.copy_(torch.tensor([low, 1.0, 2 - low]))
        net = nn.Sequential(nn.Linear(2, 3), norm, nn.ReLU(), nn.Linear(3, 1))
        assert redo_(net, torch.randn(4, 2))[0].tolist() == [dormant, False, False]


def test_redo_judges_all_layers_before_it_resets_any() -> None:
    # Unit 0 of the second layer listens to unit 0 of the first alone, which is dormant by 0.1.
    net = nn.Sequential(*(nn.Linear(2, 2, bias=False) for _ in range(3)))
    with torch.no_grad():
        net[0].weight.copy_(torch.tensor([[0.01, 0.0], [0.0, 1.0]]))
        net[1].weight.copy_(torch.tensor([[100.0, 0.0], [0.0, 1.0]]))
    masks = redo_(net, torch.ones(1, 2), threshold=0.1)
    assert [mask.tolist() for mask in masks] == [[True, False], [False, False]]
    assert net[1].weight[:, 0].tolist() == [0, 0]
    assert net[1].weight[1, 1] == 1


def test_redo_errors() -> None:
    x = torch.ones(1, 2)
    with pytest.raises(ValueError, match=r"layers: found 1 linear layers, needed are two or more"):
        redo_([nn.Linear(2, 2), nn.ReLU()], x)
    with pytest.raises(TypeError, match=r"layers: Bilinear is neither .*head.hidden, head.readout"):
        redo_([nn.Linear(2, 2), nn.Bilinear(2, 2, 2)], x)
    with pytest.raises(TypeError, match=r"layers: Conv2d .*convolutions .* not .*shrink_perturb_"):
        redo_([nn.Conv2d(1, 2, 1), nn.Flatten()], torch.ones(1, 1, 2, 2))
    with pytest.raises(TypeError, match=r"layers: Embedding is neither"):
        redo_([nn.Linear(2, 2), nn.Embedding(2, 2)], x)
    with pytest.raises(ValueError, match=r"threshold: got -1, accepted is any finite number >= 0"):
        redo_(nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)), x, threshold=-1)


# ------------------------------------------------------------------------------ shrink and perturb


def test_shrink_perturb() -> None:
    net, fresh = iqn_blocks.build(tiny_btr()), iqn_blocks.build(tiny_btr()).double()
    old = {name: p.detach().clone() for name, p in net.named_parameters()}
    buffers = {name: b.clone() for name, b in net.named_buffers()}
    shrink_perturb_(net, torch.compile(fresh), shrink=0.75, perturb=0.5)
    for (name, parameter), new in zip(net.named_parameters(), fresh.parameters(), strict=True):
        torch.testing.assert_close(parameter, 0.75 * old[name] + 0.5 * new.float(), msg=name)
        assert parameter.grad_fn is None
    assert all(torch.equal(b, buffers[name]) for name, b in net.named_buffers())


def test_shrink_perturb_errors() -> None:
    net = nn.Linear(2, 3)
    for other, name in ((nn.Linear(2, 4), "bias"), (nn.Linear(2, 3, bias=False), "bias")):
        with pytest.raises(ValueError, match=rf"parameters differ .*such as {name}; build both"):
            shrink_perturb_(net, other, shrink=1, perturb=0)
    for options, message in [
        ({"shrink": 1.1, "perturb": 0}, "shrink: got 1.1, accepted is 0 <= shrink <= 1"),
        ({"shrink": -0.1, "perturb": 0}, "shrink: got -0.1"),
        (
            {"shrink": 1, "perturb": math.nan},
            "perturb: got nan, accepted is any finite number >= 0",
        ),
        ({"shrink": 1, "perturb": -1}, "perturb: got -1"),
    ]:
        numbers: dict[str, Any] = options
        with pytest.raises(ValueError, match=message):
            shrink_perturb_(net, net, **numbers)


# -------------------------------------------------------------------------------------- projection


def test_projection_gives_the_first_norms_back() -> None:
    net = iqn_blocks.build(tiny_btr())
    norms = weight_norms(net)
    groups = parameter_groups(net)
    assert len(norms) == len(groups["matrices"]) + len(groups["readouts"])
    old = {name: p.detach().clone() for name, p in net.named_parameters()}
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.mul_(3.0)
    project_weights_(torch.compile(net), norms)
    for name, parameter in net.named_parameters():
        expected = old[name] if name in norms else 3 * old[name]
        torch.testing.assert_close(parameter.detach(), expected, msg=name)


def test_projection_keeps_directions_zeros_and_what_was_left_out() -> None:
    net = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    norms = weight_norms(net)
    with torch.no_grad():
        net[0].weight.copy_(torch.tensor([[3.0, 0.0], [0.0, 4.0]]))  # norm 5
        net[1].weight.zero_()
    project_weights_(net, {"0.weight": torch.tensor(0.1)})
    assert torch.linalg.vector_norm(net[0].weight).item() == pytest.approx(0.1)
    project_weights_(net, {"0.weight": torch.tensor(10.0), "1.weight": norms["1.weight"]})
    torch.testing.assert_close(net[0].weight.detach(), torch.tensor([[6.0, 0.0], [0.0, 8.0]]))
    assert net[1].weight.tolist() == [[0, 0], [0, 0]]
    with pytest.raises(ValueError, match=r"norms: 2.weight is no parameter .*weight_norms"):
        project_weights_(net, {"2.weight": torch.tensor(1.0)})


def test_projection_before_a_normalisation_changes_no_value() -> None:
    net = nn.Sequential(nn.Linear(4, 8, bias=False), nn.LayerNorm(8, eps=0))
    norms, x = weight_norms(net), torch.randn(3, 4)
    with torch.no_grad():
        net[0].weight.mul_(7)
    before = net(x)
    project_weights_(net, norms)
    torch.testing.assert_close(net(x), before)


# ------------------------------------------------------------------------------------------ groups

CONFIGS = [tiny(), tiny_btr(), tiny_float(), tiny_transformer(), tiny_multimodal()]


@pytest.mark.parametrize("config", CONFIGS, ids=["classic", "btr", "float", "transformer", "fused"])
def test_every_parameter_is_in_one_group(config: dict[str, Any]) -> None:
    net = iqn_blocks.build(config)
    groups = parameter_groups(net)
    assert list(groups) == ["matrices", "vectors", "embeddings", "readouts"]
    members = [id(p) for group in groups.values() for p in group]
    assert len(members) == len(set(members))
    assert set(members) == {id(p) for p in net.parameters()}
    names = {id(p): name for name, p in net.named_parameters()}
    by_group = {group: {names[id(p)] for p in ps} for group, ps in groups.items()}
    assert all(".readout.weight" in name for name in by_group["readouts"])
    assert len(by_group["readouts"]) == 2
    assert all(p.ndim >= 2 for name in ("matrices", "readouts") for p in groups[name])
    assert all("position" in n or "embedding" in n for n in by_group["embeddings"])
    assert {n for n in names.values() if n.endswith(("bias", "sigma", "bias_mu"))} <= by_group[
        "vectors"
    ]


@pytest.mark.parametrize("head", list_parts("head"))
def test_the_last_layers_of_each_head_are_readouts(head: str) -> None:
    options = {"transformer": {"d_model": 4, "n_heads": 2}}.get(head, {})
    heads = {"advantage": {head: options}, "value": {head: options}}
    decoder = {**heads, "dueling": "at_midpoints"}
    net = iqn_blocks.build(tiny_float(nn={"decoder": decoder}, n_actions_per_block=2))
    names = {id(p): name for name, p in net.named_parameters()}
    readouts = {names[id(p)] for p in parameter_groups(net)["readouts"]}
    assert {name.split(".")[0] for name in readouts} == {"value_head", "advantage_head"}
    assert all(".readout." in name for name in readouts)


def test_the_proposal_of_fractions_is_a_matrix() -> None:
    net = iqn_blocks.build(tiny_float(nn={"iqn": {"fractions": "fqf"}}))
    assert any(p is net.fractions.linear.weight for p in parameter_groups(net)["matrices"])


def test_groups_of_layers_that_are_not_ours() -> None:
    class Everything(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = nn.Embedding(3, 4)
            self.tied = nn.Linear(4, 3, bias=False)
            self.tied.weight = self.table.weight
            self.position = nn.Parameter(torch.zeros(1, 2, 4))
            self.attention = nn.MultiheadAttention(4, 2)
            self.normed = nn.utils.parametrizations.weight_norm(nn.Linear(4, 4))
            self.readout = nn.utils.parametrizations.weight_norm(nn.Linear(4, 2))
            self.scale = nn.Parameter(torch.ones(()))

    net = Everything()
    names = {id(p): name for name, p in net.named_parameters()}
    groups = {group: {names[id(p)] for p in ps} for group, ps in parameter_groups(net).items()}
    assert groups["embeddings"] == {"table.weight", "position"}
    assert groups["readouts"] == {
        "readout.parametrizations.weight.original0",
        "readout.parametrizations.weight.original1",
    }
    assert groups["matrices"] == {
        "attention.in_proj_weight",
        "attention.out_proj.weight",
        "normed.parametrizations.weight.original0",
        "normed.parametrizations.weight.original1",
    }
