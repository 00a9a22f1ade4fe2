"""The FiLM mixer against its equation, and in a network."""

from __future__ import annotations

from functools import partial

import pytest
import torch

import iqn_blocks
from iqn_blocks import ConfigError
from iqn_blocks.blocks import Film
from tests.compare_parts import compare_both
from tests.configs import tiny_float
from tests.reference.parts.film import film


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.mark.parametrize("rows", [3, 6])  # K shared levels, or K for each sample
def test_film_is_its_equation(rows):
    def draw(generator):
        return [
            torch.randn(shape, generator=generator, dtype=torch.float64)
            for shape in [(2, 5), (rows, 4)]
        ]

    compare_both(Film(5, phi_dim=4), partial(film, num_quantiles=3), draw, 3)


def test_a_new_film_is_near_the_state():
    state, phi = torch.randn(4, 300), torch.randn(32, 128)
    x = Film(300)(state, phi, 8)
    gap = (x - state.repeat(8, 1)).square().mean().sqrt().item()
    # γ, β ~ N(0, 0.1²) each: √(0.1²·E[s²] + 0.1²) = 0.14
    assert gap == pytest.approx(0.02**0.5, rel=0.1)


def test_an_empty_batch():
    assert Film(5)(torch.zeros(0, 5), torch.zeros(3, 128), 3).shape == (0, 5)


def test_rows_that_fit_no_level():
    with pytest.raises(ValueError, match=r"phi: 4 rows, but 3 quantiles .* need 6 .* or 3"):
        Film(5, phi_dim=4)(torch.zeros(2, 5), torch.zeros(4, 4), 3)


def test_film_in_a_configuration():
    net = iqn_blocks.build(tiny_float(nn={"iqn": {"mixer": {"film": {"phi_dim": 12}}}}))
    assert net.tau_embedding.projection.out_features == 12
    assert net.mixer.modulation.weight.shape == (2 * net.state_dim, 12)
    q, _ = net(*net.example_inputs(2))
    q.square().sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in net.mixer.parameters())
    message = r"nn\.iqn\.mixer\.film\.phi_dim: found 0 \(int\); accepted: a whole number from 1"
    with pytest.raises(ConfigError, match=message):
        iqn_blocks.build(tiny_float(nn={"iqn": {"mixer": {"film": {"phi_dim": 0}}}}))
