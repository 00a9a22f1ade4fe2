"""The quantile Huber loss and the targets it is trained on, as pure functions.

Shapes are batch-major: ``B`` batch, ``K`` predicted and ``K'`` target quantiles, ``A`` actions,
``N`` actions per block. ``functional.split_quantiles(q, num_quantiles)`` gives that view of a
network's output. Values are ``(B, K, A)``, or ``(B, K, N, A)`` for blocks; the value of a block is
the sum over its offsets, each of which chooses its own action.

``discount`` is ``γ · (1 − done)``. Where it is 0 the next state has the value 0 and gets no
gradient, even if the network gives infinities or NaN. A ``mask`` is True where an action is
allowed: ``(B, A)``, or ``(B, N, A)`` for blocks, where ``(B, A)`` holds for every offset. The
values of a forbidden action have no effect, even NaN. A state without an allowed action has the
value 0.

Everything is computed and returned in float32, or float64 if the values are float64, also under
autocast.
"""

from __future__ import annotations

from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from iqn_blocks._arguments import checked_number
from iqn_blocks.functional import wide_dtype

MunchausenClamp = Literal["scaled", "log_pi"]
# An option that overflows float32 becomes infinite there, and 0 times infinity is NaN.
_LARGEST = torch.finfo(torch.float32).max


def quantile_huber_loss(pred: Tensor, target: Tensor, tau: Tensor, *, kappa: float = 1.0) -> Tensor:
    """``loss[b] = mean_j Σ_i |τ[b,i] − 1{δ<0}| · L_κ(δ[b,i,j])`` (arXiv:1806.06923, eq. 3).

    ``pred (B, K), target (B, K'), tau (B, K) or (B, K, 1) -> (B,)`` with ``δ[b,i,j] = target[b,j] −
    pred[b,i]`` and ``L_κ(δ) = δ²/(2κ)`` if ``|δ| < κ``, else ``|δ| − κ/2``. The slope ends at 1 for
    every ``κ``, and ``κ = 0`` is the pinball loss, ``|δ|``. No gradient flows into ``target``.

    >>> pred, tau = torch.tensor([[1.0]]), torch.tensor([[0.25]])
    >>> quantile_huber_loss(pred, torch.tensor([[3.0, 0.5]]), tau).tolist()  # (¼·1.5 + ¾·0.125) / 2
    [0.234375]

    Raises:
        TypeError: an argument that is not floating.
        ValueError: shapes that do not fit, or ``kappa`` that is not a number ≥ 0 that fits float32.
    """
    kappa = checked_number(
        "kappa", kappa, "any number >= 0 that fits float32", low=0, high=_LARGEST
    )
    _check_floating(pred=pred, target=target, tau=tau)
    if pred.ndim != 2 or pred.shape[1] == 0:
        raise ValueError(f"pred: expected (B, K) with K >= 1, got {tuple(pred.shape)}")
    batch, quantiles = pred.shape
    if target.ndim != 2 or target.shape[0] != batch or target.shape[1] == 0:
        raise ValueError(
            f"target: expected ({batch}, K') with K' >= 1 for pred {tuple(pred.shape)}, "
            f"got {tuple(target.shape)}"
        )
    if tau.shape not in ((batch, quantiles), (batch, quantiles, 1)):
        raise ValueError(
            f"tau: expected {(batch, quantiles)} or {(batch, quantiles, 1)} for pred "
            f"{tuple(pred.shape)}, got {tuple(tau.shape)}; a network's (K·B, 1) becomes that with "
            f"functional.split_quantiles(tau, K)"
        )
    dtype = wide_dtype(pred.dtype)
    pairs = (batch, quantiles, target.shape[1])
    pred = pred.to(dtype)[:, :, None].expand(pairs)
    target = target.detach().to(dtype)[:, None, :].expand(pairs)
    tau = tau.to(dtype).reshape(batch, quantiles, 1)

    # PyTorch's smooth L1 is exactly L_κ, also for κ = 0: one kernel, with finite gradients.
    huber = F.smooth_l1_loss(pred, target, beta=kappa, reduction="none")
    below = (target < pred).to(dtype)  # 1{δ<0}
    return ((tau - below).abs() * huber).sum(1).mean(1)


