"""The stem of the DQN network."""

from __future__ import annotations

from iqn_blocks.blocks.stems.base import ConvStack, Readout
from iqn_blocks.kinds import Size
from iqn_blocks.registry import register

LAYERS = ((32, 8, 4), (64, 4, 2), (64, 3, 1))  # width, kernel, stride


@register("nature", slot="stem")
class NatureStem(ConvStack):
    """The 3-layer CNN of DQN: k8 s4, k4 s2, k3 s1 of widths 32, 64, 64, a ReLU after each.

    ``(B, C, H, W) -> (B, out_dim)``; ``image_size`` is ``(H, W)``, at least 36×36. 84×84 frames
    give 3136 features, as in "Human-level control through deep reinforcement learning" (Nature 518,
    2015) and in IQN (arXiv:1806.06923).

    Args:
        readout: what becomes of the last feature map; max and avg pool it, tokens makes each
            position a token.
        readout_size: side of the pooled map, in positions.

    Raises:
        ValueError: an image side below 36 pixels.
    """

    def __init__(
        self,
        in_channels: int,
        image_size: tuple[int, int],
        *,
        readout: Readout = "flatten",
        readout_size: Size = 6,
    ) -> None:
        super().__init__(
            in_channels,
            image_size,
            LAYERS,
            title="DQN network",
            readout=readout,
            readout_size=readout_size,
        )
