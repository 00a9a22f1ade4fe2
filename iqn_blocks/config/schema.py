"""The configuration of a network: every key with its type, default and meaning.

Attribute names are the keys of the YAML file. A default that depends on other keys is filled by
``fill`` of its block; rules that span blocks are in :mod:`iqn_blocks.config.rules`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal

import yaml
from pydantic import Field, model_validator

from iqn_blocks.blocks.activation import Activation
from iqn_blocks.config.block import Block
from iqn_blocks.config.fusion import Encoder
from iqn_blocks.config.heads import Decoder, Quantiles
from iqn_blocks.config.inputs import Cnn, FloatInputs, Vision
from iqn_blocks.config.merge import list_presets
from iqn_blocks.config.messages import join
from iqn_blocks.config.part import Part, PartOf
from iqn_blocks.config.rules import cross_faults
from iqn_blocks.errors import ConfigError
from iqn_blocks.kinds import (
    Bool,
    BoolOrNull,
    Choice,
    Count,
    Finite,
    Json,
    NotNegative,
    NotPositive,
    OwnKeys,
    Positive,
    Sequence,
    Size,
    SizeOrNull,
    SizeOrSizes,
    String,
    Text,
)
from iqn_blocks.plain import FrozenMapping

if TYPE_CHECKING:
    from pydantic import GetJsonSchemaHandler
    from pydantic_core.core_schema import CoreSchema

FusionMode = Literal["none", "vision_transformer", "post_concat", "unified"]
Init = Literal["orthogonal", "pytorch"]
MunchausenClamp = Literal["scaled", "log_pi"]

CNN_KEYS_OF_BTR = (
    "use_impala_cnn",
    "impala_model_size",
    "use_adaptive_maxpool",
    "adaptive_maxpool_size",
    "use_spectral_norm",
)


class Nn(Block):
    """The network."""

    topology: Annotated[str | None, Text(null=True, empty=False)] = Field(
        default=None, description="Name of a registered topology; null routes by the other keys."
    )
    topology_options: OwnKeys = Field(
        default_factory=lambda: FrozenMapping({}),
        description="Keyword arguments of a user's own encoder.",
    )
    fusion_mode: Annotated[FusionMode, Choice.of(FusionMode)] = Field(
        default="none",
        description="How image and floats meet; all but none build the multimodal topology.",
    )
    init_from_pretrained: String = Field(
        default="",
        description="Checkpoint on this machine whose state encoder a new network starts from.",
    )
    activation: Annotated[Activation, Choice.of(Activation)] = Field(
        default="leaky_relu",
        description="Activation of 4-layer stem, classic float MLP, τ projection and heads.",
    )
    init: Annotated[Init, Choice.of(Init)] = Field(
        default="orthogonal",
        description="Initial weights of classic encoder, τ projection and heads: orthogonal with "
        "the gain of a LeakyReLU, or PyTorch's; other encoders have PyTorch's.",
    )
    vis: Vision = Field(default_factory=Vision, description="Image branch.")
    float: FloatInputs = Field(
        default_factory=FloatInputs, description="Branch of the float inputs."
    )
    encoder: Encoder = Field(default_factory=Encoder, description="Fusion (multimodal).")
    core: Annotated[str | Part | None, PartOf(slot="core", null=True)] = Field(
        default=None, description="Memory between state encoder and quantile path; null is none."
    )
    iqn: Quantiles = Field(default_factory=Quantiles, description="Quantile path.")
    decoder: Decoder = Field(default_factory=Decoder, description="Heads.")
    training: OwnKeys = Field(
        default_factory=lambda: FrozenMapping({}),
        description="A trainer's block: kept as given, never read here.",
    )

    @classmethod
    def fill(cls, keys: dict[Any, Any]) -> dict[Any, Any]:
        """A topology over its options is the name, and ``topology_options``."""
        given = keys.get("topology")
        if isinstance(given, Mapping) and len(given) == 1 and not keys.get("topology_options"):
            ((keys["topology"], keys["topology_options"]),) = given.items()
        return keys


class Btr(Block):
    """Ingredients of Beyond The Rainbow, and Munchausen targets for trainers."""

    use_layer_norm: Bool = Field(
        default=False, description="LayerNorm in heads and classic float MLP."
    )
    use_noisy_linear: Bool = Field(
        default=False, description="NoisyLinear (arXiv:1706.10295) in the heads."
    )
    noisy_sigma0: NotNegative = Field(
        default=0.5, description="Initial noise: sigma = sigma0 / sqrt(in)."
    )
    noisy_value_readout: Bool = Field(
        default=False, description="Make the value readout noisy too."
    )
    use_impala_cnn: BoolOrNull = Field(
        default=None, description="Fills nn.vis.cnn.use_impala_cnn where that is omitted."
    )
    impala_model_size: SizeOrNull = Field(
        default=None, description="Fills nn.vis.cnn.impala_model_size where that is omitted."
    )
    use_adaptive_maxpool: BoolOrNull = Field(
        default=None, description="Fills nn.vis.cnn.use_adaptive_maxpool where that is omitted."
    )
    adaptive_maxpool_size: SizeOrNull = Field(
        default=None, description="Fills nn.vis.cnn.adaptive_maxpool_size where that is omitted."
    )
    use_spectral_norm: BoolOrNull = Field(
        default=None, description="Fills nn.vis.cnn.use_spectral_norm where that is omitted."
    )
    use_munchausen: Bool = Field(
        default=False, description="Munchausen targets (arXiv:2007.14430)."
    )
    munchausen_alpha: NotNegative = Field(default=0.9, description="Scale of the Munchausen bonus.")
    munchausen_entropy_tau: Positive = Field(
        default=0.03, description="Temperature T of the policy."
    )
    munchausen_lo: NotPositive = Field(
        default=-1.0, description="Floor of what munchausen_clamp clamps: T log π, or log π."
    )
    munchausen_clamp: Annotated[MunchausenClamp, Choice.of(MunchausenClamp)] = Field(
        default="scaled", description="Clamp T log π (the paper), or log π itself."
    )


class Config(Block):
    """Everything that a network is built from.

    Raises:
        ConfigError: with all faults of single keys, or else with all faults between keys.
    """

    n_actions: SizeOrSizes = Field(
        description="Discrete actions A; a list has the number at each offset of a block, such as "
        "MultiDiscrete's."
    )
    n_actions_per_block: Size = Field(
        default=1,
        description="Actions N of one block: one row of action values for each offset in it. A "
        "list in n_actions says it too.",
    )
    float_input_dim: Count = Field(
        description="Float inputs F; 0 for classic networks of the image alone."
    )
    float_inputs_mean: Annotated[tuple[Finite, ...] | None, Sequence(null=True)] = Field(
        default=None, description="F numbers subtracted from the float inputs; null: zeros."
    )
    float_inputs_std: Annotated[tuple[Positive, ...] | None, Sequence(null=True)] = Field(
        default=None, description="F numbers above 0 that divide them then; null: ones."
    )
    nn: Nn = Field(default_factory=Nn, description="The network.")
    btr: Btr = Field(default_factory=Btr, description="Ingredients of Beyond The Rainbow.")

    @classmethod
    def __get_pydantic_json_schema__(cls, core: CoreSchema, handler: GetJsonSchemaHandler) -> Json:
        """A file may begin with a preset, which can bring the number of floats with it."""
        reference = super().__get_pydantic_json_schema__(core, handler)
        whole = handler.resolve_ref_schema(reference)
        meaning = "Preset over whose keys the others are laid; in files and mappings."
        whole["properties"]["preset"] = {"enum": list_presets(), "description": meaning}
        whole["required"] = ["n_actions"]
        whole["anyOf"] = [{"required": [key]} for key in ("preset", "float_input_dim")]
        return reference

    def to_yaml(self) -> str:
        """The text of a YAML file that :func:`iqn_blocks.load_config` reads as an equal one."""
        text: str = yaml.safe_dump(self.to_dict(), sort_keys=False, allow_unicode=True)
        return text

    @model_validator(mode="after")
    def _move_conv_keys_and_check(self) -> Config:
        self._spread_actions()
        self._move_conv_keys()
        faults = cross_faults(self)
        if faults:
            raise ConfigError(join(faults))
        return self

    def _spread_actions(self) -> None:
        """A list of equal sizes is one size, and its length the number of offsets."""
        sizes, offsets = self.n_actions, self.n_actions_per_block
        if isinstance(sizes, int):
            return
        if offsets not in (1, len(sizes)):
            raise ConfigError(
                f"n_actions_per_block: found {offsets}, but n_actions lists {len(sizes)} sizes; "
                f"accepted: {len(sizes)}; leave the key out, or change n_actions"
            )
        object.__setattr__(self, "n_actions_per_block", len(sizes))
        if len(set(sizes)) == 1:
            object.__setattr__(self, "n_actions", sizes[0])

    def _move_conv_keys(self) -> None:
        """The conv keys of ``btr`` fill those omitted in ``nn.vis.cnn``, which they move to.

        One that is given there too, with another value, stays behind and is not read.
        """
        vis, cnn = self.nn.vis, self.nn.vis.cnn
        given = {key: getattr(self.btr, key) for key in CNN_KEYS_OF_BTR}
        given = {key: value for key, value in given.items() if value is not None}
        if not given or cnn is None or vis.no_image:
            return
        # What is filled in does not count as set there: `unused_keys` reports it where it was set.
        values = {**given, **{key: getattr(cnn, key) for key in cnn.model_fields_set}}
        filled = Cnn.model_construct(_fields_set=cnn.model_fields_set, **values)
        moved = [key for key, value in given.items() if value == getattr(filled, key)]
        nn = self.nn.model_copy(update={"vis": vis.model_copy(update={"cnn": filled})})
        btr = self.btr.model_copy(update=dict.fromkeys(moved))
        # The instance is being validated, nobody has seen it yet.
        object.__setattr__(self, "nn", nn)
        object.__setattr__(self, "btr", btr)
