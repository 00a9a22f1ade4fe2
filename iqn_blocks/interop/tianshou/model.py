"""The adapter between tianshou's model calls and a network."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from iqn_blocks.blocks import NoisyLinear, SpectralNormConv2d
from iqn_blocks.functional import TauScheme
from iqn_blocks.network import IQN


class TianshouModel(nn.Module):
    """A network as tianshou's ``IQNPolicy`` calls it.

    ``model(obs, sample_size=K, state=…, info=…) -> ((q, taus), state)`` with ``q (B, A, K)`` and
    ``taus (B, K)``. ``obs`` is a ``Batch`` or dict that holds an image and a vector under the given
    keys, or one plain array for networks of one input. Arrays are moved to the network's device
    unchanged: the network scales uint8 images. A one-channel image may lack its channel axis.

    tianshou's target network is a deep copy in eval mode, which gets new parameters but no new
    buffers. A deep copy of this model therefore does spectral normalisation's power iteration also
    in eval mode. The caller controls the noise, see
    :class:`~iqn_blocks.interop.tianshou.IQNPolicy`.

    Args:
        net: the network; one action offset only.
        image_key: key of the image in a mapping.
        vector_key: key of the float vector in a mapping.
        scheme: how τ is drawn, the paper's i.i.d. uniform by default, as tianshou does.

    Raises:
        ValueError: a network with several action offsets or a core, or an observation without its
            key.
    """

    def __init__(
        self,
        net: IQN,
        *,
        image_key: str = "image",
        vector_key: str = "vector",
        scheme: TauScheme = "uniform",
    ) -> None:
        super().__init__()
        if net.n_offsets > 1:
            raise ValueError(
                f"net: tianshou's IQN chooses one action at a time, but the network has "
                f"n_actions_per_block = {net.n_offsets}; build it with 1"
            )
        if hasattr(net, "core"):
            raise ValueError(
                "net: found a network with nn.core; accepted: one without, as this adapter keeps "
                "no memory for it; set nn.core to null, or act and train in a loop of your own "
                "(docs/blocks/cores.md)"
            )
        self.net = net
        self.image_key = image_key
        self.vector_key = vector_key
        self.scheme = scheme
        # Listed once: a policy sets the noise at each call, and a search takes as long as a layer.
        self._noisy_layers = tuple(m for m in net.modules() if isinstance(m, NoisyLinear))

    def reset_noise(self) -> None:
        """Draw new noise in the network."""
        for layer in self._noisy_layers:
            layer.reset_noise()

    def disable_noise(self) -> None:
        """Set the noise of the network to zero."""
        for layer in self._noisy_layers:
            layer.disable_noise()

    def train(self, mode: bool = True) -> TianshouModel:
        """Does nothing if the mode is set already, since tianshou calls it thrice an update."""
        if not mode == self.training == self.net.training:
            super().train(mode)
        return self

    def forward(
        self, obs: Any, sample_size: int, state: Any = None, info: Any = None
    ) -> tuple[tuple[Tensor, Tensor], Any]:
        """Quantile values ``(B, A, K)`` and their τ ``(B, K)``, and ``state`` as it came."""
        img, floats = self._inputs(obs)
        q, tau = self.net(img, floats, sample_size, scheme=self.scheme)
        batch = len(q) // sample_size
        q = q.view(sample_size, batch, q.shape[1]).permute(1, 2, 0)
        return (q, tau.view(sample_size, batch).T), state

    def _inputs(self, obs: Any) -> tuple[Tensor | None, Tensor | None]:
        shape, has_floats = self.net.inputs.image_shape, self.net.inputs.n_floats > 0
        keys = [self.image_key] * (shape is not None) + [self.vector_key] * has_floats
        if not hasattr(obs, "keys"):
            if len(keys) > 1:
                raise ValueError(
                    f"obs: a network of image and floats needs a mapping with the keys "
                    f"{self.image_key!r} and {self.vector_key!r}, got {type(obs).__name__}"
                )
            obs = dict.fromkeys(keys, obs)
        for key in keys:
            if key not in obs:
                raise ValueError(
                    f"obs: no key {key!r} among {sorted(obs.keys())}; name the keys with "
                    f"image_key= and vector_key="
                )
        img = floats = None
        if shape is not None:
            img = torch.as_tensor(obs[self.image_key], device=self.net.device)
            img = img.unsqueeze(1) if img.ndim == 3 and shape[0] == 1 else img
        if has_floats:
            floats = torch.as_tensor(obs[self.vector_key], device=self.net.device)
            floats = floats if floats.is_floating_point() else floats.float()
        return img, floats

    def __deepcopy__(self, memo: dict[int, Any]) -> TianshouModel:
        twin = type(self)(
            copy.deepcopy(self.net, memo),
            image_key=self.image_key,
            vector_key=self.vector_key,
            scheme=self.scheme,
        )
        for module in twin.modules():
            if isinstance(module, SpectralNormConv2d):
                module.iterate_in_eval = True
        twin.training = self.training
        return twin
