"""Proposed fractions against tianshou's FQF, on copied weights: values, actions, a whole update."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import iqn_blocks
from iqn_blocks.blocks import FractionProposer
from iqn_blocks.functional import split_quantiles
from iqn_blocks.losses import fraction_gradient, fraction_loss
from tests.configs import tiny_float

pytestmark = [
    pytest.mark.peers,
    # These libraries warn on import, about themselves and what they import.
    pytest.mark.filterwarnings("default"),
]

B, K, A, D = 7, 6, 3, 8
ENTROPY = 0.1


def proposers() -> tuple[FractionProposer, Any]:
    """Ours and theirs with the same weights, ten times as large as at first."""
    from tianshou.utils.net.discrete import FractionProposalNetwork

    torch.manual_seed(0)
    ours, theirs = FractionProposer(D, K), FractionProposalNetwork(K, D)
    with torch.no_grad():
        ours.linear.weight *= 100
        ours.linear.bias.normal_()
    theirs.net.load_state_dict(ours.linear.state_dict())
    return ours, theirs


def test_proposals_and_their_gradients() -> None:
    ours, theirs = proposers()
    state, weights = torch.randn(B, D), torch.randn(B, K + 1)
    found, (taus, tau_hats, entropies) = ours(state), theirs(state)
    torch.testing.assert_close(found.tau, taus)
    torch.testing.assert_close(found.tau_hat, tau_hats)
    torch.testing.assert_close(found.entropy, entropies)
    assert (found.tau_hat.diff(dim=1) > 0).all() and found.entropy.std() > 0.01
    # The last fraction is 1: theirs is the sum of the probabilities, which is so for any weights.
    for tau, entropy in ((found.tau, found.entropy), (taus, entropies)):
        ((tau * weights).sum() + entropy.sum()).backward()
    pairs = zip(ours.linear.parameters(), theirs.net.parameters(), strict=True)
    for one, two in pairs:
        torch.testing.assert_close(one.grad, two.grad, atol=1e-5, rtol=1e-5)


def test_both_start_alike() -> None:
    from tianshou.utils.net.discrete import FractionProposalNetwork

    torch.manual_seed(0)
    ours, theirs = FractionProposer(512, 32), FractionProposalNetwork(32, 512)
    assert not ours.linear.bias.any() and not theirs.net.bias.any()
    assert ours.linear.weight.std().item() == pytest.approx(
        theirs.net.weight.std().item(), rel=0.05
    )


class Quantiles(nn.Module):
    """A network of ours as tianshou's ``FQFPolicy`` calls its model."""

    def __init__(self, net: iqn_blocks.IQN) -> None:
        super().__init__()
        self.net = net

    def at(self, state: Tensor, tau: Tensor) -> Tensor:
        """``τ (B, K)`` to values ``(B, A, K)``."""
        count = tau.shape[1]
        q = self.net.quantile_values(state, tau.T.reshape(-1, 1), count)
        return split_quantiles(q, count).transpose(1, 2)

    def forward(
        self, obs: Any, propose_model: nn.Module, fractions: Any = None, **_: Any
    ) -> tuple[tuple[Tensor, Any, Tensor], None]:
        from tianshou.data import Batch

        state = self.net.encode(None, torch.as_tensor(np.asarray(obs)).float())
        if fractions is None:
            taus, tau_hats, entropies = propose_model(state.detach())
            fractions = Batch(taus=taus, tau_hats=tau_hats, entropies=entropies)
        with torch.no_grad():
            between = self.at(state, fractions.taus[:, 1:-1])
        return (self.at(state, fractions.tau_hats), fractions, between), None


def test_actions_and_an_update_of_tianshou() -> None:
    """Actions by the weighted mean, and what one step of SGD at rate 1 does to the proposals."""
    import gymnasium
    from tianshou.algorithm.modelfree.fqf import FQF, FQFPolicy
    from tianshou.algorithm.optim import TorchOptimizerFactory
    from tianshou.data import Batch

    ours, theirs = proposers()
    net = iqn_blocks.build(tiny_float(nn={"iqn": {"fractions": "fqf", "n": K}}), seed=0)
    net.fractions = ours
    policy = FQFPolicy(
        model=Quantiles(net), fraction_model=theirs, action_space=gymnasium.spaces.Discrete(A)
    )
    sgd = TorchOptimizerFactory(torch.optim.SGD, lr=1.0)
    algorithm = FQF(policy=policy, optim=sgd, fraction_optim=sgd, num_fractions=K, ent_coef=ENTROPY)
    floats, actions = torch.randn(B, 5), torch.randint(A, (B,))
    batch = Batch(obs=floats.numpy(), info={}, act=actions.numpy(), returns=torch.randn(B, K))
    result = policy(batch)
    assert result.act.tolist() == net.q_values(None, floats).argmax(-1).tolist()
    assert len(set(result.act.tolist())) > 1

    proposals = net.propose(net.encode(None, floats))
    state, row = net.encode(None, floats).detach(), torch.arange(B)
    q_hat = policy.model.at(state, proposals.tau_hat)[row, actions]
    q = policy.model.at(state, proposals.tau[:, 1:-1])[row, actions]
    gradient = fraction_gradient(q, q_hat, signed=True)
    loss = (fraction_loss(proposals.tau, gradient) - ENTROPY * proposals.entropy).mean()
    gradients = torch.autograd.grad(loss, list(ours.linear.parameters()))

    before = theirs.net.weight.detach().clone(), theirs.net.bias.detach().clone()
    algorithm.train()
    statistics = algorithm._update_with_batch(batch)
    assert statistics.fraction_loss - ENTROPY * statistics.entropy_loss == pytest.approx(
        loss.item(), rel=1e-4
    )
    for old, new, slope in zip(before, theirs.net.parameters(), gradients, strict=True):
        assert slope.any()
        torch.testing.assert_close(new.detach() - old, -slope, atol=1e-5, rtol=1e-4)
