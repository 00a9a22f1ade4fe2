"""The network: state encoder, τ embedding, mixer, heads and dueling, for every topology."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from os import PathLike
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, NoReturn, cast, get_args

import torch
from torch import Tensor, nn

from iqn_blocks.blocks import FloatNormalization, FractionProposer, TauEmbedding
from iqn_blocks.blocks.recompute import recomputing
from iqn_blocks.blocks.transformer import EncoderLayer
from iqn_blocks.checkpoint.saving import save
from iqn_blocks.config import Config
from iqn_blocks.functional import (
    FractionProposals,
    TauScheme,
    dueling,
    existing_actions,
    mask_actions,
    mean_over_actions,
    mean_over_quantiles,
    midpoints,
    sample_tau,
    split_quantiles,
    weighted_mean_over_quantiles,
    wide_dtype,
)
from iqn_blocks.inputs import InputSpec, check_values, count_quantiles
from iqn_blocks.risk import check_risk

Dueling = Literal["per_level", "at_midpoints"]


class ExampleInputs(NamedTuple):
    """Tensors that fit a network: ``img (B, C, H, W)``, ``floats (B, F)``; None where unused."""

    img: Tensor | None
    floats: Tensor | None


class IQN(nn.Module):
    """Implicit quantile network (arXiv:1806.06923): ``(img, floats) ─▶ s ─▶ q``.

    ``s = encoder(img, floats)`` of shape ``(B, D)``, ``x = mixer(s, φ(τ))``,
    ``q = V(x) + Adv(x) − mean_A Adv(x)``, or ``q = Adv(x)`` without a value head.
    :func:`iqn_blocks.build` makes one from a configuration; by hand:

    >>> from iqn_blocks.blocks import Hadamard, Head, TauEmbedding
    >>> class Encoder(nn.Module):
    ...     state_dim = 4
    ...     def forward(self, img, floats):
    ...         return floats
    >>> net = IQN(Encoder(), TauEmbedding(64, 4), Hadamard(4),
    ...           value_head=Head(4, [16], (1,)), advantage_head=Head(4, [16], (3,)))
    >>> net.q_values(None, torch.ones(2, 4)).shape
    torch.Size([2, 3])

    Args:
        encoder: ``(img, floats) -> s (B, D)``, with an integer ``state_dim`` ``D``.
        tau_embedding: ``τ (R, 1) -> φ (R, P)``.
        mixer: ``(s (B, D), φ (R, P), K) -> x (K·B, out_dim)`` for ``R = K·B`` or ``R = K``, with
            integers ``phi_dim`` ``P`` and ``out_dim``.
        value_head: ``(R, out_dim) -> (R, 1)``; None where the advantage head gives ``q`` itself.
        advantage_head: ``(R, out_dim) -> (R, A)``, or ``(R, N, A)`` for ``N`` action offsets, with
            that shape as ``out_shape``. Either head may have an integer ``n_levels`` ``M``: it then
            reads ``x`` at ``M`` midpoints, whatever τ a call asks for, and is a function of τ
            itself: ``(x (M·B, out_dim), τ (K·B, 1) or (K, 1), K) -> (K·B, …)``.
        action_sizes: how many of the ``A`` actions there are at each of the ``N`` offsets, for
            blocks of unequal sizes; the largest is ``A``. Values of the others are the dtype's
            finite minimum, and no mean over actions counts them. None where all have ``A``.
        dueling: ``per_level`` subtracts ``mean_A Adv(s, τ)``, which heads with ``n_levels`` refuse.
            ``at_midpoints`` subtracts the mean of ``Adv(s, τ')`` over actions and the ``k``
            midpoints ``τ'``: it does not depend on τ, so that ``q`` rises with τ where both heads
            do, and costs ``k`` further rows.
        fractions: proposes ``K`` fractions for each state; they stand in for τ that is not given,
            whatever ``scheme`` says. None where τ is drawn.
        n: quantiles ``K`` of a call that names none; those of ``fractions`` where there are any.
        k: midpoint quantiles that :meth:`q_values` averages over.
        inputs: the inputs to check and to make examples of; without it nothing is checked.
        config: what the network was built from; None by hand.

    Raises:
        TypeError: a part lacks an integer that it must have.
        ValueError: the widths of two parts differ, ``action_sizes`` that are not those of the
            advantage head, or a ``dueling`` that is unknown or that a head refuses.
    """

    def __init__(
        self,
        encoder: nn.Module,
        tau_embedding: TauEmbedding,
        mixer: nn.Module,
        *,
        value_head: nn.Module | None = None,
        advantage_head: nn.Module,
        action_sizes: Sequence[int] | None = None,
        dueling: Dueling = "per_level",
        fractions: FractionProposer | None = None,
        n: int = 8,
        k: int = 32,
        inputs: InputSpec | None = None,
        config: Config | None = None,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.tau_embedding = tau_embedding
        self.mixer = mixer
        self.advantage_head = advantage_head
        self.value_head = value_head
        self.dueling = dueling
        self.fractions = fractions
        self.n = n if fractions is None else fractions.n_fractions
        self.k = k
        self.inputs = inputs or InputSpec()
        self.config = config
        self._recompute = False
        _check_widths(self)
        if dueling not in get_args(Dueling):
            accepted = ", ".join(map(repr, get_args(Dueling)))
            raise ValueError(
                f"dueling: got {dueling!r}, accepted are {accepted}; for none, leave out value_head"
            )
        if value_head is not None and dueling == "per_level":
            _check_per_level(value_head, advantage_head)
        self.action_sizes = self._checked_sizes(action_sizes)

    @property
    def state_dim(self) -> int:
        """Width ``D`` of the state."""
        return cast(int, self.encoder.state_dim)

    @property
    def n_actions(self) -> int:
        """Actions ``A``, from the advantage head's ``out_shape``."""
        return cast(int, self.advantage_head.out_shape[-1])  # type: ignore[index]

    @property
    def n_offsets(self) -> int:
        """Action offsets ``N`` of a block; 1 without them."""
        shape = cast("tuple[int, ...]", self.advantage_head.out_shape)
        return shape[0] if len(shape) > 1 else 1

    def _checked_sizes(self, sizes: Sequence[int] | None) -> tuple[int, ...]:
        """The actions at each offset; by default all have ``A``."""
        checked = (self.n_actions,) * self.n_offsets if sizes is None else (*sizes,)
        if len(checked) != self.n_offsets or max(checked) != self.n_actions or min(checked) < 1:
            raise ValueError(
                f"action_sizes: got {checked}, but the advantage head has the out_shape "
                f"{self.advantage_head.out_shape}; accepted: {self.n_offsets} sizes from 1, of "
                f"which the largest is {self.n_actions}; change one of the two"
            )
        return checked

    @property
    def action_mask(self) -> Tensor | None:
        """``(N, A)``, True where an offset has an action; None where all offsets have all."""
        if len(set(self.action_sizes)) == 1:
            return None
        return existing_actions(self.action_sizes, self.device)

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the parameters, taken from the τ projection."""
        return self.tau_embedding.projection.weight.dtype

    @property
    def device(self) -> torch.device:
        """The device of the parameters, taken from the τ projection."""
        return self.tau_embedding.projection.weight.device

    @property
    def recompute(self) -> bool:
        """Whether wide tensors are computed again in backward instead of being kept for it.

        These are ``φ``, the mixed vector and the feed-forward activations of native transformer
        layers; values and gradients are the same. It does not work under ``torch.func`` transforms.
        """
        return self._recompute

    @recompute.setter
    def recompute(self, on: bool) -> None:
        self._recompute = on
        for layer in self.modules():
            if isinstance(layer, EncoderLayer):
                layer.recompute = on

    def forward(
        self,
        img: Tensor | None = None,
        floats: Tensor | None = None,
        num_quantiles: int | None = None,
        tau: Tensor | None = None,
        *,
        scheme: TauScheme = "symmetric",
        generator: torch.Generator | None = None,
        **memory: NoReturn,
    ) -> tuple[Tensor, Tensor]:
        """Quantile values ``q (K·B, A)``, or ``(K·B, N, A)``, and their ``tau (K·B, 1)``.

        Args:
            img: ``(B, C, H, W)``, uint8 or already normalised floating; ignored with ``no_image``.
            floats: ``(B, F)`` in raw units; ``None`` when ``F = 0``.
            num_quantiles: ``K``, ``nn.iqn.n`` by default.
            tau: ``(K·B, 1)``, or ``(K, 1)`` shared by the batch together with ``num_quantiles=K``;
                drawn when omitted.
            scheme: how τ is drawn, see :func:`iqn_blocks.functional.sample_tau`.
            generator: randomness for drawing τ; torch's global generator when omitted.
            memory: none, and no ``reset``: those are for networks with a core.

        Raises:
            ValueError: shapes that do not fit the configuration or each other.
            TypeError: a tensor is missing or has an unusable dtype, or a memory is given.
        """
        _refuse(memory)
        batch = self.inputs.check(img, floats)
        num_quantiles = self._check_tau(tau, num_quantiles, batch, scheme, generator)
        state = self.encode(img, floats)
        return self._at_tau(state, tau, num_quantiles, scheme, generator)

    if TYPE_CHECKING:  # nn.Module says that a call takes and gives anything

        def __call__(
            self,
            img: Tensor | None = None,
            floats: Tensor | None = None,
            num_quantiles: int | None = None,
            tau: Tensor | None = None,
            *,
            scheme: TauScheme = "symmetric",
            generator: torch.Generator | None = None,
            **memory: NoReturn,
        ) -> tuple[Tensor, Tensor]: ...

    def quantiles(
        self,
        /,
        img: Tensor | None = None,
        floats: Tensor | None = None,
        num_quantiles: int | None = None,
        tau: Tensor | None = None,
        *,
        scheme: TauScheme = "symmetric",
        generator: torch.Generator | None = None,
        **memory: NoReturn,
    ) -> tuple[Tensor, Tensor]:
        """The same as the losses take it: ``(B, K, A)`` or ``(B, K, N, A)``, and τ ``(B, K)``.

        Arguments and errors are those of :meth:`forward`.
        """
        _refuse(memory)
        k = num_quantiles
        if k is None and tau is None:
            k = self.n
        q, tau = self(img, floats, k, tau, scheme=scheme, generator=generator)
        if k is None:
            k = count_quantiles(tau, None, self.inputs.check(img, floats))
        return split_quantiles(q, k), split_quantiles(tau, k).squeeze(-1)

    def encode(self, img: Tensor | None = None, floats: Tensor | None = None) -> Tensor:
        """The encoder's state ``s (B, D)``; the inputs are those of :meth:`forward`, unchecked.

        Raises:
            ValueError: the encoder gives another shape than its ``state_dim`` promises.
        """
        state: Tensor = self.encoder(img, floats)
        if state.ndim != 2 or state.shape[1] != self.encoder.state_dim:
            raise ValueError(
                f"{type(self.encoder).__name__}: gave a state of shape {tuple(state.shape)}, but "
                f"its state_dim promises (B, {self.encoder.state_dim})"
            )
        return state

    def propose(self, state: Tensor) -> FractionProposals:
        """Fractions ``(B, K+1)``, midpoints ``(B, K)`` and entropy ``(B,)`` for ``state (B, D)``.

        Raises:
            ValueError: a network that draws its τ.
        """
        if self.fractions is None:
            raise ValueError(
                "propose: this network draws its τ; build it with nn.iqn.fractions: fqf, or pass "
                "fractions= to IQN"
            )
        proposals: FractionProposals = self.fractions(state)
        return proposals

    def _check_tau(
        self,
        tau: Tensor | None,
        num_quantiles: int | None,
        batch: int,
        scheme: TauScheme,
        generator: torch.Generator | None,
    ) -> int:
        """``K`` of a call."""
        if tau is not None:
            if generator is not None:
                raise ValueError(
                    "generator: nothing is drawn when tau is given; pass one of the two"
                )
            return count_quantiles(tau, num_quantiles, batch)
        if self.fractions is not None:
            if generator is not None:
                raise ValueError(
                    "generator: nothing is drawn, fractions are proposed; leave it out"
                )
            if num_quantiles not in (None, self.n):
                raise ValueError(
                    f"num_quantiles: found {num_quantiles}, but {self.n} fractions are proposed; "
                    f"leave it out, or pass tau"
                )
            return self.n
        if num_quantiles is None and self.n % 2 and scheme == "symmetric":
            raise ValueError(
                f"nn.iqn.n: found {self.n}, but scheme 'symmetric' pairs τ with 1 − τ and needs an "
                f"even number; set it, pass num_quantiles, or use scheme='uniform'"
            )
        return self.n if num_quantiles is None else num_quantiles

    def _at_tau(
        self,
        state: Tensor,
        tau: Tensor | None,
        num_quantiles: int,
        scheme: TauScheme,
        generator: torch.Generator | None,
    ) -> tuple[Tensor, Tensor]:
        """``q`` and ``τ`` of ``K·B`` rows, drawn where none is given."""
        batch = state.shape[0]
        if tau is None and self.fractions is not None:
            tau = self.propose(state).tau_hat.T.reshape(-1, 1)
        if tau is None:
            tau = sample_tau(
                batch,
                num_quantiles,
                scheme=scheme,
                generator=generator,
                device=state.device,
                dtype=wide_dtype(self.dtype),
            )
        q = self.quantile_values(state, tau, num_quantiles)
        if tau.shape[0] != num_quantiles * batch:
            tau = tau.repeat_interleave(batch, dim=0)
        return q, tau

    def quantile_values(self, state: Tensor, tau: Tensor, num_quantiles: int) -> Tensor:
        """The quantile path: ``s (B, D)`` and ``tau (K·B, 1)`` or ``(K, 1)`` to ``q (K·B, …)``."""
        return self._fill(self._quantile_values(state, tau, num_quantiles))

    def _fill(self, q: Tensor) -> Tensor:
        """``q`` with the finite minimum for actions that do not exist."""
        exists = self.action_mask
        return q if exists is None else q.masked_fill(~exists, torch.finfo(q.dtype).min)

    def _quantile_values(self, state: Tensor, tau: Tensor, num_quantiles: int) -> Tensor:
        """The same, with any values for actions that do not exist."""
        heads = [self.advantage_head]
        if self.value_head is not None:
            heads.append(self.value_head)
        if len({_n_levels(head) for head in heads}) > 1:
            values = [self._values([head], state, tau, num_quantiles)[0] for head in heads]
        else:
            values = self._values(heads, state, tau, num_quantiles)
        if len(values) == 1:
            return values[0]
        advantage, value = values
        return dueling(value, advantage, self._centre(advantage, state, num_quantiles))

    def _centre(self, advantage: Tensor, state: Tensor, num_quantiles: int) -> Tensor:
        """What dueling subtracts from advantages ``(K·B, …, A)``: ``(K·B, …, 1)``."""
        if self.dueling == "per_level":
            return mean_over_actions(advantage, self.action_mask)
        (advantage,) = self._values([self.advantage_head], state, self.acting_tau(), self.k)
        centre = mean_over_actions(mean_over_quantiles(advantage, self.k), self.action_mask)
        return centre.repeat(num_quantiles, *(1 for _ in centre.shape[1:]))

    def _values(
        self, heads: Sequence[nn.Module], state: Tensor, tau: Tensor, num_quantiles: int
    ) -> list[Tensor]:
        """What heads that read ``x`` at the same levels give at ``tau``: ``(K·B, …)`` each."""
        n_levels = _n_levels(heads[0])
        if n_levels is None:
            return self._read(lambda x: [head(x) for head in heads], state, tau, num_quantiles)
        levels = midpoints(n_levels, device=self.device, dtype=wide_dtype(self.dtype))
        return self._read(
            lambda x: [head(x, tau, num_quantiles) for head in heads], state, levels, n_levels
        )

    def _read(
        self,
        read: Callable[[Tensor], list[Tensor]],
        state: Tensor,
        tau: Tensor,
        num_quantiles: int,
    ) -> list[Tensor]:
        """``read(x)`` of the mixed vector ``x (K·B, out_dim)``."""

        def mix(state: Tensor, tau: Tensor) -> Tensor:
            x: Tensor = self.mixer(state, self.tau_embedding(tau), num_quantiles)
            return x

        if self.recompute and torch.is_grad_enabled():
            return recomputing(mix, read, state, tau)
        return read(mix(state, tau))

    def mean_values(self, state: Tensor, tau: Tensor | None = None) -> Tensor:
        """Mean over ``tau (K, 1)``, ``nn.iqn.k`` midpoints by default: ``(B, D) -> (B, …)``.

        Proposed fractions take the place of the midpoints: ``Σ_i (τ[i+1] − τ[i]) q(τ̂[i])``, whose
        weights get no gradient.
        """
        return self._fill(self._mean_values(state, tau))

    def _mean_values(self, state: Tensor, tau: Tensor | None) -> Tensor:
        """The same, with any values for actions that do not exist."""
        if tau is None and self.fractions is not None:
            proposals = self.propose(state)
            q = self._quantile_values(state, proposals.tau_hat.T.reshape(-1, 1), self.n)
            return weighted_mean_over_quantiles(q, proposals.tau.detach())
        tau = self.acting_tau() if tau is None else tau
        return mean_over_quantiles(self._quantile_values(state, tau, tau.shape[0]), tau.shape[0])

    def q_values(
        self,
        /,
        img: Tensor | None = None,
        floats: Tensor | None = None,
        *,
        tau: Tensor | None = None,
        risk: Callable[[Tensor], Tensor] | None = None,
        mask: Tensor | None = None,
        **memory: NoReturn,
    ) -> Tensor:
        """Mean action values over ``K`` quantiles: ``(B, A)`` or ``(B, N, A)``, differentiable.

        Args:
            img: as in :meth:`forward`.
            floats: as in :meth:`forward`.
            tau: ``(K, 1)``, shared by the batch; ``nn.iqn.k`` midpoints by default. A τ of
                each sample, ``(K·B, 1)`` as ``forward`` takes it, cannot be told apart from this
                shape and is shared too.
            risk: a distortion of τ applied first, such as one of :mod:`iqn_blocks.risk`.
            mask: True where an action is allowed, shaped like the result; others get the dtype's
                finite minimum. Where none is allowed all have it, and ``argmax`` is action 0.
            memory: as in :meth:`forward`.

        Raises:
            ValueError: shapes that do not fit the configuration or each other.
            TypeError: a tensor is missing or has an unusable dtype, or a memory is given.
        """
        _refuse(memory)
        tau = self._distorted(tau, risk)
        self.inputs.check(img, floats)
        q = self.mean_values(self.encode(img, floats), tau)
        return q if mask is None else mask_actions(q, mask)

    def _distorted(
        self, tau: Tensor | None, risk: Callable[[Tensor], Tensor] | None
    ) -> Tensor | None:
        """The τ ``(K, 1)`` that :meth:`q_values` averages over; None for the default."""
        if tau is not None and (tau.ndim != 2 or tau.shape[1] != 1):
            raise ValueError(f"tau: q_values takes shape (K, 1), got {tuple(tau.shape)}")
        if risk is not None:
            check_risk(risk)
            if tau is None and self.fractions is not None:
                raise ValueError(
                    "risk: proposed fractions differ by state and are not distorted; pass tau, "
                    "such as net.acting_tau()"
                )
            tau = risk(self.acting_tau() if tau is None else tau)
            if tau.ndim != 2 or tau.shape[1] != 1:
                raise ValueError(f"risk: gave τ of shape {tuple(tau.shape)}, expected (K, 1)")
        return tau

    def acting_tau(self) -> Tensor:
        """The ``nn.iqn.k`` midpoints ``(K, 1)`` that :meth:`q_values` averages over by default."""
        return midpoints(self.k, device=self.device, dtype=wide_dtype(self.dtype))

    def check_inputs(
        self,
        img: Tensor | None = None,
        floats: Tensor | None = None,
        *,
        tau: Tensor | None = None,
        mask: Tensor | None = None,
    ) -> None:
        """Look at the values of a first batch: every other method looks at shapes and dtypes alone.

        Call it once, before the loop; it makes a GPU wait. The arguments are those of
        :meth:`q_values`, and ``tau`` may be that of :meth:`forward`.

        Raises:
            ValueError: NaN or infinity; a floating image with values far outside [−1, 1], such as
                0 … 255; τ outside [0, 1]; a sample without an allowed action; shapes as in
                :meth:`forward`.
            TypeError: a tensor is missing or has an unusable dtype.
        """
        batch = self.inputs.check(img, floats)
        if tau is not None:
            count_quantiles(tau, len(tau), batch)
        check_values(img, floats, tau, mask)

    def num_parameters(self, *, trainable: bool = False) -> int:
        """How many numbers the parameters hold; with ``trainable`` those that are not frozen."""
        return sum(p.numel() for p in self.parameters() if p.requires_grad or not trainable)

    def example_inputs(self, batch: int = 1) -> ExampleInputs:
        """Random tensors that fit the network, on its device; the same ones at each call.

        Raises:
            ValueError: a network made by hand without ``inputs``.
        """
        img, floats = self.inputs.example(batch)
        like = self.tau_embedding.projection.weight
        return ExampleInputs(*(None if x is None else x.to(like) for x in (img, floats)))

    def reset_noise(self, generator: torch.Generator | None = None) -> None:
        """Draw new noise in every :class:`~iqn_blocks.blocks.NoisyLinear`, or part like it."""
        for layer in self._noisy_layers():
            layer.reset_noise(generator)

    def disable_noise(self) -> None:
        """Set the noise of every :class:`~iqn_blocks.blocks.NoisyLinear` to zero."""
        for layer in self._noisy_layers():
            layer.disable_noise()

    def set_float_stats(
        self,
        mean: Sequence[float] | Tensor | None = None,
        std: Sequence[float] | Tensor | None = None,
    ) -> None:
        """Replace the statistics ``(F,)`` that normalise ``floats``; ``None`` keeps one.

        Raises:
            ValueError: another length, a value that is not finite, ``std`` not > 0, or a network
                without float inputs.
        """
        layers = [m for m in self.modules() if isinstance(m, FloatNormalization)]
        if not layers:
            raise ValueError("set_float_stats: this network normalises no floats")
        for layer in layers:
            layer.set_stats(mean, std)

    def save_pretrained(self, folder: str | PathLike[str]) -> None:
        """Write ``model.safetensors`` and ``config.json`` into ``folder``, made if need be.

        At every moment, also if the process dies, the disk fills or others save into the same
        folder, it loads as one of the networks that were saved there. A compiled network is saved
        as the one it was compiled from. The noise of now is saved: a noisy network comes back with
        it, unless ``disable_noise()`` was called before. In a :mod:`torch.distributed` job rank 0
        writes, the others return at once; a network sharded by ``fully_shard`` is saved whole, for
        which every rank must call this. :func:`iqn_blocks.from_pretrained` reads the folder.

        Raises:
            CheckpointError: ``folder`` is a file, or empty.
            TypeError: the network holds state that is no tensor.
            ValueError: the network was made by hand, without a configuration.
            OSError: the folder cannot be written; the message names the file.
        """
        save(self, folder, config=config_of(self), dtype=self.dtype)

    def extra_repr(self) -> str:
        if len(set(self.action_sizes)) > 1:
            return f"n_actions={self.action_sizes}"
        offsets = f", n_actions_per_block={self.n_offsets}" if self.n_offsets > 1 else ""
        return f"n_actions={self.n_actions}{offsets}"

    def _noisy_layers(self) -> list[Any]:
        """Whatever can draw noise and switch it off."""
        inside = [m for m in self.modules() if m is not self]
        return [m for m in inside if hasattr(m, "reset_noise") and hasattr(m, "disable_noise")]


def _refuse(keywords: Mapping[str, object]) -> None:
    """Raise TypeError for the arguments of networks with a core, and for unknown ones."""
    for name in keywords:
        known = name in ("memory", "reset")
        way_out = "it has no core, whose memory that is; build it with nn.core: gru or lstm, or "
        raise TypeError(
            f"{name}: found an argument that this network does not take; "
            f"{way_out if known else ''}leave it out"
        )


def _check_widths(net: IQN) -> None:
    """Raise TypeError for a part without its widths, ValueError for widths that do not meet."""
    for part, widths in (("encoder", ("state_dim",)), ("mixer", ("phi_dim", "out_dim"))):
        module = net.get_submodule(part)
        for width in widths:
            found = getattr(module, width, None)
            if not isinstance(found, int) or found < 1:
                raise TypeError(
                    f"{part}: {type(module).__name__} must have an integer {width} >= 1, found "
                    f"{found!r}; set self.{width} in its __init__"
                )
    given, taken = net.tau_embedding.projection.out_features, net.mixer.phi_dim
    if given != taken:
        raise ValueError(
            f"tau_embedding: gives width {given}, but the mixer {type(net.mixer).__name__} takes "
            f"phi_dim = {taken}; make them equal"
        )


def _n_levels(head: nn.Module) -> int | None:
    """At how many levels of its own a head reads ``x``; None for one that reads it at τ."""
    return cast("int | None", getattr(head, "n_levels", None))


def _check_per_level(*heads: nn.Module) -> None:
    """Raise ValueError for a head that is a function of τ."""
    for head in heads:
        if _n_levels(head) is not None:
            raise ValueError(
                f"dueling: found per_level with {type(head).__name__}, whose order over τ it would "
                f"undo by subtracting another number at each level; accepted: at_midpoints, or "
                f"none, that is no value head"
            )


def plain_network(net: nn.Module) -> IQN:
    """The network itself, also where ``torch.compile`` wrapped it.

    Raises:
        TypeError: it is another module.
    """
    plain = getattr(net, "_orig_mod", net)
    if not isinstance(plain, IQN):
        raise TypeError(
            f"net: expected a network made by iqn_blocks.build, got {type(plain).__name__}"
        )
    return plain


def config_of(net: IQN) -> Config:
    """The configuration that a network was built from.

    Raises:
        ValueError: it was made by hand and has none.
    """
    if net.config is None:
        raise ValueError(
            "net: this network was made by hand and has no configuration, from which it could be "
            "built again; save its state_dict, or register its parts and build it with "
            "iqn_blocks.build"
        )
    return net.config
