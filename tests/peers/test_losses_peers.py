"""Losses and targets against rlax, and against a whole update of tianshou's IQN."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from iqn_blocks.losses import double_dqn_target, quantile_huber_loss, take

pytestmark = [
    pytest.mark.peers,
    # These libraries warn on import, about themselves and what they import.
    pytest.mark.filterwarnings("default"),
]

B, K, J, A = 6, 8, 5, 3  # J target quantiles
GAMMA = 0.9


def draw(seed: int, *shape: int) -> Tensor:
    return 2 * torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def draw_tau(seed: int, *shape: int) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("kappa", [0.0, 0.005, 1.0, 2.0])
def test_loss_and_gradient_of_rlax(kappa: float) -> None:
    import jax
    import rlax

    pred, target, tau = draw(0, B, K).requires_grad_(), draw(1, B, J), draw_tau(2, B, K)
    ours = quantile_huber_loss(pred, target, tau, kappa=kappa)
    ours.sum().backward()

    def loss(pred: Any, tau: Any, target: Any) -> Any:
        return rlax.quantile_regression_loss(pred, tau, target, kappa)

    arguments = [x.detach().numpy() for x in (pred, tau, target)]
    # rlax does not divide its Huber loss by κ: its slope ends at κ, ours at 1.
    scale = kappa or 1.0
    theirs = np.asarray(jax.vmap(loss)(*arguments)) / scale
    gradient = np.asarray(jax.vmap(jax.grad(loss))(*arguments)) / scale
    np.testing.assert_allclose(ours.detach(), theirs, rtol=2e-5, atol=1e-6)
    assert pred.grad is not None
    np.testing.assert_allclose(pred.grad, gradient, rtol=2e-5, atol=1e-6)


def test_q_learning_of_rlax() -> None:
    import jax
    import rlax

    q, tau, actions = draw(0, B, K, A), draw_tau(1, B, K), torch.tensor([0, 1, 2, 2, 1, 0])
    reward, discount = draw(2, B), GAMMA * torch.tensor([1.0, 1, 0, 1, 0, 1])
    q_online, q_target = draw(3, B, K, A), draw(4, B, J, A)

    def loss(*arguments: Any) -> Any:
        return rlax.quantile_q_learning(*arguments, huber_param=1.0)

    arguments = (q, tau, actions, reward, discount, q_online, q_target)
    theirs = jax.vmap(loss)(*(x.numpy() for x in arguments))
    target = double_dqn_target(reward, discount, q_target, q_online)
    ours = quantile_huber_loss(take(q, actions), target, tau)
    np.testing.assert_allclose(ours, np.asarray(theirs), rtol=2e-5, atol=1e-6)


class Table(nn.Module):
    """Quantile values as parameters, one row an observation: ``(B, A, K)`` and ``τ (B, K)``."""

    def __init__(self, seed: int, observations: int) -> None:
        super().__init__()
        self.values = nn.Parameter(draw(seed, observations, A, max(K, J)))

    def forward(self, obs: Any, sample_size: int, **_: Any) -> tuple[tuple[Tensor, Tensor], None]:
        rows = torch.as_tensor(np.asarray(obs)).long().flatten()
        tau = (torch.arange(sample_size) + 0.5) / sample_size
        return (self.values[rows, :, :sample_size], tau.expand(len(rows), sample_size)), None


def test_update_of_tianshou() -> None:
    """Targets, loss and the step they lead to; theirs is K'/K times ours, at κ = 1."""
    import gymnasium
    from tianshou.algorithm.modelfree.iqn import IQN, IQNPolicy
    from tianshou.algorithm.optim import TorchOptimizerFactory
    from tianshou.data import Batch, ReplayBuffer

    online, lagged = Table(0, B + 1), Table(1, B + 1)
    space = gymnasium.spaces.Discrete(A)
    policy = IQNPolicy(model=online, action_space=space, online_sample_size=K, target_sample_size=J)
    optim = TorchOptimizerFactory(torch.optim.SGD, lr=1.0)
    algorithm = IQN(policy=policy, optim=optim, gamma=GAMMA, target_update_freq=1000)
    algorithm.model_old.module.load_state_dict(lagged.state_dict())
    algorithm.train()

    actions, reward = torch.tensor([0, 1, 2, 2, 1, 0]), draw(2, B)
    done = torch.tensor([False, False, True, False, True, False])
    buffer = ReplayBuffer(B)
    for i in range(B):
        buffer.add(
            Batch(
                obs=i, act=actions[i].item(), rew=reward[i].item(), obs_next=i + 1,
                terminated=done[i].item(), truncated=False, info={},
            )
        )  # fmt: skip
    indices = np.arange(B)
    batch = algorithm._preprocess_batch(buffer[indices], buffer, indices)
    before = online.values.detach().clone()
    # An update starts by synchronising the lagged network; the targets are made by now.
    statistics = algorithm._update_with_batch(batch)
    their_step = online.values.detach() - before

    values = before.clone().requires_grad_()
    q, q_online = (values[rows, :, :K].transpose(1, 2) for rows in (slice(0, B), slice(1, B + 1)))
    q_target = lagged.values.detach()[1:, :, :J].transpose(1, 2)
    target = double_dqn_target(reward, GAMMA * (~done).float(), q_target, q_online)
    torch.testing.assert_close(torch.as_tensor(batch.returns), target.detach())
    tau = ((torch.arange(K) + 0.5) / K).expand(B, K)
    loss = (J / K) * quantile_huber_loss(take(q, actions), target, tau).mean()
    loss.backward()
    assert statistics.loss == pytest.approx(loss.item(), rel=1e-5)
    assert values.grad is not None
    torch.testing.assert_close(their_step, -values.grad, rtol=1e-5, atol=1e-6)