def take(q: Tensor, actions: Tensor) -> Tensor:
    """The quantiles of the actions taken: ``(B, K, A), (B,) -> (B, K)``.

    For blocks, ``(B, K, N, A), (B, N) -> (B, K)``: the sum over the offsets.

    >>> take(torch.tensor([[[1.0, 2.0, 4.0], [8.0, 16.0, 32.0]]]), torch.tensor([2])).tolist()
    [[4.0, 32.0]]

    Raises:
        TypeError: ``q`` is not floating, or ``actions`` not integral.
        ValueError: shapes that do not fit; on the CPU also an action that is none of ``0 … A − 1``
            (a GPU stops with an error of its own, because looking would make it wait).
    """
    _check_values("q", q)
    _check_actions(actions, "q", q)
    return _sum_offsets(_gather(_wide(q), actions))


def max_target(
    reward: Tensor, discount: Tensor, q_target: Tensor, *, mask: Tensor | None = None
) -> Tensor:
    """``r + γ · max_a q_target[j, a]``: every target quantile takes its own maximum.

    ``reward (B,), discount (B,), q_target (B, K', A) or (B, K', N, A) -> (B, K')``, with the values
    of the next state. The IQN paper takes the action that is best on average instead: that is
    ``double_dqn_target(reward, discount, q_target, q_target)``.

    >>> q_target = torch.tensor([[[1.0, 2.0], [6.0, 4.0]]])
    >>> max_target(torch.tensor([0.5]), torch.tensor([0.5]), q_target).tolist()
    [[1.5, 3.5]]

    Raises:
        TypeError: a value that is not floating, or a mask that is not boolean.
        ValueError: shapes that do not fit.
    """
    _check_target(reward, discount, q_target=q_target)
    q = _zero_if_terminal(_wide(q_target), discount)
    if mask is None:
        best = q.amax(-1)
    else:
        allowed = _allowed("mask", mask, "q_target", q)
        best = _zero_unless(allowed.any(-1), q.masked_fill(~allowed, -torch.inf).amax(-1))
    return _bootstrap(reward, discount, _sum_offsets(best))


def double_dqn_target(
    reward: Tensor,
    discount: Tensor,
    q_target: Tensor,
    q_online: Tensor,
    *,
    mask: Tensor | None = None,
) -> Tensor:
    """``r + γ · q_target[j, a*]`` with ``a* = argmax_a mean_i q_online[i, a]`` (arXiv:1509.06461).

    ``reward (B,), discount (B,), q_target (B, K', A) or (B, K', N, A), q_online (B, K, …) alike ->
    (B, K')``, both with the values of the next state.

    >>> q_online, q_target = torch.tensor([[[0.0, 9.0]]]), torch.tensor([[[1.0, 2.0], [6.0, 4.0]]])
    >>> double_dqn_target(torch.tensor([0.5]), torch.tensor([0.5]), q_target, q_online).tolist()
    [[1.5, 2.5]]

    Raises:
        TypeError: a value that is not floating, or a mask that is not boolean.
        ValueError: shapes that do not fit.
    """
    _check_target(reward, discount, q_target=q_target, q_online=q_online)
    q = _zero_if_terminal(_wide(q_target), discount)
    mean = _wide(q_online).mean(1)  # (B, A) or (B, N, A)
    if mask is None:
        best = _gather(q, mean.argmax(-1))
    else:
        allowed = _allowed("mask", mask, "q_target", q)
        action = mean.masked_fill(~allowed.squeeze(1), -torch.inf).argmax(-1)
        best = _zero_unless(allowed.any(-1), _gather(q, action))
    return _bootstrap(reward, discount, _sum_offsets(best))


