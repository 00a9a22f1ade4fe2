"""Everything that decides what a run learns, but for its seed."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import Any, Literal


@dataclass(frozen=True)
class Settings:
    """Settings of one row of a table.

    Args:
        task: name of a task, a key of ``proof.tasks.TASKS``.
        options: keyword arguments of that task.
        config: keys of the network's configuration that the task does not decide.
        learner: ``plain``, the loop of ``proof.loop``; ``qrdqn`` that of sb3-contrib with a network
            of ours, ``qrdqn_own`` with its own.
        budget: environment steps, or updates where transitions come without an environment.
        batch: transitions, or whole sequences, of an update.
        k: quantiles of an update; FQF's are in ``config``.
        kappa: Huber threshold.
        rate: learning rate of Adam.
        final_rate: share of it that is left at the end, falling linearly.
        fraction_rate: share of it for the layer that proposes fractions.
        adam_eps: Adam's ε.
        learning_starts: steps before the first update.
        train_every: steps between trainings.
        updates: updates of a training.
        target_every: steps between updates of the target network.
        target_weight: weight of the online network then; 1 copies it.
        epsilon: share of random actions at the end.
        epsilon_fraction: share of the budget in which it falls there from 1.
        munchausen: Munchausen targets, in place of the mean of the best action.
        evaluations: points of the curve.
    """

    task: str
    config: dict[str, Any]
    budget: int
    options: dict[str, Any] = field(default_factory=dict)
    learner: Literal["plain", "qrdqn", "qrdqn_own"] = "plain"
    batch: int = 64
    k: int = 8
    kappa: float = 1.0
    rate: float = 1e-3
    final_rate: float = 1.0
    fraction_rate: float = 0.1
    adam_eps: float = 1e-8
    learning_starts: int = 0
    train_every: int = 1
    updates: int = 1
    target_every: int = 1
    target_weight: float = 1.0
    epsilon: float = 0.0
    epsilon_fraction: float = 0.1
    munchausen: bool = False
    evaluations: int = 20

    def to_dict(self) -> dict[str, Any]:
        """As plain data that JSON leaves as it is."""
        data: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        return data

    def epsilon_at(self, step: int) -> float:
        """Share of random actions at a step: 1 before learning, falling to ``epsilon``."""
        if step <= self.learning_starts:
            return 1.0
        progress = min(1.0, step / (self.epsilon_fraction * self.budget))
        return 1 + progress * (self.epsilon - 1)
