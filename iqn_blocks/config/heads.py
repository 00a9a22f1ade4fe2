"""Keys of the quantile path and of the two heads."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from iqn_blocks.config.block import Block, key
from iqn_blocks.config.part import Chooser, Part, PartOf, PartsOf
from iqn_blocks.kinds import Bool, Choice, Count, Layers, NotNegative, Size
from iqn_blocks.registry import Slot

Fractions = Literal["sampled", "fqf"]
SharedInput = Literal["post_tau"]
DuelingOrNone = Literal["per_level", "at_midpoints", "none"]


class Quantiles(Block):
    """Quantile path: embedding of τ, its mixer, and how many quantiles are drawn."""

    embedding_dimension: Size = key(128, "Cosines E.")
    cosine_start: Count = key(1, "First cosine index i; the last is i + E - 1.")
    n_layers: Layers = key(1, "Layers of the projection of τ.")
    mixer: Annotated[str | Part, PartOf(slot="mixer")] = key(
        "hadamard", "What brings state and embedding of τ together."
    )
    fractions: Annotated[Fractions, Choice.of(Fractions)] = key(
        "sampled",
        "Where τ comes from that a call does not give: drawn, or n fractions that a layer "
        "proposes for each state (FQF, arXiv:1911.02140), for q_values too.",
    )
    n: Size = key(8, "Quantiles K of a call that names none.")
    k: Size = key(32, "Midpoint quantiles that q_values averages over.")
    kappa: NotNegative = key(0.005, "Huber threshold κ, for trainers.")
    freeze: Bool = key(False, "Do not train the projection of τ.")


# Keys that trackmania_rl writes in a transformer slot, at the values that say what is built anyway.
_NO_BACKBONE = (
    ("use_hf_backbone", bool, False),
    ("model_name_or_path", str, ""),
    ("trust_remote_code", bool, False),
    ("hidden_dropout_prob", float, 0.0),
)
_ALIASES = {"hidden": "hidden_dim", "layers": "n_hidden_layers"}
_REFUSED = {
    alias: f"given beside {name}, which means the same; keep one of them"
    for alias, name in _ALIASES.items()
} | dict.fromkeys(
    (key for key, *_ in _NO_BACKBONE),
    "a Hugging Face model in a decoder slot is not supported; remove the key, the slot builds its "
    "own transformer from d_model, n_layers, n_heads, ff_mult and dropout",
)


class HeadSlot(Chooser):
    """One head: a part such as mlp (the default) or transformer."""

    slot: ClassVar[Slot] = "head"
    part_aliases: ClassVar[Mapping[str, Mapping[str, str]]] = {"mlp": _ALIASES}

    freeze: Bool = key(False, "Do not train this head.")
    parts: Annotated[tuple[Part, ...], PartsOf(slot="head", refused=_REFUSED)] = key(
        (), "The part, under its name."
    )

    if TYPE_CHECKING:  # the parts that come with the library, so that editors know their names
        mlp: Any = None
        simba: Any = None
        simba_v2: Any = None
        transformer: Any = None

    @classmethod
    def fill(cls, keys: dict[Any, Any]) -> dict[Any, Any]:
        keys = super().fill(keys)
        return keys if keys["parts"] else {**keys, "parts": {"mlp": {}}}

    @classmethod
    def rename_options(cls, name: str, options: Any) -> Any:
        options = super().rename_options(name, options)
        if name != "transformer" or not isinstance(options, Mapping):
            return options
        return {k: v for k, v in options.items() if (k, type(v), v) not in _NO_BACKBONE}

    @property
    def part(self) -> Part:
        """The part of this head."""
        return self.parts[0]


class Decoder(Block):
    """The two heads."""

    shared_input: Annotated[
        SharedInput,
        Choice.of(
            SharedInput,
            refused={
                "pre_tau": "no system builds pre_tau, for either kind of slot: write post_tau"
            },
        ),
    ] = key("post_tau", "Both heads read the state times the embedding of τ; no other.")
    dense_hidden_dimension: Size = key(
        1024, "Twice the default width of a head; in multimodal networks the state width D."
    )
    dueling: Annotated[DuelingOrNone, Choice.of(DuelingOrNone)] = key(
        "per_level",
        "How the heads join: advantages centred at each level, or by their mean over nn.iqn.k "
        "midpoints, which keeps heads that rise with τ rising; none builds no value head.",
    )
    shared_trunk_freeze: Bool = key(False, "For trainers; never read here.")
    advantage: HeadSlot = key(HeadSlot, "Advantage head.")
    value: HeadSlot = key(HeadSlot, "Value head.")
