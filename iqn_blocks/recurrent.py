"""A network with memory: a core between the state encoder and the quantile path."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, cast

import torch
from einops import rearrange
from torch import Tensor, nn

from iqn_blocks.blocks import TauEmbedding
from iqn_blocks.functional import TauScheme, mask_actions, split_quantiles
from iqn_blocks.network import IQN


class RecurrentQuantiles(NamedTuple):
    """What a recurrent network gives for training: values, their τ and the memory after."""

    q: Tensor
    tau: Tensor
    memory: Tensor


class RecurrentValues(NamedTuple):
    """What a recurrent network gives for acting: mean values and the memory after."""

    q: Tensor
    memory: Tensor


class RecurrentIQN(IQN):
    """An :class:`IQN` with a core: ``s, memory = core(encoder(img, floats), memory, reset)``.

    Every call takes a memory and gives the next; nothing is kept inside. ``memory (B, M)`` is None
    at the start, which stands for ``core.initial_memory(B)``. ``reset (B,)`` is True where the
    observation is the first of an episode: the memory of that sample starts anew before the step.

    A call may be one step of inputs ``(B, …)`` or a whole sequence ``(T, B, …)`` with ``reset
    (T, B)``, whose images are encoded as one batch. Results of a sequence have a leading ``T``, and
    equal those of ``T`` single calls; the memory is that after the last step.

    >>> from iqn_blocks.blocks import GRU, Hadamard, Head, TauEmbedding
    >>> class Encoder(nn.Module):
    ...     state_dim = 4
    ...     def forward(self, img, floats):
    ...         return floats
    >>> net = RecurrentIQN(Encoder(), GRU(4, hidden_dim=8), TauEmbedding(64, 8), Hadamard(8),
    ...                    value_head=Head(8, [16], (1,)), advantage_head=Head(8, [16], (3,)))
    >>> q, memory = net.q_values(None, torch.ones(2, 4))
    >>> q, memory = net.q_values(None, torch.ones(2, 4), memory=memory)
    >>> q.shape, memory.shape
    (torch.Size([2, 3]), torch.Size([2, 8]))
    >>> net(None, torch.ones(5, 2, 4), 6).q.shape  # T = 5, B = 2, K = 6
    torch.Size([5, 12, 3])

    Args:
        encoder: as for :class:`IQN`.
        core: ``(s (B, D), memory (B, M), reset (B,) or None) -> (s' (B, D'), memory)``, with an
            integer ``state_dim`` ``D'`` and ``initial_memory(B) -> (B, M)``.
        tau_embedding: as for :class:`IQN`.
        mixer: as for :class:`IQN`, for states of width ``D'``.
        further: the remaining arguments of :class:`IQN`.

    Raises:
        TypeError: a part lacks what it must have.
        ValueError: as for :class:`IQN`.
    """

    def __init__(
        self,
        encoder: nn.Module,
        core: nn.Module,
        tau_embedding: TauEmbedding,
        mixer: nn.Module,
        **further: Any,
    ) -> None:
        super().__init__(encoder, tau_embedding, mixer, **further)
        width = getattr(core, "state_dim", None)
        if not isinstance(width, int) or width < 1 or not hasattr(core, "initial_memory"):
            raise TypeError(
                f"core: {type(core).__name__} must have an integer state_dim >= 1, found "
                f"{width!r}, and a method initial_memory(batch)"
            )
        self.core = core

    @property
    def state_dim(self) -> int:
        """Width ``D'`` of the core's state."""
        return cast(int, self.core.state_dim)

    def initial_memory(self, batch: int) -> Tensor:
        """The memory ``(B, M)`` at the start of an episode."""
        return cast(Tensor, self.core.initial_memory(batch))  # type: ignore[operator]

    def forward(  # type: ignore[override]  # a memory goes in and comes out
        self,
        img: Tensor | None = None,
        floats: Tensor | None = None,
        num_quantiles: int | None = None,
        tau: Tensor | None = None,
        *,
        scheme: TauScheme = "symmetric",
        generator: torch.Generator | None = None,
        memory: Tensor | None = None,
        reset: Tensor | None = None,
    ) -> RecurrentQuantiles:
        """``q (K·B, A)`` or ``(K·B, N, A)``, ``tau (K·B, 1)``, memory; of sequences ``T`` first.

        Args:
            img: ``(B, C, H, W)`` or ``(T, B, C, H, W)``, otherwise as for :class:`IQN`.
            floats: ``(B, F)`` or ``(T, B, F)``.
            num_quantiles: as for :class:`IQN`.
            tau: as for :class:`IQN`; of a sequence ``(T, K·B, 1)``, or ``(K, 1)`` shared by all.
            scheme: as for :class:`IQN`.
            generator: as for :class:`IQN`.
            memory: ``(B, M)`` before the (first) step; None stands for the initial one.
            reset: bool ``(B,)``, or ``(T, B)`` of a sequence: True where an episode begins.

        Raises:
            ValueError: shapes that do not fit the configuration or each other.
            TypeError: a tensor is missing or has an unusable dtype.
        """
        q, tau, memory, k, steps = self._run(
            img, floats, num_quantiles, tau, scheme, generator, memory, reset
        )
        if steps is not None:
            q, tau = (_by_step(x, k, steps) for x in (q, tau))
        return RecurrentQuantiles(q, tau, memory)

    def quantiles(  # type: ignore[override]
        self,
        img: Tensor | None = None,
        floats: Tensor | None = None,
        num_quantiles: int | None = None,
        tau: Tensor | None = None,
        *,
        scheme: TauScheme = "symmetric",
        generator: torch.Generator | None = None,
        memory: Tensor | None = None,
        reset: Tensor | None = None,
    ) -> RecurrentQuantiles:
        """The same, batch-major: ``q (B, K, A)``, ``tau (B, K)``; of sequences ``(T, B, K, …)``.

        Arguments and errors are those of :meth:`forward`.
        """
        q, tau, memory, k, steps = self._run(
            img, floats, num_quantiles, tau, scheme, generator, memory, reset
        )
        q, tau = split_quantiles(q, k), split_quantiles(tau, k).squeeze(-1)
        if steps is not None:
            q, tau = (rearrange(x, "(t b) ... -> t b ...", t=steps) for x in (q, tau))
        return RecurrentQuantiles(q, tau, memory)

    def q_values(  # type: ignore[override]
        self,
        img: Tensor | None = None,
        floats: Tensor | None = None,
        *,
        tau: Tensor | None = None,
        risk: Callable[[Tensor], Tensor] | None = None,
        mask: Tensor | None = None,
        memory: Tensor | None = None,
        reset: Tensor | None = None,
    ) -> RecurrentValues:
        """Mean action values ``(B, A)`` or ``(B, N, A)`` and memory; of sequences ``(T, B, …)``.

        Args:
            img: as in :meth:`forward`.
            floats: as in :meth:`forward`.
            tau: as for :class:`IQN`.
            risk: as for :class:`IQN`.
            mask: as for :class:`IQN`, shaped like the values.
            memory: as in :meth:`forward`.
            reset: as in :meth:`forward`.

        Raises:
            ValueError: shapes that do not fit the configuration or each other.
            TypeError: a tensor is missing or has an unusable dtype.
        """
        tau = self._distorted(tau, risk)
        steps, img, floats = _flat(img, floats)
        self.inputs.check(img, floats)
        state, memory = self._through_time(self.encode(img, floats), steps, memory, reset)
        q = self.mean_values(state, tau)
        if steps is not None:
            q = rearrange(q, "(t b) ... -> t b ...", t=steps)
        return RecurrentValues(q if mask is None else mask_actions(q, mask), memory)

    def _run(
        self,
        img: Tensor | None,
        floats: Tensor | None,
        num_quantiles: int | None,
        tau: Tensor | None,
        scheme: TauScheme,
        generator: torch.Generator | None,
        memory: Tensor | None,
        reset: Tensor | None,
    ) -> tuple[Tensor, Tensor, Tensor, int, int | None]:
        """``q`` and ``tau`` of ``K·T·B`` quantile-major rows, the memory after, ``K``, ``T``."""
        steps, img, floats = _flat(img, floats)
        batch = self.inputs.check(img, floats)
        if steps is not None and tau is not None and tau.shape != (num_quantiles, 1):
            tau = _by_quantile(tau, steps, batch // steps)
        num_quantiles = self._check_tau(tau, num_quantiles, batch, scheme, generator)
        state, memory = self._through_time(self.encode(img, floats), steps, memory, reset)
        q, tau = self._at_tau(state, tau, num_quantiles, scheme, generator)
        return q, tau, memory, num_quantiles, steps

    def _through_time(
        self, state: Tensor, steps: int | None, memory: Tensor | None, reset: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """``(T·B, D) -> (T·B, D')`` and the memory after the last step."""
        rows = state.shape[0]  # len() would make a constant of it in an exported program
        shape = (rows,) if steps is None else (steps, rows // steps)
        initial = self.initial_memory(shape[-1])
        memory = initial if memory is None else memory
        if memory.shape != initial.shape:
            raise ValueError(
                f"memory: expected shape {tuple(initial.shape)}, got {tuple(memory.shape)}; pass "
                f"what the step before gave, or None at the start"
            )
        if reset is not None and reset.dtype != torch.bool:
            raise TypeError(
                f"reset: expected torch.bool (True where an episode begins), got {reset.dtype}"
            )
        if reset is not None and reset.shape != shape:
            raise ValueError(f"reset: expected shape {shape}, got {tuple(reset.shape)}")
        if steps is None:
            state, memory = self.core(state, memory, reset)
            return state, memory
        resets = [None] * steps if reset is None else reset.unbind()
        states = []
        for s, first in zip(state.view(*shape, -1).unbind(), resets, strict=True):
            s, memory = self.core(s, memory, first)
            states.append(s)
        return torch.cat(states), memory


def _flat(
    img: Tensor | None, floats: Tensor | None
) -> tuple[int | None, Tensor | None, Tensor | None]:
    """``T`` and the inputs as one batch ``(T·B, …)`` where they are a sequence, else None."""
    axes = {
        name: tuple(x.shape[:2])
        for name, x, rank in (("img", img, 5), ("floats", floats, 3))
        if isinstance(x, Tensor) and x.ndim == rank
    }
    given = [name for name, x in (("img", img), ("floats", floats)) if x is not None]
    if not axes:
        return None, img, floats
    if sorted(axes) != sorted(given) or len(set(axes.values())) > 1:
        found = {"img": img, "floats": floats}
        shapes = ", ".join(f"{name} {tuple(x.shape)}" for name, x in found.items() if x is not None)
        raise ValueError(
            f"img, floats: a sequence has shape (T, B, …) in both, with the same T and B; found "
            f"{shapes}"
        )
    (steps, _), *_ = axes.values()
    if steps == 0:
        raise ValueError(f"{given[0]}: found a sequence of 0 steps; accepted: at least 1")
    img, floats = (None if x is None else x.flatten(0, 1) for x in (img, floats))
    return steps, img, floats


def _by_step(x: Tensor, k: int, steps: int) -> Tensor:
    """Quantile-major rows of a sequence, step by step: ``(K·T·B, …) -> (T, K·B, …)``."""
    return rearrange(x, "(k t b) ... -> t (k b) ...", k=k, t=steps)


def _by_quantile(tau: Tensor, steps: int, batch: int) -> Tensor:
    """The inverse for τ: ``(T, K·B, 1) -> (K·T·B, 1)``."""
    if tau.ndim != 3 or tau.shape[0] != steps or batch == 0 or tau.shape[1] % batch:
        raise ValueError(
            f"tau: expected shape (T, K·B, 1) with T = {steps} and B = {batch}, or (K, 1) "
            f"together with num_quantiles=K, got {tuple(tau.shape)}"
        )
    return rearrange(tau, "t (k b) one -> (k t b) one", b=batch)
