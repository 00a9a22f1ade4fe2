from __future__ import annotations

import math

import pytest
import torch

from iqn_blocks import functional as F


@pytest.mark.parametrize("scheme", ["symmetric", "uniform", "midpoints"])
@pytest.mark.parametrize("batch", [0, 1, 3])
def test_sample_tau_shape_and_range(scheme, batch):
    tau = F.sample_tau(batch, 6, scheme=scheme, dtype=torch.float64)
    assert tau.shape == (6 * batch, 1)
    assert tau.dtype == torch.float64
    assert ((tau >= 0) & (tau <= 1)).all()


def test_symmetric_tau_is_stratified_and_antithetic():
    tau = F.sample_tau(50, 8).view(8, 50)
    for k in range(4):
        assert ((tau[k] >= k / 8) & (tau[k] <= (k + 1) / 8)).all()
        assert torch.equal(tau[k + 4], 1 - tau[k])
    assert tau[0].unique().numel() == 50, "each sample draws its own"


def test_midpoints_are_quantile_major():
    tau = F.sample_tau(2, 2, scheme="midpoints")
    assert tau.flatten().tolist() == [0.25, 0.25, 0.75, 0.75]


@pytest.mark.parametrize("scheme", ["symmetric", "uniform"])
def test_generator_decides_the_draw(scheme):
    first, again = (
        F.sample_tau(3, 4, scheme=scheme, generator=torch.Generator().manual_seed(7))
        for _ in range(2)
    )
    assert torch.equal(first, again)
    state = torch.get_rng_state()
    F.sample_tau(3, 4, scheme=scheme, generator=torch.Generator().manual_seed(7))
    assert torch.equal(state, torch.get_rng_state())


def test_sample_tau_rejects():
    with pytest.raises(ValueError, match=r"even number, got 7; use 8, or scheme='uniform'"):
        F.sample_tau(2, 7)
    with pytest.raises(ValueError, match="got 'sobol', accepted are 'symmetric', 'uniform'"):
        F.sample_tau(2, 4, scheme="sobol")
    with pytest.raises(ValueError, match="at least 1, got 0"):
        F.sample_tau(2, 0)
    with pytest.raises(TypeError, match="expected a whole number, got float"):
        F.sample_tau(2, 8.0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("start", [0, 1])
def test_cosines_elementwise_in_full_precision(dtype, start):
    tau = torch.tensor([[0.0], [0.37], [1.0]], dtype=dtype)
    cosines = F.cosine_features(tau, 64, start)
    assert cosines.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    for r in range(3):
        for i in range(64):
            expected = math.cos(math.pi * (start + i) * tau[r].item())
            assert cosines[r, i].item() == pytest.approx(expected, abs=2e-5)


def test_cosines_are_not_touched_by_autocast():
    tau = torch.rand(5, 1)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(F.cosine_features(tau, 64), F.cosine_features(tau, 64))
        inside = F.cosine_features(tau, 64)
    assert torch.equal(inside, F.cosine_features(tau, 64))


def test_hadamard_mix_rows():
    state = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    phi = torch.tensor([[1.0, 10.0], [2.0, 20.0], [3.0, 30.0], [4.0, 40.0]])
    per_sample = F.hadamard_mix(state, phi, 2)
    assert per_sample.tolist() == [[1, 20], [6, 80], [3, 60], [12, 160]]
    shared = F.hadamard_mix(state, phi[:2], 2)
    assert shared.tolist() == [[1, 20], [3, 40], [2, 40], [6, 80]]
    with pytest.raises(ValueError, match=r"phi: 3 rows.*need 4 \(per sample\) or 2 \(shared\)"):
        F.hadamard_mix(state, phi[:3], 2)


def test_dueling_by_hand():
    value = torch.tensor([[10.0]])
    advantage = torch.tensor([[1.0, 2.0, 6.0]])
    assert F.dueling(value, advantage).tolist() == [[8, 9, 13]]
    two = torch.tensor([[[1.0, 3.0], [0.0, 10.0]]])
    assert F.dueling(value, two).tolist() == [[[9, 11], [5, 15]]]


def test_split_quantiles_is_a_view():
    q = torch.arange(12.0).view(6, 2)
    split = F.split_quantiles(q, 3)
    assert split.shape == (2, 3, 2)
    assert split[1, 2].tolist() == q[2 * 2 + 1].tolist()
    assert split.data_ptr() == q.data_ptr()
    assert torch.equal(F.mean_over_quantiles(q, 3), split.mean(1))


@pytest.mark.parametrize("split", [F.split_quantiles, F.mean_over_quantiles])
def test_rows_are_a_multiple_of_the_quantiles(split):
    q = torch.arange(12.0).view(6, 2)
    with pytest.raises(ValueError, match="q: 6 rows are not a multiple of num_quantiles = 4"):
        split(q, 4)
    with pytest.raises(ValueError, match="num_quantiles: must be at least 1, got 0"):
        split(q, 0)
    with pytest.raises(TypeError, match="num_quantiles: expected a whole number, got float"):
        split(q, 2.0)


def test_one_quantile_is_enough():
    assert F.midpoints(1).tolist() == [[0.5]]
    q = torch.arange(6.0).view(3, 2)
    assert F.split_quantiles(q, 1).tolist() == [[[0, 1]], [[2, 3]], [[4, 5]]]
    assert torch.equal(F.mean_over_quantiles(q, 1), q)


def test_midpoints_need_a_quantile():
    with pytest.raises(ValueError, match="num_quantiles: must be at least 1, got 0"):
        F.midpoints(0)
    with pytest.raises(TypeError, match="num_quantiles: expected a whole number, got str"):
        F.midpoints("2")


def test_mask_actions():
    q = torch.tensor([[1.0, 2.0, 3.0]])
    masked = F.mask_actions(q, torch.tensor([[True, True, False]]))
    assert masked.argmax(-1).item() == 1
    assert masked.isfinite().all()
    with pytest.raises(TypeError, match=r"of torch.bool .*, got torch.int64"):
        F.mask_actions(q, torch.tensor([[1, 1, 0]]))
    with pytest.raises(ValueError, match=r"shape \(3,\) differs from the values' \(1, 3\)"):
        F.mask_actions(q, torch.tensor([True, True, False]))


def test_normalize_image():
    img = torch.tensor([0, 128, 255], dtype=torch.uint8)
    signed = F.normalize_image(img, torch.float32)
    assert signed.tolist() == [-1, 0, 127 / 128]
    unit = F.normalize_image(img, torch.float64, "unit")
    assert unit.tolist() == [0, 128 / 255, 1]
    with pytest.raises(ValueError, match="got 'percent', accepted are 'signed', 'unit'"):
        F.normalize_image(img, torch.float32, "percent")
    floating = torch.tensor([0.5], dtype=torch.float16)
    assert torch.equal(F.normalize_image(floating, torch.float32), floating.float())
