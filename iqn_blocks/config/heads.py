"""Keys of the quantile path and of the two heads."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from iqn_blocks.config.block import Block
from iqn_blocks.config.kinds import Choice
from iqn_blocks.config.types import Bool, Count, NotNegative, Probability, Size, SizeOrNull

SharedInput = Literal["post_tau"]


class Quantiles(Block):
    """Quantile path: embedding of τ, and how many quantiles are drawn."""

    embedding_dimension: Size = Field(128, description="Cosines E.")
    cosine_start: Count = Field(1, description="First cosine index i; the last is i + E - 1.")
    n: Size = Field(8, description="Quantiles K of a call that names none.")
    k: Size = Field(32, description="Midpoint quantiles that q_values averages over.")
    kappa: NotNegative = Field(0.005, description="Huber threshold κ, for trainers.")
    freeze: Bool = Field(False, description="Do not train the projection of τ.")


class HeadMlp(Block):
    """A head of Linear layers."""

    aliases: ClassVar[Mapping[str, str]] = {"hidden": "hidden_dim", "layers": "n_hidden_layers"}

    hidden_dim: SizeOrNull = Field(
        None,
        description="Width; null: half of decoder.dense_hidden_dimension.",
    )
    n_hidden_layers: Size = Field(
        1,
        description="Hidden layers before the readout.",
    )


class HeadTransformer(Block):
    """A head with a native transformer over slices of its input."""

    inert: ClassVar[Mapping[str, object]] = {
        "use_hf_backbone": False,
        "model_name_or_path": "",
        "trust_remote_code": False,
        "hidden_dropout_prob": 0.0,
    }
    inert_reason: ClassVar[str] = (
        "a Hugging Face model in a decoder slot is not supported; remove the key, "
        "the slot builds its own transformer from d_model, n_layers, n_heads, ff_mult and dropout"
    )

    d_model: Size = Field(128, description="Token width; must divide the state width D.")
    n_layers: Size = Field(1, description="Encoder layers.")
    n_heads: Size = Field(4, description="Attention heads; must divide d_model.")
    ff_mult: Size = Field(4, description="Feed-forward width: max(64, d_model * ff_mult).")
    dropout: Probability = Field(0.0, description="Dropout probability inside the encoder.")


class Slot(Block):
    """One head: mlp (the default) or transformer."""

    branches: ClassVar[tuple[str, ...]] = ("mlp", "transformer")

    freeze: Bool = Field(False, description="Do not train this head.")
    mlp: HeadMlp | None = Field(
        None, description="Head of Linear layers; null beside a transformer."
    )
    transformer: HeadTransformer | None = Field(None, description="Head with a transformer.")

    @classmethod
    def fill(cls, keys: dict[Any, Any]) -> dict[Any, Any]:
        if keys.get("mlp") is None and keys.get("transformer") is None:
            keys["mlp"] = {}
        return keys


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
        "post_tau", description="Both heads read the state times the embedding of τ; no other."
    )
    dense_hidden_dimension: Size = Field(
        1024,
        description="Twice the default width of a head; in multimodal networks the state width D.",
    )
    shared_trunk_freeze: Bool = Field(False, description="For trainers; never read here.")
    advantage: Slot = Field(default_factory=Slot, description="Advantage head.")
    value: Slot = Field(default_factory=Slot, description="Value head.")
