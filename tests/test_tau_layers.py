"""The key nn.iqn.n_layers: a deeper projection of τ."""

from __future__ import annotations

import iqn_blocks
from tests import part_checks
from tests.configs import tiny_float
from tests.part_checks import DTYPES, rand, randn
from tests.reference.parts.tau_layers import deep_tau_embedding


def config(n_layers):
    return tiny_float(nn={"iqn": {"n_layers": n_layers}})


@DTYPES
def test_further_layers_are_their_equation(dtype):
    net = part_checks.build(config(3), dtype)

    def equations(params, tau):
        return deep_tau_embedding(net.config, params, tau, 8, 3)

    inputs = {"tau": rand(5, 1, dtype=dtype)}
    part_checks.agree(net.tau_embedding, inputs, net.tau_embedding, equations, dtype)


def test_names_of_the_first_layer_stay():
    one, three = (iqn_blocks.build(config(n)).state_dict() for n in (1, 3))
    added = [f"tau_embedding.further.{i}.{kind}" for i in (0, 1) for kind in ("weight", "bias")]
    assert set(three) - set(one) == set(added) and set(one) < set(three)


def test_compiled_exported_and_saved(tmp_path):
    net, floats = part_checks.build(config(2)), randn(2, 5).float()
    part_checks.one_graph(net, None, floats, tau=rand(6, 1).float())
    part_checks.exported(net, floats=floats)
    part_checks.saved_and_loaded(net, tmp_path, lambda net: [net.q_values(None, floats)])
