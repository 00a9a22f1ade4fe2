"""The one loop behind all tables: act, learn, move the target network, evaluate."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

import iqn_blocks
from iqn_blocks import Config, losses
from iqn_blocks.functional import split_quantiles
from iqn_blocks.recurrent import RecurrentIQN
from iqn_blocks.target import polyak_update_
from proof.settings import Settings
from proof.tasks import TASKS, Batch, Metrics, Observation, mean_return

Watch = Callable[[int, float], None]  # is told the step and the last score


class Learned(NamedTuple):
    """What a run learned: metrics at the end, the score after so many steps, and the network."""

    metrics: Metrics
    curve: list[tuple[int, float]]
    parameters: int


def learn(s: Settings, seed: int, watch: Watch) -> Learned:
    """Run these settings with a seed."""
    torch.manual_seed(seed)
    if s.learner != "plain":
        return _learn_qrdqn(s, seed, watch)
    task = TASKS[s.task](seed, **s.options)
    torch.manual_seed(seed)
    online = iqn_blocks.build(Config.model_validate(task.sizes).replace(**s.config))
    target = copy.deepcopy(online)
    optimizer = _optimizer(online, s)
    curve: list[tuple[int, float]] = []
    stride = int(s.options.get("envs", 1))  # steps of a step of all environments
    for step in range(stride, s.budget + 1, stride):
        task.step(online, s.epsilon_at(step))
        if _is_due(step, stride, s.train_every) and step > s.learning_starts:
            for group in optimizer.param_groups:
                group["lr"] = group["initial"] * (1 - (1 - s.final_rate) * step / s.budget)
            for _ in range(s.updates):
                update(online, target, optimizer, task.batch(s.batch), s)
        if _is_due(step, stride, s.target_every):
            polyak_update_(target, online, s.target_weight)
        if _is_due(step, stride, max(1, s.budget // s.evaluations)):
            score, *_ = task.evaluate(online, final=False).values()
            curve.append((step, score))
            watch(step, score)
    metrics = task.evaluate(online, final=True)
    return Learned(metrics, curve, sum(p.numel() for p in online.parameters()))


def update(
    online: iqn_blocks.IQN,
    target: iqn_blocks.IQN,
    optimizer: torch.optim.Optimizer,
    batch: Batch,
    s: Settings,
) -> None:
    """One gradient step on the quantile loss, and on that of the fractions where there are any."""
    online.reset_noise()
    target.reset_noise()
    q, tau = values(online, batch.now, s.k)
    pred = losses.take(q, batch.action)
    loss = losses.quantile_huber_loss(pred, goals(target, batch, s), tau, kappa=s.kappa).mean()
    if online.fractions is not None:
        loss = loss + fraction_loss(online, batch, pred)
    optimizer.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()


def values(net: iqn_blocks.IQN, obs: Observation, k: int) -> tuple[Tensor, Tensor]:
    """Quantiles ``(R, K, A)`` and levels ``(R, K)``; a sequence has ``R = T·B`` rows."""
    count = None if net.fractions is not None else k
    if isinstance(net, RecurrentIQN):
        q, tau, _ = net.quantiles(*obs, count)
        return q.flatten(0, 1), tau.flatten(0, 1)
    img, floats = obs
    return net.quantiles(img, floats if floats is None else floats.flatten(0, -2), count)


@torch.no_grad()
def goals(target: iqn_blocks.IQN, batch: Batch, s: Settings) -> Tensor:
    """Targets ``(R, K)``: the mean of the target network's own best action, or Munchausen's."""
    if batch.following is None:  # the next row of the same sequence; the last one counts 0
        size = batch.now[1].shape[1] if batch.now[1] is not None else 0
        q = values(target, batch.now, s.k)[0].roll(-size, 0)
    else:
        q, _ = values(target, batch.following, s.k)
    if s.munchausen:
        q_now, _ = values(target, batch.now, s.k)
        return losses.munchausen_target(batch.reward, batch.discount, q, q_now, batch.action)
    means = q
    if target.fractions is not None and batch.following is not None:
        means = target.q_values(*batch.following)[:, None]  # weighs each value by its slice
    return losses.double_dqn_target(batch.reward, batch.discount, q, means)


def fraction_loss(net: iqn_blocks.IQN, batch: Batch, pred: Tensor) -> Tensor:
    """FQF's loss of the proposed fractions (arXiv:1911.02140), with a bonus on their entropy."""
    with torch.no_grad():
        state = net.encode(*batch.now)
    proposals = net.propose(state)
    inner = proposals.tau[:, 1:-1].detach()
    with torch.no_grad():
        rows = net.quantile_values(state, inner.T.reshape(-1, 1), inner.shape[1])
    at_fractions = losses.take(split_quantiles(rows, inner.shape[1]), batch.action)
    gradient = losses.fraction_gradient(at_fractions, pred)
    return (losses.fraction_loss(proposals.tau, gradient) - 1e-3 * proposals.entropy).mean()


def _optimizer(net: iqn_blocks.IQN, s: Settings) -> torch.optim.Optimizer:
    """Adam; the layer that proposes fractions learns at a rate of its own."""
    proposer = [] if net.fractions is None else list(net.fractions.parameters())
    others = [p for p in net.parameters() if all(p is not q for q in proposer)]
    groups = [{"params": others, "initial": s.rate}]
    if proposer:
        groups.append({"params": proposer, "initial": s.rate * s.fraction_rate})
    return torch.optim.Adam(groups, lr=s.rate, eps=s.adam_eps)


def _is_due(step: int, stride: int, every: int) -> bool:
    """Whether a multiple of ``every`` lies in the last ``stride`` steps."""
    return step // every > (step - stride) // every


def _learn_qrdqn(s: Settings, seed: int, watch: Watch) -> Learned:
    """The same in sb3-contrib's QRDQN, whose loop is its own."""
    from sb3_contrib import QRDQN
    from stable_baselines3.common.callbacks import BaseCallback, EveryNTimesteps

    from iqn_blocks.interop.sb3 import IQNPolicy

    policy: Any = IQNPolicy if s.learner == "qrdqn" else "MlpPolicy"
    adam = {"optimizer_class": torch.optim.Adam, "optimizer_kwargs": {"eps": s.adam_eps}}
    network = {"config": s.config} if s.learner == "qrdqn" else s.config
    model = QRDQN(
        policy,
        s.options["env"],
        learning_rate=lambda left: s.rate * (s.final_rate + (1 - s.final_rate) * left),
        buffer_size=s.options["buffer"],
        learning_starts=s.learning_starts,
        batch_size=s.batch,
        gamma=s.options["gamma"],
        train_freq=s.train_every,
        gradient_steps=s.updates,
        target_update_interval=s.target_every,
        exploration_fraction=s.epsilon_fraction,
        exploration_final_eps=s.epsilon,
        policy_kwargs={"n_quantiles": s.k, **adam, **network},
        seed=seed,
        device="cpu",
    )
    curve: list[tuple[int, float]] = []

    def act(obs: Any) -> Any:
        return model.predict(obs, deterministic=True)[0]

    def score(*, final: bool) -> float:
        return mean_return(s.options["env"], act, final=final)

    class Evaluate(BaseCallback):  # type: ignore[misc]  # an extra, not always there
        def _on_step(self) -> bool:
            curve.append((self.num_timesteps, score(final=False)))
            watch(*curve[-1])
            return True

    model.learn(s.budget, callback=EveryNTimesteps(max(1, s.budget // s.evaluations), Evaluate()))
    parameters = sum(p.numel() for p in model.policy.quantile_net.parameters())
    return Learned({"return": score(final=True)}, curve, parameters)
