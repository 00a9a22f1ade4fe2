"""CartPole with the options of Beyond The Rainbow: LayerNorm, noisy heads, Munchausen targets.

The loop is that of cartpole.py. Noise explores beside ε, and targets are soft.

python docs/examples/cartpole_btr.py --help
"""

from __future__ import annotations

from typing import Any

from cartpole import CONFIG, Batch, epsilon_greedy, quantiles, run
from torch import Tensor

import iqn_blocks
from iqn_blocks.losses import munchausen_target

BTR_CONFIG: dict[str, Any] = {
    **CONFIG,
    "btr": {"use_layer_norm": True, "use_noisy_linear": True, "noisy_sigma0": 0.5},
}
ROUNDS = 160
TEMPERATURE = 0.003  # well below a scaled reward, or the targets' policy is close to chance


def noise(net: iqn_blocks.IQN, obs: Tensor, rounds: int) -> Tensor:
    """The greedy action under new noise, or a random one: noise alone explores too little."""
    net.reset_noise()
    return epsilon_greedy(net, obs, rounds)


def munchausen(target: iqn_blocks.IQN, batch: Batch) -> Tensor:
    """Soft targets ``(B, K)`` with the bonus of the action taken."""
    following, now = quantiles(target, batch.following), quantiles(target, batch.now)
    return munchausen_target(
        batch.reward, batch.discount, following, now, batch.action, temperature=TEMPERATURE
    )


if __name__ == "__main__":
    run(BTR_CONFIG, noise, munchausen, __doc__ or "", "cartpole_btr", ROUNDS)
