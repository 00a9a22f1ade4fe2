"""The network: state encoder, τ embedding, mixer, heads and dueling, for every topology."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from os import PathLike
from typing import NamedTuple

import torch
from torch import Tensor, nn

from iqn_blocks.blocks import FloatNormalization, Head, NoisyLinear, TauEmbedding
from iqn_blocks.blocks.chain import Link
from iqn_blocks.blocks.dense import weight_and_bias
from iqn_blocks.blocks.recompute import mixed_chains
from iqn_blocks.blocks.transformer import EncoderLayer
from iqn_blocks.config import Config
from iqn_blocks.functional import (
    TauScheme,
    dueling,
    hadamard_mix,
    mask_actions,
    mean_over_quantiles,
    midpoints,
    sample_tau,
    wide_dtype,
)
from iqn_blocks.inputs import InputSpec


class ExampleInputs(NamedTuple):
    """Tensors that fit a network: ``img (B, C, H, W)``, ``floats (B, F)``; None where unused."""

    img: Tensor | None
    floats: Tensor | None


class QuantileNetwork(nn.Module):
    """What every implicit quantile network does around its quantile path: inputs, τ, acting."""

    def __init__(self, config: Config, encoder: nn.Module, tau_embedding: TauEmbedding) -> None:
        super().__init__()
        self.config = config
        self.encoder = encoder
        self.tau_embedding = tau_embedding
        self._inputs = InputSpec.from_config(
            config, any_image_size=getattr(encoder, "resizes_images", False)
        )

    @property
    def state_dim(self) -> int:
        """Width ``D`` of the state."""
        return self.tau_embedding.projection.out_features

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
        batch = self._inputs.check(img, floats)
        if tau is not None:
            if generator is not None:
                raise ValueError(
                    "generator: nothing is drawn when tau is given; pass one of the two"
                )
            num_quantiles = _count_quantiles(tau, num_quantiles, batch)
        state = self._encode(img, floats)
        if num_quantiles is None:
            num_quantiles = self.config.nn.iqn.n
            if num_quantiles % 2 and scheme == "symmetric":
                raise ValueError(
                    f"nn.iqn.n: found {num_quantiles}, but scheme 'symmetric' pairs τ with 1 − τ "
                    f"and needs an even number; set it, pass num_quantiles, or use scheme='uniform'"
                )
        if tau is None:
            tau = sample_tau(
                batch,
                num_quantiles,
                scheme=scheme,
                generator=generator,
                device=state.device,
                dtype=wide_dtype(self.tau_embedding.projection.weight.dtype),
            )
        q = self.quantile_values(state, tau, num_quantiles)
        if tau.shape[0] != num_quantiles * batch:
            tau = tau.repeat_interleave(batch, dim=0)
        return q, tau

    def quantile_values(self, state: Tensor, tau: Tensor, num_quantiles: int) -> Tensor:
        """The quantile path: ``s (B, D)`` and ``tau (K·B, 1)`` or ``(K, 1)`` to ``q (K·B, …)``."""
        raise NotImplementedError

    def mean_values(self, state: Tensor, tau: Tensor | None) -> Tensor:
        """Mean over ``tau (K, 1)``, ``nn.iqn.k`` midpoints by default: ``(B, D) -> (B, …)``."""
        tau = self.acting_tau() if tau is None else tau
        return mean_over_quantiles(self.quantile_values(state, tau, len(tau)), len(tau))

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
            tau: ``(K, 1)``, shared by the batch; ``nn.iqn.k`` midpoints by default.
            risk: a distortion of τ applied first, such as one of :mod:`iqn_blocks.risk`.
            mask: True where an action is allowed, shaped like the result; others get the dtype's
                finite minimum.

        Raises:
            ValueError: shapes that do not fit the configuration or each other.
            TypeError: a tensor is missing or has an unusable dtype.
        """
        if tau is not None and (tau.ndim != 2 or tau.shape[1] != 1):
            raise ValueError(f"tau: q_values takes shape (K, 1), got {tuple(tau.shape)}")
        if risk is not None:
            tau = risk(self.acting_tau() if tau is None else tau)
            if tau.ndim != 2 or tau.shape[1] != 1:
                raise ValueError(f"risk: gave τ of shape {tuple(tau.shape)}, expected (K, 1)")
        self._inputs.check(img, floats)
        q = self.mean_values(self._encode(img, floats), tau)
        return q if mask is None else mask_actions(q, mask)

    def example_inputs(self, batch: int = 1) -> ExampleInputs:
        """Random tensors that fit the network, on its device; the same ones at each call."""
        weight = self.tau_embedding.projection.weight
        img, floats = self._inputs.example(batch)
        return ExampleInputs(*(None if x is None else x.to(weight) for x in (img, floats)))

    def extra_repr(self) -> str:
        n = self.config.n_actions_per_block
        offsets = f", n_actions_per_block={n}" if n > 1 else ""
        return f"n_actions={self.config.n_actions}{offsets}"

    def _encode(self, img: Tensor | None, floats: Tensor | None) -> Tensor:
        state: Tensor = self.encoder(img, floats)
        if state.ndim != 2 or state.shape[1] != self.state_dim:
            raise ValueError(
                f"{type(self.encoder).__name__}: gave a state of shape {tuple(state.shape)}, but "
                f"its state_dim promises (B, {self.state_dim})"
            )
        return state

    def acting_tau(self) -> Tensor:
        """The ``nn.iqn.k`` midpoints ``(K, 1)`` that :meth:`q_values` averages over by default."""
        weight = self.tau_embedding.projection.weight
        return midpoints(self.config.nn.iqn.k, device=weight.device, dtype=wide_dtype(weight.dtype))


