"""The network: state encoder, τ embedding, mixer, heads and dueling, for every topology."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from os import PathLike
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, cast, get_args

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
    mask_actions,
    mean_over_quantiles,
    midpoints,
    sample_tau,
    split_quantiles,
    weighted_mean_over_quantiles,
    wide_dtype,
)
from iqn_blocks.inputs import InputSpec, check_values

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
            that shape as ``out_shape``.
        dueling: ``per_level`` subtracts ``mean_A Adv(s, τ)``. ``at_midpoints`` subtracts the mean
            of ``Adv(s, τ')`` over actions and the ``k`` midpoints ``τ'``: it does not depend on τ,
            so that ``q`` rises with τ where both heads do, and costs ``k`` further rows.
        fractions: proposes ``K`` fractions for each state; they stand in for τ that is not given,
            whatever ``scheme`` says. None where τ is drawn.
        n: quantiles ``K`` of a call that names none; those of ``fractions`` where there are any.
        k: midpoint quantiles that :meth:`q_values` averages over.
        inputs: the inputs to check and to make examples of; without it nothing is checked.
        config: what the network was built from; None by hand.

    Raises:
        TypeError: a part lacks an integer that it must have.
        ValueError: the widths of two parts differ, or an unknown ``dueling``.
    """

    def __init__(
        self,
        encoder: nn.Module,
        tau_embedding: TauEmbedding,
        mixer: nn.Module,
        *,
        value_head: nn.Module | None = None,
        advantage_head: nn.Module,
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
        for part, widths in (("encoder", ("state_dim",)), ("mixer", ("phi_dim", "out_dim"))):
            for width in widths:
                found = getattr(getattr(self, part), width, None)
                if not isinstance(found, int) or found < 1:
                    raise TypeError(
                        f"{part}: {type(getattr(self, part)).__name__} must have an integer "
                        f"{width} >= 1, found {found!r}; set self.{width} in its __init__"
                    )
        if dueling not in get_args(Dueling):
            accepted = ", ".join(map(repr, get_args(Dueling)))
            raise ValueError(
                f"dueling: got {dueling!r}, accepted are {accepted}; for none, leave out value_head"
            )
        phi_dim = tau_embedding.projection.out_features
        if phi_dim != mixer.phi_dim:
            raise ValueError(
                f"tau_embedding: gives width {phi_dim}, but the mixer "
                f"{type(mixer).__name__} takes phi_dim = {mixer.phi_dim}; make them equal"
            )

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

        Raises:
            ValueError: shapes that do not fit the configuration or each other.
            TypeError: a tensor is missing or has an unusable dtype.
        """
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
        ) -> tuple[Tensor, Tensor]: ...

    def quantiles(
        self,
        img: Tensor | None = None,
        floats: Tensor | None = None,
        num_quantiles: int | None = None,
        tau: Tensor | None = None,
        *,
        scheme: TauScheme = "symmetric",
        generator: torch.Generator | None = None,
    ) -> tuple[Tensor, Tensor]:
        """The same as the losses take it: ``(B, K, A)`` or ``(B, K, N, A)``, and τ ``(B, K)``.

        Arguments and errors are those of :meth:`forward`.
        """
        k = num_quantiles
        if k is None and tau is None:
            k = self.n
        q, tau = self(img, floats, k, tau, scheme=scheme, generator=generator)
        if k is None:
            k = _count_quantiles(tau, None, self.inputs.check(img, floats))
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
            return _count_quantiles(tau, num_quantiles, batch)
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
        centre = self._centre(state, num_quantiles)

        def read(x: Tensor) -> Tensor:
            advantage: Tensor = self.advantage_head(x)
            if self.value_head is None:
                return advantage
            return dueling(self.value_head(x), advantage, centre)

        return self._read(read, state, tau, num_quantiles)

    def _centre(self, state: Tensor, num_quantiles: int) -> Tensor | None:
        """What dueling subtracts from ``K·B`` rows of advantages; None for their mean."""
        if self.value_head is None or self.dueling == "per_level":
            return None
        advantage = self._read(self.advantage_head, state, self.acting_tau(), self.k)
        centre = mean_over_quantiles(advantage, self.k).mean(-1, keepdim=True)
        return centre.repeat(num_quantiles, *(1 for _ in centre.shape[1:]))

    def _read(
        self, read: Callable[[Tensor], Tensor], state: Tensor, tau: Tensor, num_quantiles: int
    ) -> Tensor:
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
        if tau is None and self.fractions is not None:
            proposals = self.propose(state)
            q = self.quantile_values(state, proposals.tau_hat.T.reshape(-1, 1), self.n)
            return weighted_mean_over_quantiles(q, proposals.tau.detach())
        tau = self.acting_tau() if tau is None else tau
        return mean_over_quantiles(self.quantile_values(state, tau, tau.shape[0]), tau.shape[0])

    def q_values(
        self,
        img: Tensor | None = None,
        floats: Tensor | None = None,
        *,
        tau: Tensor | None = None,
        risk: Callable[[Tensor], Tensor] | None = None,
        mask: Tensor | None = None,
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

        Raises:
            ValueError: shapes that do not fit the configuration or each other.
            TypeError: a tensor is missing or has an unusable dtype.
        """
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
            _check_risk(risk)
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
            _count_quantiles(tau, len(tau), batch)
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
        as the one it was compiled from. Noise is saved as it is: a noisy network comes back with
        it. In a :mod:`torch.distributed` job rank 0 writes, the others return at once; a network
        sharded by ``fully_shard`` is saved whole, for which every rank must call this.
        :func:`iqn_blocks.from_pretrained` reads the folder.

        Raises:
            CheckpointError: ``folder`` is a file, or empty.
            TypeError: the network holds state that is no tensor.
            ValueError: the network was made by hand, without a configuration.
            OSError: the folder cannot be written; the message names the file.
        """
        save(self, folder, config=config_of(self), dtype=self.dtype)

    def extra_repr(self) -> str:
        offsets = f", n_actions_per_block={self.n_offsets}" if self.n_offsets > 1 else ""
        return f"n_actions={self.n_actions}{offsets}"

    def _noisy_layers(self) -> list[Any]:
        """Whatever can draw noise and switch it off."""
        inside = [m for m in self.modules() if m is not self]
        return [m for m in inside if hasattr(m, "reset_noise") and hasattr(m, "disable_noise")]


def _check_risk(risk: object) -> None:
    """Raise TypeError for a name, and for a class that was not called."""
    if isinstance(risk, type):
        raise TypeError(
            f"risk: found the class {risk.__name__}; accepted: a function of τ; call it first, as "
            f"in risk={risk.__name__}(0.25)"
        )
    if not callable(risk):
        raise TypeError(
            f"risk: found {risk!r}; accepted: a function of τ, such as iqn_blocks.risk.cvar(0.25)"
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


def _count_quantiles(tau: Tensor, num_quantiles: int | None, batch: int) -> int:
    """``K`` for a given ``tau``, after checking its shape and dtype."""
    if not tau.is_floating_point():
        raise TypeError(f"tau: expected a floating dtype, got {tau.dtype}")
    if tau.ndim != 2 or tau.shape[1] != 1:
        raise ValueError(f"tau: expected shape (K·B, 1) or (K, 1), got {tuple(tau.shape)}")
    rows = tau.shape[0]
    if num_quantiles is None:
        if rows == batch == 0:
            return 1
        if rows == 0 or batch == 0 or rows % batch:
            raise ValueError(
                f"tau: {rows} rows do not fit a batch of {batch}; give K·B rows, or K rows shared "
                f"by the batch together with num_quantiles=K"
            )
        return rows // batch
    if rows not in (num_quantiles, num_quantiles * batch):
        raise ValueError(
            f"tau: {rows} rows, but num_quantiles = {num_quantiles} and a batch of {batch} need "
            f"{num_quantiles * batch} (per sample) or {num_quantiles} (shared)"
        )
    return num_quantiles
