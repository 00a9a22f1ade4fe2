"""Keeping a network able to learn: reset units, shrink and perturb, project, group parameters.

All but :func:`parameter_groups` and :func:`weight_norms` change parameters in place, outside the
graph. An optimiser's moments belong to the caller: those of what was reset should be set to 0.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from typing import Literal

import torch
from torch import Tensor, nn

from iqn_blocks._arguments import checked_number
from iqn_blocks.blocks.noisy import NoisyLinear
from iqn_blocks.diagnostics import checked_threshold, dormant_scores

GroupName = Literal["matrices", "vectors", "embeddings", "readouts"]
_LARGEST = torch.finfo(torch.float32).max


@torch.no_grad()
def redo_(
    layers: Iterable[nn.Module],
    x: Tensor,
    *,
    threshold: float = 0.025,
    generator: torch.Generator | None = None,
) -> list[Tensor]:
    """Reinitialise the dormant units of layers in a row; ReDo, arXiv:2302.12902, algorithm 1.

    ``x (…, in)`` runs through the layers: ``nn.Linear``, ``NoisyLinear``, hidden layers that hold
    one of them as ``linear``, and activations and normalisations in between; for instance an
    ``nn.Sequential``, or ``[*head.hidden, head.readout]``. The units between two linear layers are
    what the second one receives. Convolutions, and so stems, and heads with residual blocks are not
    covered. A unit whose :func:`~iqn_blocks.diagnostics.dormant_scores` is at
    most ``threshold`` gets fresh incoming weights, ``U(−1/√in, 1/√in)``, and a bias of 0; its
    outgoing weights become 0. In a noisy layer these are ``μ``; the incoming ``σ`` become
    ``σ0/√in``, the outgoing ones 0. All units are judged before any is reset. The outputs change
    by what dormant units contributed, and where a normalisation lies in between, which itself stays
    as it is, by what fresh units do to its mean and variance.

    Returns:
        For each hidden layer the mask ``(H,)`` of the units that were reset.

    Raises:
        TypeError: a layer with matrices that is none of those.
        ValueError: fewer than two linear layers, or a ``threshold`` that is not a number ≥ 0.
    """
    threshold = checked_threshold(threshold)
    linears: list[nn.Linear | NoisyLinear] = []
    masks: list[Tensor] = []
    for layer in layers:
        linear = _linear_of(layer)
        if linear is not None:
            if linears:
                masks.append(dormant_scores(x) <= threshold)
            linears.append(linear)
        x = layer(x)
    if not masks:
        raise ValueError(
            f"layers: found {len(linears)} linear layers, needed are two or more with units between"
        )
    for incoming, outgoing, dormant in zip(linears[:-1], linears[1:], masks, strict=True):
        _reset_units_(incoming, outgoing, dormant, generator)
    return masks


def _linear_of(layer: nn.Module) -> nn.Linear | NoisyLinear | None:
    linear = getattr(layer, "linear", layer)
    if isinstance(linear, nn.Linear | NoisyLinear):
        return linear
    if any(parameter.ndim > 1 for parameter in layer.parameters()):
        raise TypeError(
            f"layers: {type(layer).__name__} is neither nn.Linear, NoisyLinear, a layer with one "
            f"as its linear, nor elementwise; pass the layers of a head of kind mlp one by one, as "
            f"in [*head.hidden, head.readout]; convolutions and residual blocks are not covered, "
            f"shrink_perturb_ takes any network"
        )
    return None


def _reset_units_(
    incoming: nn.Linear | NoisyLinear,
    outgoing: nn.Linear | NoisyLinear,
    dormant: Tensor,
    generator: torch.Generator | None,
) -> None:
    bound = 1 / math.sqrt(incoming.in_features)
    weight: Tensor
    bias: Tensor | None
    if isinstance(incoming, NoisyLinear):
        weight, bias = incoming.weight_mu, incoming.bias_mu
        incoming.weight_sigma[dormant] = incoming.sigma0 * bound
        incoming.bias_sigma[dormant] = incoming.sigma0 * bound
    else:
        weight, bias = incoming.weight, incoming.bias
    device = weight.device if generator is None else generator.device
    fresh = torch.rand(weight.shape, generator=generator, device=device).to(weight)
    weight[dormant] = bound * (2 * fresh - 1)[dormant]
    if bias is not None:
        bias[dormant] = 0
    if isinstance(outgoing, NoisyLinear):
        outgoing.weight_mu[:, dormant] = 0
        outgoing.weight_sigma[:, dormant] = 0
    else:
        outgoing.weight[:, dormant] = 0


@torch.no_grad()
def shrink_perturb_(network: nn.Module, fresh: nn.Module, *, shrink: float, perturb: float) -> None:
    """``θ ← shrink · θ + perturb · θ_fresh`` for every floating parameter (arXiv:1910.08475).

    ``fresh`` is a newly initialised network of the same parts: noise then has the scale of each
    layer's initialisation, where the paper's equation has one variance for all. BBF
    (arXiv:2305.19452) interpolates: ``perturb = 1 − shrink``. Buffers stay.

    Raises:
        ValueError: networks whose parameters differ in name or shape, ``shrink`` outside [0, 1], or
            ``perturb`` that is not a number ≥ 0.
    """
    shrink = checked_number("shrink", shrink, "0 <= shrink <= 1", low=0, high=1)
    accepted = "any finite number >= 0"
    perturb = checked_number("perturb", perturb, accepted, low=0, high=_LARGEST)
    ours, theirs = _floating(network), _floating(fresh)
    differing = sorted(
        name
        for name in ours.keys() | theirs.keys()
        if name not in ours or name not in theirs or ours[name].shape != theirs[name].shape
    )
    if differing:
        raise ValueError(
            f"fresh: {len(differing)} parameters differ from the network's in name or shape, such "
            f"as {differing[0]}; build both from one config"
        )
    for name, parameter in ours.items():
        parameter.mul_(shrink).add_(theirs[name].to(parameter), alpha=perturb)


def weight_norms(network: nn.Module) -> dict[str, Tensor]:
    """Norms ``()`` of the weights that :func:`project_weights_` holds, by name: all matrices.

    These are the groups ``matrices`` and ``readouts`` of :func:`parameter_groups`. Leave out what
    shall grow: ``{name: norm for name, norm in norms.items() if "readout" not in name}``.
    """
    groups = parameter_groups(network)
    held = {id(parameter) for parameter in (*groups["matrices"], *groups["readouts"])}
    return {
        name: torch.linalg.vector_norm(parameter.detach())
        for name, parameter in _floating(network).items()
        if id(parameter) in held
    }


@torch.no_grad()
def project_weights_(network: nn.Module, norms: Mapping[str, Tensor]) -> None:
    """``W ← W · ‖W₀‖ / ‖W‖``: give weights the norm they started with; NaP, arXiv:2407.01800.

    To be called after each optimiser step with the :func:`weight_norms` of the new network. In
    front of a normalisation layer this changes no value, and keeps the effective learning rate from
    falling as weights grow. Biases, and scales and offsets of normalisation layers, stay as they
    are; the paper treats those apart. A weight of zeros stays zero.

    Raises:
        ValueError: a name that the network lacks.
    """
    parameters = _floating(network)
    for name, norm in norms.items():
        if name not in parameters:
            raise ValueError(f"norms: {name} is no parameter of the network; take its weight_norms")
        weight = parameters[name]
        now = torch.linalg.vector_norm(weight)
        weight.mul_(torch.where(now > 0, norm.to(now) / now, 1.0))


def parameter_groups(network: nn.Module) -> dict[GroupName, list[nn.Parameter]]:
    """Every parameter once, in four groups that optimisers and weight decay treat differently.

    * ``matrices``: weights of two or more axes inside the network, what Muon orthogonalises and
      weight decay shrinks;
    * ``readouts``: weights of the last layers, those called ``readout`` and the two matrices inside
      SimbaV2's, which Muon leaves to Adam. The layer that proposes FQF's fractions is none of
      them: its weights are in ``matrices``;
    * ``embeddings``: tables, such as positions and ``nn.Embedding``;
    * ``vectors``: everything else: biases, scales and offsets of normalisation, and the noise
      scales ``σ`` of noisy layers.

    >>> groups = parameter_groups(nn.Sequential(nn.Linear(2, 3), nn.LayerNorm(3)))
    >>> {name: len(group) for name, group in groups.items()}
    {'matrices': 1, 'vectors': 3, 'embeddings': 0, 'readouts': 0}
    """
    groups: dict[GroupName, list[nn.Parameter]] = {
        "matrices": [],
        "vectors": [],
        "embeddings": [],
        "readouts": [],
    }
    tables = {id(m.weight) for m in network.modules() if isinstance(m, nn.Embedding)}
    for name, parameter in network.named_parameters():
        owner, _, own = ("." + name.replace(".parametrizations.", ".")).rpartition(".")
        group: GroupName = "matrices"
        if parameter.ndim < 2 or own.endswith("sigma"):
            group = "vectors"
        elif re.search(r"\.readout(\.linear\d+)?(\.weight)?$", owner):
            group = "readouts"
        elif id(parameter) in tables or not ("weight" in own or owner.endswith(".weight")):
            group = "embeddings"
        groups[group].append(parameter)
    return groups


def _floating(network: nn.Module) -> dict[str, nn.Parameter]:
    return {
        name.replace("_orig_mod.", ""): parameter
        for name, parameter in network.named_parameters()
        if parameter.is_floating_point()
    }
