"""What the pictures show: the data of their lines, columns and bars."""

from __future__ import annotations

import builtins
import math
from typing import Any

import pytest
import torch
from torch import Tensor

import iqn_blocks
from iqn_blocks import plots, risk
from iqn_blocks.diagnostics import dormant_scores
from tests.configs import tiny, tiny_btr, tiny_float

# Two actions at three levels, given out of order. In order of τ the first has 1, 2, 4; the second
# has 5, 3, 6 and falls between 0.2 and 0.4.
TAU = torch.tensor([0.4, 0.2, 0.8])
Q = torch.tensor([[2.0, 3.0], [1.0, 5.0], [4.0, 6.0]])


def points(line: Any) -> list[tuple[float, float]]:
    return [(round(float(x), 6), round(float(y), 6)) for x, y in zip(*line.get_data(), strict=True)]


@pytest.mark.parametrize("tau", [TAU, TAU[:, None], TAU.double()])
def test_quantile_functions_are_in_order_of_the_level_and_their_falls_are_marked(
    tau: Tensor,
) -> None:
    axes = plots.quantile_functions(Q, tau, actions=["stay", "go"])
    stay, go, crossing = axes.lines
    assert points(stay) == [(0.2, 1), (0.4, 2), (0.8, 4)]
    assert points(go) == [(0.2, 5), (0.4, 3), (0.8, 6)]
    assert points(crossing)[:2] == [(0.2, 5), (0.4, 3)]
    assert len(points(crossing)) == 3 and math.isnan(points(crossing)[2][0])
    legend = axes.get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == ["stay", "go", "crossing"]


def test_rising_functions_and_equal_levels_have_no_crossing() -> None:
    assert len(plots.quantile_functions(Q[:, :1], TAU).lines) == 1
    equal = torch.tensor([0.5, 0.5, 0.9])
    assert len(plots.quantile_functions(torch.tensor([[2.0], [1.0], [3.0]]), equal).lines) == 1


def test_distributions_have_the_mass_and_the_mean_of_their_levels() -> None:
    # Levels 0.2, 0.4 and 0.8 stand for [0, 0.3], [0.3, 0.6] and [0.6, 1]; bins are one unit wide.
    axes = plots.return_distributions(Q, TAU, actions=["stay", "go"], bins=5)
    stay, go = (patch.get_data() for patch in axes.patches)
    assert stay.edges.tolist() == [1, 2, 3, 4, 5, 6]
    assert stay.values.tolist() == pytest.approx([0.3, 0.3, 0, 0.4, 0])
    assert go.values.tolist() == pytest.approx([0, 0, 0.3, 0, 0.3 + 0.4])  # the last bin is closed
    means = [line.get_xdata()[0] for line in axes.lines]
    assert means == pytest.approx([0.3 * 1 + 0.3 * 2 + 0.4 * 4, 0.3 * 5 + 0.3 * 3 + 0.4 * 6])


def test_a_return_that_is_certain_is_one_column() -> None:
    axes = plots.return_distributions(torch.full((4, 1), 2.0), torch.linspace(0.1, 0.9, 4), bins=3)
    data = axes.patches[0].get_data()
    assert data.edges.tolist() == pytest.approx([1.5, 1.5 + 1 / 3, 1.5 + 2 / 3, 2.5])
    assert data.values.tolist() == pytest.approx([0, 3, 0])


def test_risk_curves_are_the_values_under_each_taste() -> None:
    net = iqn_blocks.build(tiny(), seed=0)
    img, floats = net.example_inputs(1)
    axes = plots.risk_curves(net, img, floats, risk=risk.wang, etas=[-1.0, 0.0, 2.0])
    with torch.no_grad():
        expected = [net.q_values(img, floats, risk=risk.wang(eta))[0] for eta in (-1.0, 0.0, 2.0)]
    for action, line in enumerate(axes.lines):
        assert list(line.get_xdata()) == [-1, 0, 2]
        assert line.get_ydata().tolist() == pytest.approx([float(q[action]) for q in expected])
    assert axes.get_xlabel() == "η of wang(η)"


def test_risk_curves_of_proposed_fractions() -> None:
    net = iqn_blocks.build(tiny_float(nn={"iqn": {"fractions": "fqf"}}), seed=0)
    _, floats = net.example_inputs(1)
    axes = plots.risk_curves(net, None, floats, etas=[0.25, 1.0])
    with torch.no_grad():
        whole = net.q_values(None, floats, tau=net.acting_tau())[0]
    assert [line.get_ydata()[1] for line in axes.lines] == pytest.approx(whole.tolist())


def test_dormant_units_of_each_stage() -> None:
    net = iqn_blocks.build(tiny_btr(), seed=0).train()
    with torch.no_grad():  # two of the eight units of the advantage head's layer fall silent
        net.advantage_head.hidden[0].norm.weight[:2] = 0
        net.advantage_head.hidden[0].norm.bias[:2] = 0
    img, floats = net.example_inputs(6)
    axes = plots.dormant_units(net, img, floats, threshold=0.05)
    shown = [label.get_text() for label in axes.get_yticklabels()]
    bars = dict(zip(shown, (bar.get_width() for bar in axes.patches), strict=True))
    assert shown == [
        "stem",
        "float_mlp",
        "tau_embedding",
        "advantage_head.hidden",
        "value_head.hidden",
    ]
    assert bars["advantage_head.hidden"] == pytest.approx(100 * 2 / 8)
    with torch.no_grad():
        net.eval()
        phi = net.tau_embedding(net.acting_tau())
        state = net.encode(img, floats)
    width = net.encoder.stem.out_dim
    for stage, units in {"tau_embedding": phi, "stem": state[:, :width]}.items():
        silent = dormant_scores(units) <= 0.05
        assert bars[stage] == pytest.approx(100 * float(silent.float().mean())), stage
    assert all(not module._forward_hooks for module in net.modules())


def test_pictures_go_where_they_are_told() -> None:
    from matplotlib.figure import Figure

    axes = Figure().add_subplot()
    assert plots.quantile_functions(Q, TAU, ax=axes) is axes
    assert plots.return_distributions(Q, TAU, ax=axes) is axes


def test_errors_say_what_was_found_and_what_to_take() -> None:
    with pytest.raises(ValueError, match=r"got \(1, 3, 2\) and \(1, 3\).*q\[b\] and tau\[b\]"):
        plots.quantile_functions(Q[None], TAU[None])
    with pytest.raises(ValueError, match=r"actions: found 1 names, expected 2"):
        plots.return_distributions(Q, TAU, actions=["stay"])
    net = iqn_blocks.build(tiny_float(), seed=0)
    with pytest.raises(ValueError, match=r"got values \(4, 3\), expected \(1, A\); .*floats\[:1\]"):
        plots.risk_curves(net, None, net.example_inputs(4).floats)
    with pytest.raises(ValueError, match="threshold: got -1"):
        plots.dormant_units(net, None, net.example_inputs(4).floats, threshold=-1)


def test_without_matplotlib_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def refuse(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.startswith("matplotlib"):
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(ImportError, match=r"pip install 'iqn-blocks\[plots\]'"):
        plots.quantile_functions(Q, TAU)