def munchausen_target(
    reward: Tensor,
    discount: Tensor,
    q_target_next: Tensor,
    q_target_now: Tensor,
    actions: Tensor,
    *,
    temperature: float = 0.03,
    alpha: float = 0.9,
    floor: float = -1.0,
    clamp: MunchausenClamp = "scaled",
    mask: Tensor | None = None,
    mask_now: Tensor | None = None,
) -> Tensor:
    """``r + α·clamp(T·log π(a|s), lo, 0) + γ·Σ_a' π(a'|s')·(q[j, a'](s') − T·log π(a'|s'))``.

    Munchausen targets (arXiv:2007.14430), with ``π = softmax(q̄/T)`` of the target network's mean
    values at the next state ``s'`` and, for the bonus of the action taken, at ``s``. ``reward (B,),
    discount (B,), q_target_next (B, K', A) or (B, K', N, A), q_target_now (B, K, …) alike, actions
    (B,) or (B, N) -> (B, K')``. For blocks the bonus, like the value, is summed over the offsets.

    ``temperature``, ``alpha`` and ``floor`` are ``T``, ``α`` and ``lo``. ``clamp="scaled"`` bounds
    ``T·log π`` as the paper does; ``clamp="log_pi"`` bounds ``log π``: a bonus of
    ``α·T·clamp(log π, lo, 0)``. ``mask`` is for ``s'``, ``mask_now`` for ``s``.

    >>> even = torch.zeros(1, 1, 2)  # log π = log ½ = −0.693
    >>> r, discount, action = torch.tensor([1.0]), torch.tensor([0.0]), torch.tensor([0])
    >>> munchausen_target(r, discount, even, even, action, temperature=1.0, alpha=1.0).tolist()
    [[0.306...]]

    Raises:
        TypeError: a value that is not floating, actions not integral, or a mask not boolean.
        ValueError: shapes that do not fit, a ``temperature`` that is not > 0 or is above 1e30, an
            ``alpha`` or ``floor`` that float32 cannot hold, a ``floor`` above 0, or an unknown
            ``clamp``.
    """
    low, high = torch.finfo(torch.float32).tiny, 1e30  # T·log A and 1/T fit float32
    accepted = f"a number from {low:.3g} to {high:g}"
    temperature = checked_number("temperature", temperature, accepted, low=low, high=high)
    alpha = checked_number(
        "alpha", alpha, "any number >= 0 that fits float32", low=0, high=_LARGEST
    )
    floor = checked_number(
        "floor", floor, "any number <= 0 that fits float32", low=-_LARGEST, high=0
    )
    if clamp not in get_args(MunchausenClamp):
        accepted = " or ".join(map(repr, get_args(MunchausenClamp)))
        raise ValueError(f"clamp: got {clamp!r}, accepted is {accepted}")
    _check_target(reward, discount, q_target_next=q_target_next, q_target_now=q_target_now)
    _check_actions(actions, "q_target_now", q_target_now)

    dtype = wide_dtype(q_target_next.dtype)
    q, q_now = _zero_if_terminal(q_target_next.to(dtype), discount), q_target_now.to(dtype)
    _, scaled_log_pi_now = _policy(q_now, temperature, "mask_now", mask_now, "q_target_now")
    lowest = floor if clamp == "scaled" else max(temperature * floor, -_LARGEST)
    bonus = alpha * _sum_offsets(_gather(scaled_log_pi_now, actions).clamp(lowest, 0))  # (B, 1)

    pi, scaled_log_pi = _policy(q, temperature, "mask", mask, "q_target_next")
    if mask is not None:
        q = _zero_unless(_allowed("mask", mask, "q_target_next", q), q)
    soft = (pi * (q - scaled_log_pi)).sum(-1)  # (B, K') or (B, K', N)
    return bonus + _bootstrap(reward, discount, _sum_offsets(soft))


