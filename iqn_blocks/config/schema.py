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
from iqn_blocks.config.block import Block, key
from iqn_blocks.config.fusion import Encoder
from iqn_blocks.config.heads import Decoder, Quantiles
from iqn_blocks.config.inputs import Cnn, FloatInputs, Vision
from iqn_blocks.config.merge import list_presets
from iqn_blocks.config.part import Part, PartOf
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


class Nn(Block):
    """The network."""

    topology: Annotated[str | None, Text(null=True, empty=False)] = key(
        None, "Name of a registered topology; null routes by the other keys."
    )
    topology_options: OwnKeys = key(
        lambda: FrozenMapping({}), "Keyword arguments of a user's own encoder."
    )
    fusion_mode: Annotated[FusionMode, Choice.of(FusionMode)] = key(
        "none", "How image and floats meet; all but none build the multimodal topology."
    )
    init_from_pretrained: String = key(
        "", "Checkpoint on this machine whose state encoder a new network starts from."
    )
    activation: Annotated[Activation, Choice.of(Activation)] = key(
        "leaky_relu", "Activation of 4-layer stem, classic float MLP, τ projection and heads."
    )
    init: Annotated[Init, Choice.of(Init)] = key(
        "orthogonal",
        "Initial weights of classic encoder, τ projection and heads: orthogonal with the gain of "
        "a LeakyReLU, or PyTorch's; other encoders have PyTorch's.",
    )
    vis: Vision = key(Vision, "Image branch.")
    float: FloatInputs = key(FloatInputs, "Branch of the float inputs.")
    encoder: Encoder = key(Encoder, "Fusion (multimodal).")
    core: Annotated[str | Part | None, PartOf(slot="core", null=True)] = key(
        None, "Memory between state encoder and quantile path; null is none."
    )
    iqn: Quantiles = key(Quantiles, "Quantile path.")
    decoder: Decoder = key(Decoder, "Heads.")
    training: OwnKeys = key(
        lambda: FrozenMapping({}), "A trainer's block: kept as given, never read here."
    )

    @classmethod
    def fill(cls, keys: dict[Any, Any]) -> dict[Any, Any]:
        """Split a topology over its options into its name and ``topology_options``."""
        given = keys.get("topology")
        if isinstance(given, Mapping) and len(given) == 1 and not keys.get("topology_options"):
            ((keys["topology"], keys["topology_options"]),) = given.items()
        return keys


def _fills(name: str) -> Any:
    return key(None, f"Fills nn.vis.cnn.{name} where that is omitted.")


class Btr(Block):
    """Ingredients of Beyond The Rainbow, and Munchausen targets for trainers."""

    use_layer_norm: Bool = key(False, "LayerNorm in heads and classic float MLP.")
    use_noisy_linear: Bool = key(False, "NoisyLinear (arXiv:1706.10295) in the heads.")
    noisy_sigma0: NotNegative = key(0.5, "Initial noise: sigma = sigma0 / sqrt(in).")
    noisy_value_readout: Bool = key(False, "Make the value readout noisy too.")
    use_impala_cnn: BoolOrNull = _fills("use_impala_cnn")
    impala_model_size: SizeOrNull = _fills("impala_model_size")
    use_adaptive_maxpool: BoolOrNull = _fills("use_adaptive_maxpool")
    adaptive_maxpool_size: SizeOrNull = _fills("adaptive_maxpool_size")
    use_spectral_norm: BoolOrNull = _fills("use_spectral_norm")
    use_munchausen: Bool = key(False, "Munchausen targets (arXiv:2007.14430).")
    munchausen_alpha: NotNegative = key(0.9, "Scale of the Munchausen bonus.")
    munchausen_entropy_tau: Positive = key(0.03, "Temperature T of the policy.")
    munchausen_lo: NotPositive = key(
        -1.0, "Floor of what munchausen_clamp clamps: T log π, or log π."
    )
    munchausen_clamp: Annotated[MunchausenClamp, Choice.of(MunchausenClamp)] = key(
        "scaled", "Clamp T log π (the paper), or log π itself."
    )


CNN_KEYS_OF_BTR = tuple(name for name in Cnn.model_fields if name in Btr.model_fields)


class ConfigKeys(Block):
    """Every key of a configuration, without the rules between keys."""

    n_actions: SizeOrSizes = Field(
        description="Discrete actions A; a list has the number at each offset of a block, such as "
        "MultiDiscrete's."
    )
    n_actions_per_block: Size = key(
        1,
        "Actions N of one block: one row of action values for each offset in it. A list in "
        "n_actions says it too.",
    )
    float_input_dim: Count = Field(
        description="Float inputs F; 0 for classic networks of the image alone."
    )
    float_inputs_mean: Annotated[tuple[Finite, ...] | None, Sequence(null=True)] = key(
        None, "F numbers subtracted from the float inputs; null: zeros."
    )
    float_inputs_std: Annotated[tuple[Positive, ...] | None, Sequence(null=True)] = key(
        None, "F numbers above 0 that divide them then; null: ones."
    )
    nn: Nn = key(Nn, "The network.")
    btr: Btr = key(Btr, "Ingredients of Beyond The Rainbow.")

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
    def _normalize(self) -> ConfigKeys:
        self._spread_actions()
        self._move_conv_keys()
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
        """Move the conv keys of ``btr`` to ``nn.vis.cnn``, where they are omitted.

        One that is given there too, with another value, stays in ``btr`` and is not read.
        """
        vis, cnn = self.nn.vis, self.nn.vis.cnn
        given = {key: getattr(self.btr, key) for key in CNN_KEYS_OF_BTR}
        given = {key: value for key, value in given.items() if value is not None}
        if not given or cnn is None or vis.no_image:
            return
        # A filled key does not count as set in `cnn`: `unused_keys` names it under `btr`.
        values = {**given, **{key: getattr(cnn, key) for key in cnn.model_fields_set}}
        filled = Cnn.model_construct(_fields_set=cnn.model_fields_set, **values)
        moved = [key for key, value in given.items() if value == getattr(filled, key)]
        nn = self.nn.model_copy(update={"vis": vis.model_copy(update={"cnn": filled})})
        btr = self.btr.model_copy(update=dict.fromkeys(moved))
        # The instance is still being validated, so that nobody has seen it unchanged.
        object.__setattr__(self, "nn", nn)
        object.__setattr__(self, "btr", btr)
