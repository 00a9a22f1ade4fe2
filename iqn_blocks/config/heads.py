"""Keys of the quantile path and of the two heads."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field

from iqn_blocks.config.block import Block
from iqn_blocks.config.part import Chooser, Part, PartOf, PartsOf
from iqn_blocks.kinds import Bool, Choice, Count, Layers, NotNegative, Size
from iqn_blocks.registry import Slot

Fractions = Literal["sampled", "fqf"]
SharedInput = Literal["post_tau"]
DuelingOrNone = Literal["per_level", "at_midpoints", "none"]


class Quantiles(Block):
    """Quantile path: embedding of τ, its mixer, and how many quantiles are drawn."""

    embedding_dimension: Size = Field(default=128, description="Cosines E.")
    cosine_start: Count = Field(
        default=1, description="First cosine index i; the last is i + E - 1."
    )
    n_layers: Layers = Field(default=1, description="Layers of the projection of τ.")
    mixer: Annotated[str | Part, PartOf(slot="mixer")] = Field(
        default="hadamard", description="What brings state and embedding of τ together."
    )
    fractions: Annotated[Fractions, Choice.of(Fractions)] = Field(
        default="sampled",
        description="Where τ comes from that a call does not give: drawn, or n fractions that a "
        "layer proposes for each state (FQF, arXiv:1911.02140), for q_values too.",
    )
    n: Size = Field(default=8, description="Quantiles K of a call that names none.")
    k: Size = Field(default=32, description="Midpoint quantiles that q_values averages over.")
    kappa: NotNegative = Field(default=0.005, description="Huber threshold κ, for trainers.")
    freeze: Bool = Field(default=False, description="Do not train the projection of τ.")


# Keys that trackmania_rl writes in a transformer slot: at these values they say what is built
# anyway, at others nothing builds them.
_NO_BACKBONE: Mapping[str, object] = {
    "use_hf_backbone": False,
    "model_name_or_path": "",
    "trust_remote_code": False,
    "hidden_dropout_prob": 0.0,
}
_ALIASES = {"hidden": "hidden_dim", "layers": "n_hidden_layers"}
_REFUSED = (
    *(
        (a, f"given beside {b}, which means the same; keep one of them")
        for a, b in _ALIASES.items()
    ),
    *(
        (
            key,
            "a Hugging Face model in a decoder slot is not supported; remove the key, the slot "
            "builds its own transformer from d_model, n_layers, n_heads, ff_mult and dropout",
        )
        for key in _NO_BACKBONE
    ),
)


class HeadSlot(Chooser):
    """One head: a part such as mlp (the default) or transformer."""

    slot: ClassVar[Slot] = "head"
    part_aliases: ClassVar[Mapping[str, Mapping[str, str]]] = {"mlp": _ALIASES}

    freeze: Bool = Field(default=False, description="Do not train this head.")
    parts: Annotated[tuple[Part, ...], PartsOf(slot="head", refused=_REFUSED)] = Field(
        default=(), description="The part, under its name."
    )

    if TYPE_CHECKING:  # the parts that come with the library, so that editors know their names
        block: Any = None
        mlp: Any = None
        monotone: Any = None
        simba: Any = None
        simba_v2: Any = None
        transformer: Any = None

    @classmethod
    def fill(cls, keys: dict[Any, Any]) -> dict[Any, Any]:
        cls.collect(keys)
        if not keys["parts"]:
            keys["parts"] = {"mlp": {}}
        return keys

    @classmethod
    def in_our_names(cls, name: str, given: Any) -> Any:
        given = super().in_our_names(name, given)
        if name != "transformer" or not isinstance(given, Mapping):
            return given
        return {
            key: value
            for key, value in given.items()
            if key not in _NO_BACKBONE
            or (type(value), value) != (type(_NO_BACKBONE[key]), _NO_BACKBONE[key])
        }

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
    ] = Field(
        default="post_tau",
        description="Both heads read the state times the embedding of τ; no other.",
    )
    dense_hidden_dimension: Size = Field(
        default=1024,
        description="Twice the default width of a head; in multimodal networks the state width D.",
    )
    dueling: Annotated[DuelingOrNone, Choice.of(DuelingOrNone)] = Field(
        default="per_level",
        description="How the heads join: advantages centred at each level, or by their mean over "
        "nn.iqn.k midpoints, which keeps heads that rise with τ rising; none builds no value head.",
    )
    shared_trunk_freeze: Bool = Field(default=False, description="For trainers; never read here.")
    advantage: HeadSlot = Field(default_factory=HeadSlot, description="Advantage head.")
    value: HeadSlot = Field(default_factory=HeadSlot, description="Value head.")
