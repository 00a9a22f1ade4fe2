"""Keys of the fusion of image and floats in the multimodal topology."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from iqn_blocks.config.block import Block
from iqn_blocks.config.inputs import FloatMlp, Transformer
from iqn_blocks.config.part import OptionsOf, Part, PartOf, read_part
from iqn_blocks.kinds import Bool, Choice, Probability, String

PostConcatLayout = Literal["fused_vector", "token_sequence"]
FloatTokenInput = Literal["raw", "mlp_hidden"]
FloatTokenLayout = Literal["dense", "per_feature"]


class HfEmbedding(Block):
    """The hf_embedding trunk; without a path its keys come from encoder.transformer."""

    model_name_or_path: String = Field(
        default="", description="Hub id or folder of the Hugging Face encoder."
    )
    trust_remote_code: Bool = Field(
        default=False,
        description="Let the Hugging Face encoder run code that comes with its weights.",
    )
    hidden_dropout_prob: Probability = Field(
        default=0.0, description="Probability of the dropout on the encoder's input."
    )


class Encoder(Block):
    """Fusion of image and floats in the multimodal topology."""

    freeze: Bool = Field(
        default=False,
        description="Do not train float tokens, positions, trunk and output; the branches before "
        "them have flags of their own.",
    )
    mlp: FloatMlp | None = Field(
        default=None, description="Takes the place of nn.float.mlp in multimodal networks."
    )
    fusion_encoder: Annotated[str | Part | None, PartOf(null=True, slot="trunk")] = Field(
        default=None,
        description="The trunk; null: hf_embedding with transformer.use_hf_backbone, else linear "
        "with fusion_mode vision_transformer, else native_transformer.",
    )
    post_concat_layout: Annotated[PostConcatLayout, Choice.of(PostConcatLayout)] = Field(
        default="fused_vector",
        description="post_concat: one fused vector cut into tokens, or a sequence.",
    )
    float_token_input: Annotated[FloatTokenInput, Choice.of(FloatTokenInput)] = Field(
        default="raw",
        description="token_sequence: float tokens from normalised floats or the float MLP.",
    )
    float_token_layout: Annotated[FloatTokenLayout, Choice.of(FloatTokenLayout)] = Field(
        default="dense",
        description="token_sequence: one projection to k tokens, or one token a feature.",
    )
    transformer: Transformer = Field(
        default_factory=Transformer, description="Token width and native trunk, or its HF model."
    )
    fusion_mlp: Annotated[Part, OptionsOf(slot="trunk", name="mlp")] = Field(
        default_factory=lambda: read_part("trunk", "mlp", {}),
        description="Options of the mlp trunk, where fusion_encoder gives the bare name.",
    )
    fusion_cnn: Annotated[Part, OptionsOf(slot="trunk", name="cnn")] = Field(
        default_factory=lambda: read_part("trunk", "cnn", {}),
        description="Options of the cnn trunk, where fusion_encoder gives the bare name.",
    )
    hf_embedding: HfEmbedding = Field(
        default_factory=HfEmbedding, description="Model of the hf_embedding trunk."
    )
