"""tianshou's IQN policy, which also sets the noise of noisy networks (tianshou 2.x)."""

from __future__ import annotations

from typing import Any

from tianshou.algorithm.modelfree.iqn import IQNPolicy as TianshouIQNPolicy
from torch import nn

from iqn_blocks.interop.tianshou.model import TianshouModel


class IQNPolicy(TianshouIQNPolicy):
    """tianshou's ``IQNPolicy`` with one difference: it sets the noise of noisy networks.

    New noise is drawn for every call inside a training step, that is in collection and in updates,
    for the online and the target network alike. Outside, as in test episodes, the noise is off. The
    model is a :class:`TianshouModel`.
    """

    def forward(
        self,
        batch: Any,
        state: Any = None,
        model: nn.Module | None = None,
        **kwargs: Any,
    ) -> Any:
        """As tianshou's, after setting the noise of the model that is used."""
        used = self.model if model is None else model
        used = getattr(used, "module", used)  # tianshou wraps the target network
        if isinstance(used, TianshouModel):
            if self.is_within_training_step:
                used.reset_noise()
            else:
                used.disable_noise()
        return super().forward(batch, state, model, **kwargs)