def fraction_gradient(q: Tensor, q_hat: Tensor, *, signed: bool = False) -> Tensor:
    """``∂W₁/∂τ[i] = 2·F⁻¹(τ[i]) − F⁻¹(τ̂[i]) − F⁻¹(τ̂[i−1])``: ``(B, K−1), (B, K) -> (B, K−1)``.

    The gradient of the 1-Wasserstein distance between a return's distribution and its staircase of
    ``K`` steps, with respect to the inner fractions ``i = 1 … K−1`` (FQF, arXiv:1911.02140,
    proposition 1). ``q`` holds the values of the action taken at those fractions, ``q_hat`` at the
    midpoints ``τ̂[0] … τ̂[K−1]``; see :func:`iqn_blocks.functional.fraction_proposals`. No gradient
    flows into them.

    The proposition holds for a quantile function that does not decrease. ``signed=True`` treats
    crossing quantiles as tianshou does: ``F⁻¹(τ[i]) − F⁻¹(τ̂[i−1])`` changes its sign unless
    ``F⁻¹(τ[i]) > F⁻¹(τ[i−1])``, and ``F⁻¹(τ[i]) − F⁻¹(τ̂[i])`` unless ``F⁻¹(τ[i]) < F⁻¹(τ[i+1])``.
    The first fraction is compared with the first midpoint, the last one with the last midpoint.

    >>> q, q_hat = torch.tensor([[3.0]]), torch.tensor([[1.0, 4.0]])
    >>> fraction_gradient(q, q_hat).tolist()  # 2·3 − 4 − 1
    [[1.0]]

    Raises:
        TypeError: an argument that is not floating.
        ValueError: shapes that do not fit.
    """
    _check_floating(q=q, q_hat=q_hat)
    if q.ndim != 2 or q_hat.shape != (q.shape[0], q.shape[1] + 1):
        raise ValueError(
            f"q_hat: expected (B, K) and q (B, K-1), got {tuple(q_hat.shape)} and {tuple(q.shape)}"
        )
    dtype = wide_dtype(q.dtype)
    q, q_hat = q.detach().to(dtype), q_hat.detach().to(dtype)
    left, right = q - q_hat[:, :-1], q - q_hat[:, 1:]
    if signed:
        before = torch.cat([q_hat[:, :1], q[:, :-1]], 1)[:, : q.shape[1]]
        after = torch.cat([q[:, 1:], q_hat[:, -1:]], 1)[:, : q.shape[1]]
        left = torch.where(q > before, left, -left)
        right = torch.where(q < after, right, -right)
    return left + right


def fraction_loss(tau: Tensor, gradient: Tensor) -> Tensor:
    """``Σ_i τ[i] · ∂W₁/∂τ[i]``, ``i = 1 … K−1``: ``(B, K+1), (B, K−1) -> (B,)``.

    The loss that trains fraction proposals (FQF, arXiv:1911.02140): its gradient with respect to
    ``tau`` is ``gradient``, the result of :func:`fraction_gradient`. Only that gradient has a
    meaning, the value has none. An entropy bonus keeps fractions apart: ``fraction_loss(…) − c ·
    entropy``.

    >>> fraction_loss(torch.tensor([[0.0, 0.25, 1.0]]), torch.tensor([[2.0]])).tolist()
    [0.5]

    Raises:
        TypeError: an argument that is not floating.
        ValueError: shapes that do not fit.
    """
    _check_floating(tau=tau, gradient=gradient)
    if tau.ndim != 2 or gradient.shape != (tau.shape[0], tau.shape[1] - 2):
        raise ValueError(
            f"tau: expected (B, K+1) and gradient (B, K-1), got {tuple(tau.shape)} and "
            f"{tuple(gradient.shape)}"
        )
    dtype = wide_dtype(tau.dtype)
    return (tau[:, 1:-1].to(dtype) * gradient.detach().to(dtype)).sum(1)


def _policy(
    q: Tensor, temperature: float, mask_name: str, mask: Tensor | None, q_name: str
) -> tuple[Tensor, Tensor]:
    """``π = softmax(q̄/T)`` and ``T·log π``: both ``(B, 1, …, A)`` from ``q (B, K, …, A)``.

    A forbidden action has ``π = 0`` exactly and a finite ``T·log π``, so that their product is 0.
    """
    lowest = torch.finfo(q.dtype).min
    allowed = None
    if mask is not None:
        allowed = _allowed(mask_name, mask, q_name, q)
        q = _zero_unless(allowed, q)
    # A constant does not change π; without it q̄/T keeps its digits where q is large and T small.
    mean = (q - q.mean((1, -1), keepdim=True)).mean(1, keepdim=True)
    if allowed is not None:
        mean = mean.masked_fill(~allowed, lowest)
    gap = mean - mean.amax(-1, keepdim=True)
    pi = torch.softmax(gap / temperature, -1)
    scaled_log_pi = gap - temperature * torch.logsumexp(gap / temperature, -1, keepdim=True)
    if allowed is not None:
        pi = pi.masked_fill(~allowed, 0)
    return pi, scaled_log_pi


def _bootstrap(reward: Tensor, discount: Tensor, value: Tensor) -> Tensor:
    """``r + γ · value[j]``: ``(B,), (B,), (B, K') -> (B, K')``."""
    return reward.to(value.dtype)[:, None] + discount.to(value.dtype)[:, None] * value


