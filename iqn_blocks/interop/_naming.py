"""Names of our tensors in another system: one table, read in both directions.

A :class:`Naming` holds the other system's names of our parts. With a network it gives a table with
one row for each tensor. Two layers store their tensors differently:

* :class:`~iqn_blocks.blocks.NoisyLinear` keeps two noise vectors; other systems keep
  ``bias_epsilon = ε_out`` and ``weight_epsilon = ε_out ε_inᵀ``.
* :class:`~iqn_blocks.blocks.SpectralNormConv2d` keeps ``weight``, ``u`` and ``v``; other systems
  use the names of one of PyTorch's two implementations.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from iqn_blocks import blocks, hf
from iqn_blocks.blocks import MapReadout, NoisyLinear, SpectralNormConv2d
from iqn_blocks.blocks.pool import HalvingMaxPool
from iqn_blocks.blocks.stems.impala import ImpalaStage, ResidualBlock
from iqn_blocks.blocks.transformer import EncoderLayer, NativeEncoder, SelfAttention
from iqn_blocks.encoders.classic import ClassicEncoder
from iqn_blocks.encoders.hf_vision import HFVisionEncoder
from iqn_blocks.encoders.multimodal.sequence import SequenceEncoder
from iqn_blocks.encoders.multimodal.vector import DirectEncoder, VectorEncoder
from iqn_blocks.errors import CheckpointError
from iqn_blocks.network import IQN

# Names of weight, u and v under spectral normalisation: the old hook's and the parametrization's.
SPECTRAL_HOOK = ("weight_orig", "weight_u", "weight_v")
SPECTRAL_PARAMETRIZATION = (
    "parametrizations.weight.original",
    "parametrizations.weight.0._u",
    "parametrizations.weight.0._v",
)
# The types of modules in built-in networks; other systems have names for these alone.
KNOWN: frozenset[type[nn.Module]] = frozenset(
    {
        IQN, ClassicEncoder, HFVisionEncoder, DirectEncoder, VectorEncoder, SequenceEncoder,
        blocks.ConvStem, blocks.ImpalaStem, ImpalaStage, ResidualBlock, HalvingMaxPool,
        SpectralNormConv2d, blocks.StemVision, blocks.PatchTokens, blocks.PatchVision,
        hf.HFVisionVector, hf.HFVisionTokens, hf.PixelValues,
        blocks.FloatNormalization, blocks.FloatMLP, blocks.DenseTokens, blocks.FeatureTokens,
        blocks.MeanTrunk, blocks.NativeTrunk, blocks.MLPTrunk, blocks.ConvTrunk, hf.HFTrunk,
        NativeEncoder, EncoderLayer, SelfAttention,
        blocks.TauEmbedding, blocks.Head, blocks.IQNTransformerTrunk, blocks.HiddenLayer,
        NoisyLinear, blocks.Hadamard, blocks.ImageNormalization,
        nn.Linear, nn.Conv1d, nn.Conv2d, nn.LayerNorm, nn.LeakyReLU, nn.ReLU, MapReadout,
        nn.Dropout, nn.Dropout1d, nn.Identity, nn.Sequential, nn.ModuleList,
    }
)  # fmt: skip
_COMPILED = "_orig_mod"  # the part of a name that torch.compile adds


@dataclass(frozen=True)
class Naming:
    """Another system's names of the parts of our networks.

    ``parts`` maps the path of a module or tensor of the network to its path there. ``spectral``
    names the tensors of a spectrally normalised convolution. ``rows`` lists parameters of ours that
    have a further first dimension there, of size 1. ``one_head`` says whether it also has networks
    without a value head; ``way_out`` what to build where it has no names for a network.
    """

    system: str
    parts: Callable[[IQN], Mapping[str, str]]
    spectral: tuple[str, str, str]
    way_out: str
    rows: tuple[str, ...] = ()
    one_head: bool = False


@dataclass(frozen=True)
class Row:
    """One tensor: its name here and there, its shape there, and how its value is carried over."""

    ours: str
    theirs: str
    shape: tuple[int, ...]
    target: Tensor
    layer: nn.Module

    @property
    def is_noise_matrix(self) -> bool:
        """Whether it is ``ε_in`` here and the matrix ``ε_out ε_inᵀ`` there."""
        return isinstance(self.layer, NoisyLinear) and self.ours.endswith(".epsilon_in")

    @property
    def noise_vector(self) -> str:
        """The name there of ``ε_out`` beside a noise matrix."""
        return self.theirs.removesuffix("weight_epsilon") + "bias_epsilon"


def plain_name(name: str) -> str:
    """``name`` without what ``torch.compile`` added to it."""
    return ".".join(part for part in name.split(".") if part != _COMPILED)


def normalized(state_dict: Mapping[str, Any], naming: Naming) -> dict[str, Any]:
    """``state_dict`` without the marks of ``torch.compile``, spectral norm named as in ``naming``.

    Raises:
        CheckpointError: not a mapping, or two names that mean the same tensor.
    """
    if not isinstance(state_dict, Mapping):
        raise CheckpointError(
            f"state_dict: expected names with their tensors, found {type(state_dict).__name__}"
        )
    tensors: dict[str, Any] = {}
    twice = []
    for given, value in state_dict.items():
        name = plain_name(str(given))
        for alias, own in zip(
            SPECTRAL_HOOK + SPECTRAL_PARAMETRIZATION, 2 * naming.spectral, strict=True
        ):
            if name.endswith(f".{alias}"):
                name = name.removesuffix(alias) + own
                break
        if name in tensors:
            twice.append(name)
        tensors[name] = value
    if twice:
        raise CheckpointError(f"state_dict: found more than once: {', '.join(twice)}")
    return tensors


def table(net: IQN, naming: Naming) -> list[Row]:
    """One row for each tensor of the network.

    Raises:
        CheckpointError: the network has parts that the other system has no name for, modules of
            another type than those of this library among them.
    """
    layers = {plain_name(path): module for path, module in net.named_modules()}
    _check_names(naming, _foreign_modules(layers, naming))
    parts = naming.parts(net)
    rows, nameless = [], []
    for name, target in net.state_dict().items():
        ours = plain_name(name)
        owner, _, leaf = ours.rpartition(".")
        layer, theirs = layers[owner], _their_path(ours, parts)
        if theirs is None:
            nameless.append(ours)
            continue
        shape = (1, *target.shape) if ours in naming.rows else tuple(target.shape)
        leaves = {}
        if isinstance(layer, NoisyLinear):
            leaves = {"epsilon_in": "weight_epsilon", "epsilon_out": "bias_epsilon"}
            shape = tuple(layer.weight_mu.shape) if leaf == "epsilon_in" else shape
        elif isinstance(layer, SpectralNormConv2d):
            leaves = dict(zip(("weight", "u", "v"), naming.spectral, strict=True))
        if leaf in leaves:
            theirs = theirs.removesuffix(leaf) + leaves[leaf]
        rows.append(Row(ours, theirs, shape, target, layer))
    _check_names(naming, nameless)
    return rows


def _foreign_modules(layers: Mapping[str, nn.Module], naming: Naming) -> list[str]:
    """Path and type of the outermost modules that are not of a known type.

    A subclass is not known, since it may compute something else. Inside a Hugging Face model names
    and types are those of transformers on both sides.
    """
    pretrained = (hf.HFVisionVector, hf.HFVisionTokens, hf.HFTrunk)
    skipped = {f"{path}.backbone" for path, module in layers.items() if type(module) in pretrained}
    foreign = []
    for path, module in layers.items():
        inside = any(path == outer or path.startswith(f"{outer}.") for outer in skipped)
        if not (inside or (type(module) in KNOWN and _is_usual(module, naming))):
            skipped.add(path)
            foreign.append(f"{path or 'the network'} ({type(module).__name__})")
    return foreign


def _is_usual(module: nn.Module, naming: Naming) -> bool:
    """Whether a module of a known type computes what the other system does under these names."""
    if isinstance(module, MapReadout):
        return module.readout in ("flatten", "max")
    if isinstance(module, IQN):
        if module.value_head is None:
            return naming.one_head
        return module.dueling == "per_level"
    return True


def _check_names(naming: Naming, nameless: Sequence[str]) -> None:
    if nameless:
        raise CheckpointError(
            f"this network has parts that {naming.system} has no names for: {', '.join(nameless)}; "
            f"{naming.way_out}"
        )


def _their_path(ours: str, parts: Mapping[str, str]) -> str | None:
    """``ours`` with its longest prefix in ``parts`` replaced."""
    prefix, rest = ours, ""
    while prefix not in parts:
        prefix, dot, last = prefix.rpartition(".")
        if not dot:
            return None
        rest = f".{last}{rest}"
    return parts[prefix] + rest
