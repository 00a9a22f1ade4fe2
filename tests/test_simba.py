"""SimBa and SimbaV2: equations, first weights, the projection, configurations."""

from __future__ import annotations

import math
from functools import partial

import pytest
import torch

import iqn_blocks
from iqn_blocks import ConfigError, blocks
from iqn_blocks.errors import UnusedConfigWarning
from tests.compare_parts import compare_both
from tests.configs import tiny, tiny_float
from tests.reference.parts.simba import simba, simba_head
from tests.reference.parts.simba_v2 import simba_v2, simba_v2_head, unit


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def rows(generator):
    return [torch.randn((4, 5), generator=generator, dtype=torch.float64)]


@pytest.mark.parametrize("n_blocks", [1, 3])
@pytest.mark.parametrize(("trunk", "equation"), [(blocks.Simba, simba), (blocks.SimbaV2, simba_v2)])
def test_trunk_is_its_equation(trunk, equation, n_blocks):
    part = trunk(5, hidden_dim=6, n_blocks=n_blocks, expansion=2)
    compare_both(part, partial(equation, width=6, blocks=n_blocks, expansion=2), rows)


@pytest.mark.parametrize("out_shape", [(1,), (3,), (2, 3)])
@pytest.mark.parametrize(
    ("head", "equation"),
    [(blocks.SimbaHead, simba_head), (blocks.SimbaV2Head, simba_v2_head)],
)
def test_head_is_its_equation(head, equation, out_shape):
    part = head(5, out_shape, hidden_dim=6)
    compare_both(part, partial(equation, out_shape=out_shape, width=6, blocks=2), rows)


def norms_of_rows(module):
    weights = [p for name, p in module.named_parameters() if name.endswith("weight")]
    return torch.cat([weight.norm(dim=1) for weight in weights])


def test_first_weights_of_simba_v2():
    """α starts at 1/(L + 1), s at √(2/d), and all rows of all matrices are of length 1."""
    head = blocks.SimbaV2Head(5, (3,), hidden_dim=8, n_blocks=3)
    torch.testing.assert_close(norms_of_rows(head), torch.ones(8 + 3 * (32 + 8) + 8 + 3))
    ones = torch.ones(1, 8)
    block = head.trunk.blocks[0]
    torch.testing.assert_close(block.lerp(ones), ones / 4)
    torch.testing.assert_close(head.trunk.scaler(ones), ones * 0.5)
    torch.testing.assert_close(block.scaler(torch.ones(32)), torch.full((32,), 0.25))
    torch.testing.assert_close(head.readout.scaler(ones), ones)


def test_features_of_simba_v2_are_of_unit_norm():
    features = blocks.SimbaV2(5, hidden_dim=8)(torch.randn(7, 5) * 100)
    torch.testing.assert_close(features.norm(dim=1), torch.ones(7))


def test_projection_after_a_step():
    net = iqn_blocks.build(with_simba("simba_v2"))
    optimizer = torch.optim.SGD(net.parameters(), lr=0.5)
    q, _ = net(*net.example_inputs(4))
    q.square().sum().backward()
    optimizer.step()
    parts = net.value_head, net.advantage_head, net.encoder.float_mlp
    moved = [norms_of_rows(part) for part in parts]
    assert all((norms - 1).abs().max() > 1e-3 for norms in moved)
    rest = {n: p.clone() for n, p in net.named_parameters() if n.startswith("tau_embedding")}
    directions = unit(net.value_head.readout.linear1.weight.detach())
    net.value_head.project_()
    torch.testing.assert_close(norms_of_rows(parts[0]), torch.ones_like(moved[0]))
    assert torch.equal(norms_of_rows(parts[1]), moved[1])  # each head is projected by itself …
    blocks.project_simba_v2_(net)  # … and a network as a whole
    for part, norms in zip(parts, moved, strict=True):
        torch.testing.assert_close(norms_of_rows(part), torch.ones_like(norms))
    torch.testing.assert_close(net.value_head.readout.linear1.weight.detach(), directions)
    assert all(torch.equal(net.get_parameter(name), value) for name, value in rest.items())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_vector_of_zeros_stays_finite(dtype):
    part = blocks.SimbaV2(3, hidden_dim=4).to(dtype)
    with torch.no_grad():
        part.blocks[0].scaler.scaler.zero_()
    out = part(torch.zeros(2, 3))
    out.sum().backward()
    assert out.dtype == dtype and out.isfinite().all()
    assert all(p.grad.isfinite().all() for p in part.parameters())


def with_simba(name, **change):
    small = {name: {"hidden_dim": 8, "n_blocks": 1}}
    config = tiny_float(nn={"decoder": {"advantage": small, "value": small}}, **change)
    config["nn"]["float"] = small
    del config["nn"]["decoder"]["dense_hidden_dimension"]
    return config


@pytest.mark.parametrize("name", ["simba", "simba_v2"])
def test_over_the_floats_in_every_topology(name):
    net = iqn_blocks.build(with_simba(name))
    assert net.state_dim == 8
    assert isinstance(net.encoder.float_mlp, (blocks.Simba, blocks.SimbaV2))
    for layout in ({"fusion_mode": "vision_transformer"}, {"fusion_mode": "post_concat"}):
        config = tiny(nn=layout | {"encoder": {"transformer": {"d_model": 8}}})
        config["nn"]["float"] = {name: {"hidden_dim": 6}}
        if layout["fusion_mode"] == "vision_transformer":
            del config["nn"]["encoder"]
        net = iqn_blocks.build(config)
        assert net.encoder.float_mlp.out_dim == 6
        q, _ = net(*net.example_inputs(2))
        assert q.shape == (8, 3)


def test_the_choice_over_the_floats_is_checked():
    assert iqn_blocks.Config(n_actions=1, float_input_dim=1).nn.float.parts == ()
    for given, message in [
        ({"simba": {}, "simba_v2": {}}, r"nn\.float: found both simba and simba_v2; accepted: one"),
        ({"simba": {"n_block": 1}}, r"nn\.float\.simba\.n_block: unknown option; did you mean n_b"),
        ("simbaa", r"nn\.float\.simbaa: unknown key; did you mean simba\?"),
    ]:
        config = tiny_float()
        config["nn"]["float"] = given
        with pytest.raises(ConfigError, match=message):
            iqn_blocks.build(config)


def test_a_choice_that_nothing_reads():
    config = tiny(nn={"fusion_mode": "unified"})
    config["nn"]["float"] = "simba"
    with pytest.warns(UnusedConfigWarning, match=r"nn\.float\.simba: set, but a multimodal"):
        iqn_blocks.build(config)


def test_first_weights_of_simba_by_hand_and_in_a_configuration():
    torch.manual_seed(0)
    block = blocks.Simba(5, hidden_dim=64).blocks[0]
    # He: √(2 / fan-in); orthogonal 256×64 of gain √2: columns of length √2, 64 entries a row.
    assert block.linear1.weight.std().item() == pytest.approx(math.sqrt(2 / 64), rel=0.05)
    assert block.linear2.weight.std().item() == pytest.approx(math.sqrt(2 / 256), rel=0.05)
    config = with_simba("simba", n_actions=2)
    config["nn"]["init"] = "orthogonal"
    inside = iqn_blocks.build(config).value_head.trunk.blocks[0].linear1.weight.detach()
    gram = inside.T @ inside
    torch.testing.assert_close(gram, 2 / (1 + 1e-4) * torch.eye(8), atol=1e-5, rtol=0)