def _gather(q: Tensor, actions: Tensor) -> Tensor:
    """The value of one action at each offset: ``(B, K, …, A), (B, …) -> (B, K, …)``."""
    index = actions.long()[:, None, ..., None].expand(*q.shape[:-1], 1)
    try:
        return q.gather(-1, index).squeeze(-1)
    except RuntimeError as error:
        if "out of bounds" not in str(error):
            raise
        wrong = actions[(actions < 0) | (actions >= q.shape[-1])].flatten()[0]
        raise ValueError(
            f"actions: found {wrong}; accepted: 0 … {q.shape[-1] - 1}, the {q.shape[-1]} actions "
            f"of the values; count actions from 0"
        ) from None


def _sum_offsets(q: Tensor) -> Tensor:
    """``(B, K, N) -> (B, K)``, and ``(B, K)`` as it is."""
    return q.sum(-1) if q.ndim == 3 else q


def _wide(q: Tensor) -> Tensor:
    return q.to(wide_dtype(q.dtype))


def _zero_if_terminal(q: Tensor, discount: Tensor) -> Tensor:
    """Next values ``(B, K, …)`` with 0 wherever the discount ``(B,)`` is 0.

    This comes before every other step, because 0 · ∞ is NaN, in values and in gradients.
    """
    goes_on = discount.to(q.dtype) != 0
    return _zero_unless(goes_on.reshape(-1, *[1] * (q.ndim - 1)), q)


def _zero_unless(condition: Tensor, x: Tensor) -> Tensor:
    return torch.where(condition, x, torch.zeros((), dtype=x.dtype, device=x.device))


def _allowed(name: str, mask: Tensor, q_name: str, q: Tensor) -> Tensor:
    """A mask as it broadcasts against ``q (B, K, …, A)``."""
    if mask.dtype != torch.bool:
        raise TypeError(f"{name}: expected torch.bool (True = allowed), got {mask.dtype}")
    batch, actions = q.shape[0], q.shape[-1]
    if mask.shape == (batch, *q.shape[2:]):
        return mask[:, None]
    if mask.shape == (batch, actions):
        return mask[:, None, None]
    per_offset = "" if q.ndim == 3 else f" or {(batch, *q.shape[2:])}"
    raise ValueError(
        f"{name}: expected {(batch, actions)}{per_offset} for {q_name} {tuple(q.shape)}, "
        f"got {tuple(mask.shape)}"
    )


def _check_floating(**tensors: Tensor) -> None:
    for name, tensor in tensors.items():
        if not tensor.dtype.is_floating_point:
            raise TypeError(f"{name}: expected a floating dtype, got {tensor.dtype}")


def _check_values(name: str, q: Tensor) -> None:
    _check_floating(**{name: q})
    if q.ndim not in (3, 4) or 0 in q.shape[1:]:
        raise ValueError(
            f"{name}: expected (B, K, A), or (B, K, N, A) for blocks, with K, N, A >= 1, got "
            f"{tuple(q.shape)}; functional.split_quantiles makes that of a network's output"
        )


def _check_actions(actions: Tensor, q_name: str, q: Tensor) -> None:
    if actions.dtype.is_floating_point or actions.dtype.is_complex or actions.dtype == torch.bool:
        raise TypeError(f"actions: expected an integral dtype, got {actions.dtype}")
    expected = (q.shape[0], *q.shape[2:-1])
    if actions.shape != expected:
        raise ValueError(
            f"actions: expected {expected} for {q_name} {tuple(q.shape)}, "
            f"got {tuple(actions.shape)}"
        )


def _check_target(reward: Tensor, discount: Tensor, **values: Tensor) -> None:
    """Values of several networks, alike but for ``K``, and numbers ``(B,)`` for the first."""
    first, q = next(iter(values.items()))
    for name, other in values.items():
        _check_values(name, other)
        if (other.shape[0], *other.shape[2:]) != (q.shape[0], *q.shape[2:]):
            raise ValueError(
                f"{name}: {tuple(other.shape)} may differ from {first} {tuple(q.shape)} only in "
                f"the number of quantiles"
            )
    for name, tensor in (("reward", reward), ("discount", discount)):
        _check_floating(**{name: tensor})
        if tensor.shape != q.shape[:1]:
            raise ValueError(
                f"{name}: expected {tuple(q.shape[:1])} for {first} {tuple(q.shape)}, "
                f"got {tuple(tensor.shape)}"
            )
