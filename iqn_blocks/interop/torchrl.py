"""The adapter between torchrl's actors and losses and a network; it needs no torchrl itself."""

from __future__ import annotations

from torch import Tensor, nn

from iqn_blocks.functional import TauScheme, mean_over_quantiles, split_quantiles
from iqn_blocks.network import IQN


class TorchrlModel(nn.Module):
    """A network as the module of a ``TensorDictModule``.

    ``model(image, floats) -> (action_value, quantiles, tau)`` of shapes ``(*, A)``, ``(*, K, A)``
    and ``(*, K)`` for ``image (*, C, H, W)`` and ``floats (*, F)``, with any leading dimensions
    ``*``, none included. A network of one input takes that one alone. ``action_value`` is the mean
    over the quantiles. In training mode τ is drawn at each call; in eval mode it is the ``K``
    midpoints, so that the greedy action of an observation is always the same.

    torchrl's losses hold the buffers of a network, so that noise drawn from outside never reaches
    them. With ``noisy`` set, new noise is therefore drawn at each call, for online and target
    values alike; without it the noise is off. Set it to False while evaluating.

    Args:
        net: the network; one action offset only.
        num_quantiles: ``K``, ``nn.iqn.n`` by default.
        scheme: how τ is drawn in training mode, the paper's i.i.d. uniform by default.
        noisy: whether noise is drawn at each call.

    Raises:
        ValueError: a network with several action offsets or a core, or another number of
            inputs.
    """

    def __init__(
        self,
        net: IQN,
        *,
        num_quantiles: int | None = None,
        scheme: TauScheme = "uniform",
        noisy: bool = False,
    ) -> None:
        super().__init__()
        if net.n_offsets > 1:
            raise ValueError(
                f"net: torchrl's QValueModule chooses one action at a time, but the network has "
                f"n_actions_per_block = {net.n_offsets}; build it with 1"
            )
        if hasattr(net, "core"):
            raise ValueError(
                "net: found a network with nn.core; accepted: one without, as this adapter keeps "
                "no memory for it; set nn.core to null, or act and train in a loop of your own "
                "(docs/blocks/cores.md)"
            )
        self.net = net
        self.num_quantiles = net.n if num_quantiles is None else num_quantiles
        self.scheme = scheme
        self.noisy = noisy

    def forward(self, *inputs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Mean action values, quantile values and τ; ``inputs`` are those the network has."""
        has_image, has_floats = (
            self.net.inputs.image_shape is not None,
            self.net.inputs.n_floats > 0,
        )
        ranks = [3] * has_image + [1] * has_floats
        if len(inputs) != len(ranks):
            raise ValueError(
                f"inputs: this network takes {len(ranks)} (image, floats: those it has), got "
                f"{len(inputs)}; see in_keys"
            )
        lead = inputs[-1].shape[: inputs[-1].ndim - ranks[-1]]
        rows = [x.reshape(-1, *x.shape[-rank:]) for x, rank in zip(inputs, ranks, strict=True)]
        img = rows[0] if 3 in ranks else None
        floats = rows[-1] if 1 in ranks else None
        if self.noisy:
            self.net.reset_noise()
        else:
            self.net.disable_noise()
        k = self.num_quantiles
        scheme = self.scheme if self.training else "midpoints"
        q, tau = self.net(img, floats, k, scheme=scheme)
        quantiles, taus = split_quantiles(q, k), split_quantiles(tau, k)
        return (
            mean_over_quantiles(q, k).reshape(*lead, -1),
            quantiles.reshape(*lead, *quantiles.shape[1:]),
            taus.reshape(*lead, k),
        )
