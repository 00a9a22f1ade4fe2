"""FQF's proposals and their loss: against the paper's equations, one number at a time."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from iqn_blocks.functional import fraction_proposals, weighted_mean_over_quantiles
from iqn_blocks.losses import fraction_gradient, fraction_loss
from tests.losses.cases import A, B, K, N, close, draw


def quantile_function(tau: Tensor) -> Tensor:
    """F⁻¹(ω) = ω + ω³, which rises."""
    return tau + tau**3


def wasserstein(tau: Tensor) -> Tensor:
    """W₁(τ) = Σ_i ∫ |F⁻¹(ω) − F⁻¹(τ̂_i)| dω over [τ_i, τ_{i+1}] (eq. 3), by P(ω) = ω²/2 + ω⁴/4.

    τ̂_i halves the interval and F⁻¹ rises: the integral is P(τ_{i+1}) + P(τ_i) − 2·P(τ̂_i).
    """

    def primitive(x: Tensor) -> Tensor:
        return x**2 / 2 + x**4 / 4

    low, high = tau[:, :-1], tau[:, 1:]
    return (primitive(high) + primitive(low) - 2 * primitive((low + high) / 2)).sum(1)


def test_proposals_are_their_equations() -> None:
    logits = draw(0, B, K)
    tau, tau_hat, entropy = fraction_proposals(logits)
    for b in range(B):
        total = sum(math.exp(x) for x in logits[b].tolist())
        p = [math.exp(x) / total for x in logits[b].tolist()]
        sums = [sum(p[:i]) for i in range(K + 1)]
        close(tau[b], torch.tensor(sums, dtype=torch.float64))
        middles = [(sums[i] + sums[i + 1]) / 2 for i in range(K)]
        close(tau_hat[b], torch.tensor(middles, dtype=torch.float64))
        assert entropy[b].item() == pytest.approx(-sum(x * math.log(x) for x in p))


def test_proposals_of_any_logits_are_fractions() -> None:
    logits = torch.cat([100 * torch.randn(50, 32), torch.zeros(1, 32), 1e-3 * torch.randn(50, 32)])
    for dtype in (torch.float32, torch.bfloat16):
        tau, tau_hat, entropy = fraction_proposals(logits.to(dtype))
        assert tau.dtype == tau_hat.dtype == entropy.dtype == torch.float32
        assert (tau[:, 0] == 0).all()
        assert (tau[:, -1] == 1).all()
        assert (tau.diff(dim=1) >= 0).all()
        assert ((tau_hat >= tau[:, :-1]) & (tau_hat <= tau[:, 1:])).all()
        assert ((entropy >= 0) & (entropy <= math.log(32) + 1e-5)).all()
    one = fraction_proposals(torch.randn(2, 1))
    assert one.tau.tolist() == [[0, 1]] * 2
    assert one.tau_hat.tolist() == [[0.5]] * 2


def test_proposals_gradients() -> None:
    logits = draw(0, B, K).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: fraction_proposals(x)[::2], (logits,))
    assert not fraction_proposals(logits).tau_hat.requires_grad


def test_gradient_is_that_of_the_distance() -> None:
    tau = fraction_proposals(draw(0, B, K)).tau.requires_grad_()
    (expected,) = torch.autograd.grad(wasserstein(tau).sum(), tau)
    middles = (tau[:, :-1] + tau[:, 1:]) / 2
    for signed in (False, True):  # alike where the quantile function rises
        gradient = fraction_gradient(
            quantile_function(tau[:, 1:-1]), quantile_function(middles), signed=signed
        )
        assert not gradient.requires_grad
        close(gradient, expected[:, 1:-1])


def test_gradient_by_hand_where_quantiles_cross() -> None:
    # K = 4, q at τ₁, τ₂, τ₃ and at the four midpoints.
    q, q_hat = torch.tensor([[1.0, 5.0, 2.0]]), torch.tensor([[0.0, 3.0, 9.0, 4.0]])
    # 2·1 − 3 − 0, 2·5 − 9 − 3, 2·2 − 4 − 9
    assert fraction_gradient(q, q_hat).tolist() == [[-1.0, -2.0, -9.0]]
    # i = 1: 1 > q̂₀ = 0 and 1 < q₂ = 5: (1 − 0) + (1 − 3) = −1.
    # i = 2: 5 > q₁ = 1, but not 5 < q₃ = 2: (5 − 3) − (5 − 9) = 6.
    # i = 3: not 2 > q₂ = 5, but 2 < q̂₃ = 4: −(2 − 9) + (2 − 4) = 5.
    assert fraction_gradient(q, q_hat, signed=True).tolist() == [[-1.0, 6.0, 5.0]]
    # Equal neighbours are no rise: i = 1 has 2 = q̂₀ and 2 = q̂₁: −(2 − 2) − (2 − 2).
    assert fraction_gradient(torch.full((1, 1), 2.0), torch.tensor([[3.0, 3.0]])).item() == -2
    same = fraction_gradient(torch.full((1, 2), 2.0), torch.tensor([[2.0, 1.0, 2.0]]), signed=True)
    assert same.tolist() == [[0 - 1.0, -1.0 - 0]]


def test_loss_has_the_gradient_it_is_given() -> None:
    tau, gradient = fraction_proposals(draw(0, B, K)).tau.requires_grad_(), draw(1, B, K - 1)
    loss = fraction_loss(tau, gradient.requires_grad_())
    by_hand = [
        sum(tau[b, i + 1].item() * gradient[b, i].item() for i in range(K - 1)) for b in range(B)
    ]
    close(loss, torch.tensor(by_hand, dtype=torch.float64))
    loss.sum().backward()
    assert gradient.grad is None
    assert tau.grad is not None
    close(tau.grad, torch.nn.functional.pad(gradient.detach(), (1, 1)))


def test_descent_finds_the_fractions_of_a_known_distribution() -> None:
    # F⁻¹ = 0 below ¾ and 8 above, smoothed: one jump, so one fraction belongs at ¾.
    def jump(tau: Tensor) -> Tensor:
        return 8 * torch.sigmoid(200 * (tau - 0.75))

    logits = torch.zeros(1, 2, requires_grad=True)
    for _ in range(300):
        tau, tau_hat, _ = fraction_proposals(logits)
        loss = fraction_loss(tau, fraction_gradient(jump(tau[:, 1:-1]), jump(tau_hat))).sum()
        (step,) = torch.autograd.grad(loss, logits)
        logits.data -= 0.01 * step
    assert fraction_proposals(logits).tau[0, 1].item() == pytest.approx(0.75, abs=0.01)


def test_half_precision_is_computed_in_float32() -> None:
    q, q_hat = torch.full((1, 1), 6e4).half(), torch.full((1, 2), -6e4).half()
    assert fraction_gradient(q, q_hat).item() == 4 * q.float().item()
    assert fraction_loss(torch.tensor([[0.0, 0.5, 1.0]]).half(), q.float()).dtype == torch.float32


@pytest.mark.parametrize("shape", [(A,), (N, A)])
def test_weighted_mean(shape: tuple[int, ...]) -> None:
    q, tau = draw(0, K * B, *shape), fraction_proposals(draw(1, B, K)).tau
    expected = torch.zeros(B, *shape, dtype=torch.float64)
    for b in range(B):
        for k in range(K):
            expected[b] += (tau[b, k + 1] - tau[b, k]) * q[k * B + b]
    close(weighted_mean_over_quantiles(q, tau), expected)
    q.requires_grad_()
    assert torch.autograd.gradcheck(lambda x: weighted_mean_over_quantiles(x, tau), (q,))


def test_empty_batch_and_compilation() -> None:
    def everything(logits: Tensor, q: Tensor, q_hat: Tensor) -> tuple[Tensor, Tensor]:
        tau, _, entropy = fraction_proposals(logits)
        loss = fraction_loss(tau, fraction_gradient(q, q_hat, signed=True)) - 1e-3 * entropy
        return loss, weighted_mean_over_quantiles(q_hat.T.reshape(-1, 1), tau)

    compiled = torch.compile(everything, fullgraph=True, backend="eager")
    for batch in (0, B):
        inputs = draw(0, batch, K), draw(1, batch, K - 1), draw(2, batch, K)
        for eager, other in zip(everything(*inputs), compiled(*inputs), strict=True):
            assert eager.shape[0] == batch
            assert torch.equal(eager, other)


def test_errors() -> None:
    for shape in ((K,), (B, 0), (B, K, 1)):
        with pytest.raises(ValueError, match=r"logits: expected \(B, K\) with K >= 1, got"):
            fraction_proposals(torch.zeros(shape))
    for tau_shape in ((B,), (B, 1), (B, K), (B, K + 2)):
        with pytest.raises(ValueError, match=r"tau: expected \(B, K\+1\) .* K·B = 12 rows, got"):
            weighted_mean_over_quantiles(torch.zeros(K * B, A), torch.zeros(tau_shape))
    for q_shape in ((B, K), (B, K - 2), (1, K - 1), (B, K - 1, 1)):
        with pytest.raises(
            ValueError, match=r"q_hat: expected \(B, K\) and q \(B, K-1\), got \(3, 4"
        ):
            fraction_gradient(torch.zeros(q_shape), torch.zeros(B, K))
        with pytest.raises(
            ValueError, match=r"tau: expected \(B, K\+1\) and gradient .*got \(3, 5"
        ):
            fraction_loss(torch.zeros(B, K + 1), torch.zeros(q_shape))
    whole, floating = torch.zeros(1, 1).long(), torch.zeros(1, 2)
    with pytest.raises(TypeError, match=r"q: expected a floating dtype, got torch\.int64"):
        fraction_gradient(whole, floating)
    with pytest.raises(TypeError, match=r"q_hat: expected a floating dtype"):
        fraction_gradient(floating[:, :1], floating.long())
    with pytest.raises(TypeError, match=r"gradient: expected a floating dtype"):
        fraction_loss(torch.zeros(1, 3), whole)
    with pytest.raises(TypeError, match=r"tau: expected a floating dtype"):
        fraction_loss(torch.zeros(1, 3).long(), floating[:, :1])
