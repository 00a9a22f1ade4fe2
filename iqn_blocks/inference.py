"""A folded copy of a network for acting: the same values from fewer operations."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import TypeVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from iqn_blocks.blocks import Head, NoisyLinear, SpectralNormConv2d
from iqn_blocks.blocks.dense import weight_and_bias
from iqn_blocks.blocks.packed import Packed, PackedConv2d, PackedLinear, PackedResidualBlock
from iqn_blocks.blocks.stems import ConvStem, ImpalaStage, ResidualBlock
from iqn_blocks.functional import hadamard_mix, mean_over_quantiles
from iqn_blocks.network import IQN, QuantileNetwork

Part = TypeVar("Part", bound=nn.Module)


def optimize_for_inference(net: IQN) -> InferenceIQN:
    """A frozen copy of ``net`` for acting: the same ``q_values`` and ``forward`` up to rounding.

    Folded into plain weights are spectral normalisation, the noise of the moment and the dueling
    mean; the heads' first layers are one matrix product; ``q_values`` averages over τ before the
    readout, and ``φ`` of its default τ is computed once. After an update of ``net`` call
    :meth:`InferenceIQN.refresh`, after new noise alone :meth:`InferenceIQN.refresh_heads`.

    >>> import iqn_blocks
    >>> net = iqn_blocks.build({"n_actions": 3, "float_input_dim": 2, "nn": {
    ...     "vis": {"no_image": True}}})
    >>> fast = optimize_for_inference(net)
    >>> torch.allclose(fast.q_values(None, torch.ones(1, 2)),
    ...                net.q_values(None, torch.ones(1, 2)), atol=1e-5)
    True
    """
    return InferenceIQN(net)


class InferenceIQN(QuantileNetwork):
    """What :func:`optimize_for_inference` gives. In eval mode and without gradients.

    Like :class:`~iqn_blocks.IQN` it has ``forward``, ``q_values`` and ``example_inputs``. Noise and
    statistics are those of the last refresh: it has no ``reset_noise``, ``disable_noise`` or
    ``set_float_stats``, and neither ``save_pretrained`` nor ``recompute``. Save and
    :func:`~iqn_blocks.describe` the network that it was made from.
    """

    phi: Tensor

    def __init__(self, net: IQN) -> None:
        encoder = _with_packed_stems(_plain_copy(net.encoder))
        super().__init__(net.config, encoder, copy.deepcopy(net.tau_embedding))
        self.heads = FoldedHeads(net.value_head, net.advantage_head)
        self.register_buffer("phi", net.tau_embedding(net.acting_tau()).detach())
        self.encoder.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.requires_grad_(False)
        self.eval()
        self.refresh(net)

    @torch.no_grad()
    def refresh(self, net: IQN) -> None:
        """Take over the weights, statistics and noise that ``net`` has now, in place.

        Raises:
            ValueError: ``net`` was built from another configuration.
        """
        self._check(net)
        phi = net.tau_embedding(net.acting_tau())
        _write(
            chain(
                _copies(self.encoder, net.encoder),
                _copies(self.tau_embedding, net.tau_embedding),
                [(self.phi, phi)],
            )
        )
        for layer in self.encoder.modules():
            if isinstance(layer, Packed):
                layer.pack()
        self.refresh_heads(net)

    @torch.no_grad()
    def refresh_heads(self, net: IQN) -> None:
        """Take over the heads alone, where the noise is: for use after ``net.reset_noise()``."""
        self._check(net)
        self.heads.take_over(net.value_head, net.advantage_head)

    def _check(self, net: IQN) -> None:
        if net.config != self.config:
            raise ValueError(
                "refresh: the network was built from another configuration; make a new copy with "
                "optimize_for_inference"
            )

    def quantile_values(self, state: Tensor, tau: Tensor, num_quantiles: int) -> Tensor:
        """As :meth:`IQN.quantile_values`."""
        x = hadamard_mix(state, self.tau_embedding(tau), num_quantiles)
        return self.heads.read_out(self.heads.features(x))

    def mean_values(self, state: Tensor, tau: Tensor | None) -> Tensor:
        """As :meth:`IQN.mean_values`; hidden features are averaged, since the readout is linear."""
        phi = self.phi if tau is None else self.tau_embedding(tau)
        features = self.heads.features(hadamard_mix(state, phi, len(phi)))
        return self.heads.read_out(_mean_over_quantiles(features, len(phi)))


class FoldedHeads(nn.Module):
    """Value and advantage head as one: ``(R, D) -> (R, H_V + H_A) -> (R, *out_shape)``.

    With ``h_V, h_A`` the heads' hidden features, ``Q = V + Adv − mean_A Adv`` is linear in
    ``[h_V, h_A]``; its matrix is made once. Without trunks the first hidden layers are one Linear.
    """

    weight: Tensor
    bias: Tensor

    def __init__(self, value: Head, advantage: Head) -> None:
        super().__init__()
        self.value = _plain_copy(value)
        self.advantage = _plain_copy(advantage)
        self.out_shape = advantage.out_shape
        first = [head.first_hidden for head in (value, advantage)]
        self.value_width = len(weight_and_bias(first[0].linear)[1])
        # One activation over both heads serves where nothing but it follows the first Linear.
        plain = all(layer.norm is None for layer in first)
        plain = plain and first[0].negative_slope == first[1].negative_slope
        self.joint = plain and len(value.hidden) == len(advantage.hidden) == 1
        slope = first[0].negative_slope if self.joint else None
        with_trunk = any(head.trunk is not None for head in (value, advantage))
        self.first = None
        if not with_trunk:
            self.first = PackedLinear(*self._stacked(value, advantage), negative_slope=slope)
        for name, tensor in zip(("weight", "bias"), self._readout(value, advantage), strict=True):
            self.register_buffer(name, tensor)
        for head in (self.value, self.advantage):
            head.readout = nn.Identity()
            if self.first is not None:
                head.first_hidden.linear = nn.Identity()

    def features(self, x: Tensor) -> Tensor:
        """Hidden features of both heads, side by side: ``(R, D) -> (R, H_V + H_A)``."""
        if self.first is None:
            return torch.cat([self.value.features(x), self.advantage.features(x)], dim=1)
        linear_out: Tensor = self.first(x)
        if self.joint:
            return linear_out
        parts = [linear_out[:, : self.value_width], linear_out[:, self.value_width :]]
        if linear_out.requires_grad:  # views of one tensor may not be activated in place
            parts = [part.clone() for part in parts]
        v, a = parts
        return torch.cat([self.value.finish(v), self.advantage.finish(a)], dim=1)

    def read_out(self, features: Tensor) -> Tensor:
        """``q`` from hidden features: ``(R, H_V + H_A) -> (R, *out_shape)``."""
        q = F.linear(features, self.weight, self.bias)
        return q.view(q.shape[0], *self.out_shape)

    def take_over(self, value: Head, advantage: Head) -> None:
        """Write what two live heads have now into the own tensors."""
        copies = [
            *zip((self.weight, self.bias), self._readout(value, advantage), strict=True),
            *_copies(self.value, value),
            *_copies(self.advantage, advantage),
        ]
        if self.first is None:
            _write(copies)
            return
        own = self.first.weight, self.first.bias
        _write([*copies, *zip(own, self._stacked(value, advantage), strict=True)])
        self.first.pack()

    @torch.no_grad()
    def _readout(self, value: Head, advantage: Head) -> tuple[Tensor, Tensor]:
        (w_v, b_v), (w_a, b_a) = (weight_and_bias(head.readout) for head in (value, advantage))
        # Centred over the actions of each offset: the dueling mean.
        w_a = w_a.view(*self.out_shape, -1)
        w_a = (w_a - w_a.mean(-2, keepdim=True)).flatten(0, -2)
        b_a = b_a.view(self.out_shape)
        b_a = (b_a - b_a.mean(-1, keepdim=True)).flatten()
        return torch.cat([w_v.expand(len(w_a), -1), w_a], dim=1), b_v + b_a

    @torch.no_grad()
    def _stacked(self, value: Head, advantage: Head) -> tuple[Tensor, Tensor]:
        layers = [weight_and_bias(head.first_hidden.linear) for head in (value, advantage)]
        return torch.cat([weight for weight, _ in layers]), torch.cat([bias for _, bias in layers])


def _mean_over_quantiles(features: Tensor, k: int) -> Tensor:
    """``(K·B, H) -> (B, H)``."""
    autocast = torch.is_autocast_enabled(features.device.type)
    if features.dtype != torch.float32 or autocast:  # where 1 / K may have few digits
        return mean_over_quantiles(features, k)
    # A product takes a third of the time of a sum and a division.
    weights = features.new_full((1, k), 1 / k)
    return (weights @ features.view(k, -1)).view(-1, features.shape[1])


def _plain_copy(module: Part) -> Part:
    """A deep copy with ``nn.Conv2d`` and ``nn.Linear`` for spectral-norm and noisy layers."""
    memo: dict[int, nn.Module] = {}
    for layer in module.modules():
        if isinstance(layer, SpectralNormConv2d):
            memo[id(layer)] = nn.Conv2d(
                layer.in_channels,
                layer.out_channels,
                *layer.geometry,
                device=layer.weight.device,
                dtype=layer.weight.dtype,
            )
        elif isinstance(layer, NoisyLinear):
            memo[id(layer)] = nn.Linear(
                layer.in_features,
                layer.out_features,
                device=layer.weight_mu.device,
                dtype=layer.weight_mu.dtype,
            )
    return copy.deepcopy(module, memo)


def _with_packed_stems(encoder: nn.Module) -> nn.Module:
    """The encoder with the convolutions of its stems packed, in place, under the same names.

    What was replaced by something of the user's own, or carries hooks, stays as it is.
    """
    for module in list(encoder.modules()):
        if type(module) is ConvStem and all(map(_can_pack, module.convs)):
            slope = getattr(module.activation, "negative_slope", 0.0)
            module.convs = nn.ModuleList(
                PackedConv2d(cast(nn.Conv2d, conv), negative_slope=slope) for conv in module.convs
            )
            module.add_module("activation", nn.Identity())
        elif type(module) is ImpalaStage and _can_pack(module.conv):
            blocks = [block for block in module.blocks if type(block) is ResidualBlock]
            convs = [conv for block in blocks for conv in (block.conv1, block.conv2)]
            if len(blocks) < len(module.blocks) or not all(map(_can_pack, convs)):
                continue
            module.add_module("conv", PackedConv2d(module.conv))
            module.blocks = nn.Sequential(
                *(PackedResidualBlock(block.conv1, block.conv2) for block in blocks)
            )
    return encoder


def _can_pack(conv: nn.Module) -> bool:
    return (
        type(conv) is nn.Conv2d
        and conv.bias is not None
        and conv.groups == 1
        and conv.dilation == (1, 1)
        and conv.padding_mode == "zeros"
        and not conv._forward_hooks
        and not conv._forward_pre_hooks
    )


def _copies(folded: nn.Module, live: nn.Module) -> Iterator[tuple[Tensor, Tensor]]:
    """Pairs of a plain copy's tensors and the live module's, normalised and under noise."""
    layers = dict(live.named_modules())
    for name, target in folded.named_modules():
        source = layers[name]
        tensors: dict[str, Tensor | None]
        if isinstance(source, SpectralNormConv2d):
            tensors = {**source._parameters, "weight": source.normalized_weight()}
        elif isinstance(source, NoisyLinear):
            tensors = dict(zip(("weight", "bias"), source.effective_weight(), strict=True))
        else:
            tensors = {**source._parameters, **source._buffers}
        own = chain(target.named_parameters(recurse=False), target.named_buffers(recurse=False))
        for key, tensor in own:
            live_tensor = tensors[key]
            assert live_tensor is not None
            yield tensor, live_tensor


def _write(copies: Iterable[tuple[Tensor, Tensor]]) -> None:
    targets, sources = zip(*copies, strict=True)
    torch._foreach_copy_(targets, sources)
