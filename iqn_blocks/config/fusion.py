"""Keys of the fusion of image and floats in the multimodal topology."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from iqn_blocks.config.block import Block
from iqn_blocks.config.inputs import FloatMlp, Transformer
from iqn_blocks.config.kinds import Choice, Sequence
from iqn_blocks.config.types import Bool, Probability, Size, String

FusionEncoder = Literal["linear", "native_transformer", "mlp", "cnn", "hf_embedding"]
PostConcatLayout = Literal["fused_vector", "token_sequence"]
FloatTokenInput = Literal["raw", "mlp_hidden"]
FloatTokenLayout = Literal["dense", "per_feature"]


class FusionMlp(Block):
    """The mlp trunk."""

    hidden_dim: Size = Field(512, description="Width of its hidden layers.")
    n_layers: Size = Field(2, description="Linear layers, the last one included.")
    dropout: Probability = Field(0.0, description="Dropout probability after each hidden layer.")


class FusionCnn(Block):
    """The cnn trunk, over the token axis."""

    hidden_channels: Annotated[tuple[Size, ...], Sequence(items="channel counts", shortest=1)] = (
        Field((256, 256), description="Channels of its convolutions, in order.")
    )
    kernel_size: Size = Field(3, description="Kernel length, in tokens.")
    dropout: Probability = Field(0.0, description="Channel dropout probability.")


class HfEmbedding(Block):
    """The hf_embedding trunk; without a path its keys come from encoder.transformer."""

    model_name_or_path: String = Field(
        "", description="Hub id or folder of the Hugging Face encoder."
    )
    trust_remote_code: Bool = Field(
        False, description="Let the Hugging Face encoder run code that comes with its weights."
    )
    hidden_dropout_prob: Probability = Field(
        0.0, description="Probability of the dropout on the encoder's input."
    )


class Encoder(Block):
    """Fusion of image and floats in the multimodal topology."""

    freeze: Bool = Field(
        False,
        description="Do not train float tokens, positions, trunk and output; the branches before "
        "them have flags of their own.",
    )
    mlp: FloatMlp | None = Field(
        None, description="Takes the place of nn.float.mlp in multimodal networks."
    )
    fusion_encoder: Annotated[FusionEncoder | None, Choice.of(FusionEncoder, null=True)] = Field(
        None,
        description="The trunk; null: hf_embedding with transformer.use_hf_backbone, else linear "
        "with fusion_mode vision_transformer, else native_transformer.",
    )
    post_concat_layout: Annotated[PostConcatLayout, Choice.of(PostConcatLayout)] = Field(
        "fused_vector", description="post_concat: one fused vector cut into tokens, or a sequence."
    )
    float_token_input: Annotated[FloatTokenInput, Choice.of(FloatTokenInput)] = Field(
        "raw", description="token_sequence: float tokens from normalised floats or the float MLP."
    )
    float_token_layout: Annotated[FloatTokenLayout, Choice.of(FloatTokenLayout)] = Field(
        "dense", description="token_sequence: one projection to k tokens, or one token a feature."
    )
    transformer: Transformer = Field(
        default_factory=Transformer, description="Token width and native trunk, or its HF model."
    )
    fusion_mlp: FusionMlp = Field(default_factory=FusionMlp, description="Sizes of the mlp trunk.")
    fusion_cnn: FusionCnn = Field(default_factory=FusionCnn, description="Sizes of the cnn trunk.")
    hf_embedding: HfEmbedding = Field(
        default_factory=HfEmbedding, description="Model of the hf_embedding trunk."
    )