class IQN(QuantileNetwork):
    """Implicit quantile network (arXiv:1806.06923): ``(img, floats) ─▶ s ─▶ q``.

    ``s = encoder(img, floats)`` of shape ``(B, D)``, ``x = s ⊙ φ(τ)``,
    ``q = V(x) + Adv(x) − mean_A Adv(x)``. Built by :func:`iqn_blocks.build`; ``config`` is what it
    was built from. With ``recompute`` set, ``φ``, ``x`` and the feed-forward activations of native
    transformer layers are computed again in backward instead of being kept for it; values and
    gradients are the same, but not differentiable twice.
    """

    def __init__(
        self,
        config: Config,
        encoder: nn.Module,
        tau_embedding: TauEmbedding,
        advantage_head: Head,
        value_head: Head,
        *,
        recompute: bool = False,
    ) -> None:
        super().__init__(config, encoder, tau_embedding)
        self.advantage_head = advantage_head
        self.value_head = value_head
        self.recompute = recompute

    @property
    def recompute(self) -> bool:
        """Whether wide tensors are computed again in backward instead of being kept for it.

        These are ``φ``, ``s ⊙ φ`` and the feed-forward activations of native transformer layers;
        the latter do not work under ``torch.func.grad``.
        """
        return self._recompute

    @recompute.setter
    def recompute(self, on: bool) -> None:
        if on and not all(head.trunk is None for head in self._heads()):
            raise ValueError(
                "recompute: needs mlp in both decoder slots; a transformer slot keeps its input "
                "anyway"
            )
        self._recompute = on
        for layer in self.modules():
            if isinstance(layer, EncoderLayer):
                layer.recompute = on

    def quantile_values(self, state: Tensor, tau: Tensor, num_quantiles: int) -> Tensor:
        """The quantile path: ``s (B, D)`` and ``tau (K·B, 1)`` or ``(K, 1)`` to ``q (K·B, …)``."""
        if self.recompute:
            return dueling(*self._recomputing_heads(state, tau, num_quantiles))
        x = hadamard_mix(state, self.tau_embedding(tau), num_quantiles)
        return dueling(self.value_head(x), self.advantage_head(x))

    def reset_noise(self, generator: torch.Generator | None = None) -> None:
        """Draw new noise in every :class:`~iqn_blocks.blocks.NoisyLinear`."""
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
        """Write ``config.json`` and ``model.safetensors`` into ``folder``.

        See :func:`iqn_blocks.checkpoint.save_pretrained`.
        """
        from iqn_blocks.checkpoint import save_pretrained  # it is built on this module

        save_pretrained(self, folder)

    def _heads(self) -> tuple[Head, Head]:
        return self.value_head, self.advantage_head

    def _recomputing_heads(self, state: Tensor, tau: Tensor, num_quantiles: int) -> list[Tensor]:
        whole = [head.links() for head in self._heads()]
        chains = [
            links or [Link(*weight_and_bias(head.first_hidden.linear))]
            for links, head in zip(whole, self._heads(), strict=True)
        ]
        ends = mixed_chains(state, tau, self.tau_embedding, chains, num_quantiles)
        return [
            head.shaped(end) if links else head.read_out(head.finish(end))
            for head, links, end in zip(self._heads(), whole, ends, strict=True)
        ]

    def _noisy_layers(self) -> list[NoisyLinear]:
        return [m for m in self.modules() if isinstance(m, NoisyLinear)]


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
