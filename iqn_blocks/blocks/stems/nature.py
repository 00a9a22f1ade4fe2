"""The stem of the DQN network."""

from __future__ import annotations

from iqn_blocks.blocks.stems.base import ReluStack
from iqn_blocks.registry import register


@register("nature", slot="stem")
class NatureStem(ReluStack):
    """The 3-layer CNN of DQN: k8 s4, k4 s2, k3 s1 of widths 32, 64, 64, a ReLU after each.

    ``(B, C, H, W) -> (B, out_dim)``; ``image_size`` is ``(H, W)``, at least 36×36. 84×84 frames
    give 3136 features, as in "Human-level control through deep reinforcement learning" (Nature 518,
    2015) and in IQN (arXiv:1806.06923).

    Raises:
        ValueError: an image side below 36 pixels.
    """

    title = "DQN network"
    layers = ((32, 8, 4), (64, 4, 2), (64, 3, 1))
