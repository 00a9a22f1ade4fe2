"""A frozen copy of a network for acting: the same values from fewer operations."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from typing import Any, Concatenate, ParamSpec, TypeVar, cast

import torch
from torch import Tensor, nn

from iqn_blocks.fast.heads import FoldedHeads, can_fold
from iqn_blocks.fast.plain import plain_copy
from iqn_blocks.inputs import check_has_values
from iqn_blocks.network import IQN

P = ParamSpec("P")
R = TypeVar("R")
Made = TypeVar("Made", bound=nn.Module)


def _of_one_version(method: Callable[Concatenate[IQN, P], R]) -> Callable[Concatenate[Any, P], R]:
    """A method of IQN that reads ``self.folded`` once: a refresh cannot change it midway."""

    @functools.wraps(method)
    def call(self: InferenceIQN, *args: P.args, **kwargs: P.kwargs) -> R:
        return method(self.folded, *args, **kwargs)

    return cast("Callable[Concatenate[Any, P], R]", call)


class InferenceIQN(nn.Module):
    """The copy that :func:`~iqn_blocks.optimize_for_inference` makes, without gradients.

    ``forward``, ``quantiles``, ``q_values``, ``encode`` and ``example_inputs`` are those of
    :class:`~iqn_blocks.IQN`. Noise and statistics are those of the last refresh. Save and
    :func:`~iqn_blocks.describe` the network that the copy was made from.

    Any threads may call these methods while another one refreshes: a call sees the weights from
    before or from after, never a mixture.

    Args:
        net: the network.
        noise: keep the noise that the network has now; False leaves it out.
    """

    folded: FoldedIQN

    def __init__(self, net: IQN, *, noise: bool = True) -> None:
        super().__init__()
        self.noise = noise
        self.folded = fold(net, noise=noise)
        self.config, self.inputs, self.n, self.k = net.config, net.inputs, net.n, net.k
        self.state_dim, self.action_sizes = net.state_dim, net.action_sizes
        self.n_actions, self.n_offsets = net.n_actions, net.n_offsets

    forward = _of_one_version(IQN.forward)
    quantiles = _of_one_version(IQN.quantiles)
    q_values = _of_one_version(IQN.q_values)
    encode = _of_one_version(IQN.encode)
    example_inputs = _of_one_version(IQN.example_inputs)

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the parameters."""
        return self.folded.dtype

    @property
    def device(self) -> torch.device:
        """The device of the parameters."""
        return self.folded.device

    def refresh(self, net: IQN, *, in_place: bool = False) -> None:
        """Copy the weights, statistics and noise that ``net`` has now.

        The copy gets new tensors, all at once. ``in_place`` overwrites the old ones instead, for
        recorded CUDA graphs and for processes that share the copy's memory; then no other thread or
        process may act during the call.

        Raises:
            TypeError: ``net`` is not an IQN.
            ValueError: ``net`` is another network than that of the copy.
        """
        self._check(net)
        self._replace(self, "folded", fold(net, noise=self.noise), in_place)

    def refresh_heads(self, net: IQN, *, in_place: bool = False) -> None:
        """Copy the heads alone, which hold the noise: for use after ``net.reset_noise()``.

        Arguments and errors are those of :meth:`refresh`.
        """
        if not isinstance(self.folded.advantage_head, FoldedHeads):  # two parts, not one
            return self.refresh(net, in_place=in_place)
        self._check(net)
        heads = _frozen(net, folded_heads, noise=self.noise)
        self._replace(self.folded, "advantage_head", heads, in_place)

    def _check(self, net: IQN) -> None:
        if type(net) is not IQN:
            raise TypeError(f"net: found {type(net).__name__}, accepted is an iqn_blocks.IQN")
        if net.config != self.config:
            raise ValueError(
                "net: found a network of another configuration than the copy's; make a new copy "
                "with optimize_for_inference"
            )
        check_has_values(net.device)

    @torch.no_grad()
    def _replace(self, parent: nn.Module, name: str, new: nn.Module, in_place: bool) -> None:
        new = new.to(self.device, self.dtype)
        old, tensors = parent.get_submodule(name).state_dict(), new.state_dict()
        if {key: x.shape for key, x in old.items()} != {key: x.shape for key, x in tensors.items()}:
            raise ValueError(
                "net: found parameters of other names or shapes than the copy's; make a new copy "
                "with optimize_for_inference"
            )
        if in_place:
            torch._foreach_copy_(list(old.values()), list(tensors.values()))
        else:
            setattr(parent, name, new)  # in one step: a call uses the old part or the new one


class FoldedIQN(IQN):
    """A network of plain parts; its ``advantage_head`` is both heads and the dueling if possible.

    ``phi`` is the embedding of the τ that ``q_values`` averages over by default.
    """

    phi: Tensor

    def __init__(self, net: IQN) -> None:
        heads, value_head = folded_heads(net), None
        if net.value_head is not None and not isinstance(heads, FoldedHeads):
            value_head = plain_copy(net.value_head)
        super().__init__(
            plain_copy(net.encoder),
            plain_copy(net.tau_embedding),
            plain_copy(net.mixer),
            value_head=value_head,
            advantage_head=heads,
            action_sizes=net.action_sizes,
            dueling=net.dueling,
            fractions=None if net.fractions is None else plain_copy(net.fractions),
            n=net.n,
            k=net.k,
            inputs=net.inputs,
            config=net.config,
        )
        self.register_buffer("phi", net.tau_embedding(net.acting_tau()))

    def _mean_values(self, state: Tensor, tau: Tensor | None) -> Tensor:
        """The heads compute the mean where it is cheapest."""
        heads = self.advantage_head
        if not isinstance(heads, FoldedHeads):
            return super()._mean_values(state, tau)
        phi = self.phi if tau is None else self.tau_embedding(tau)
        q: Tensor = heads(self.mixer(state, phi, len(phi)), mean_over=len(phi))
        return q


def folded_heads(net: IQN) -> nn.Module:
    """Both heads and the dueling as one part; else the advantage head alone."""
    value, advantage = net.value_head, net.advantage_head
    joins = net.dueling == "per_level" and net.fractions is None
    if joins and can_fold(value) and can_fold(advantage):
        return FoldedHeads(value, advantage, net.action_mask)
    return plain_copy(advantage)


def fold(net: IQN, *, noise: bool = True) -> FoldedIQN:
    """The folded copy of a network, frozen; ``noise=False`` leaves its noise out."""
    return _frozen(net, FoldedIQN, noise=noise)


def _frozen(net: IQN, make: Callable[[IQN], Made], *, noise: bool) -> Made:
    if not noise:
        net = copy.deepcopy(net)
        net.disable_noise()
    with torch.no_grad(), torch.autocast(net.device.type, enabled=False):
        return make(net).requires_grad_(False).eval()
