"""Keys of the fusion of image and floats in the multimodal topology."""

from __future__ import annotations

from typing import Annotated, Literal

from iqn_blocks.config.block import Block, key
from iqn_blocks.config.inputs import FloatMlp, Transformer
from iqn_blocks.config.part import OptionsOf, Part, PartOf, read_part
from iqn_blocks.kinds import Bool, Choice, Probability, String

PostConcatLayout = Literal["fused_vector", "token_sequence"]
FloatTokenInput = Literal["raw", "mlp_hidden"]
FloatTokenLayout = Literal["dense", "per_feature"]


class HfEmbedding(Block):
    """The hf_embedding trunk; without a path its keys come from encoder.transformer."""

    model_name_or_path: String = key("", "Hub id or folder of the Hugging Face encoder.")
    trust_remote_code: Bool = key(
        False, "Let the Hugging Face encoder run code that comes with its weights."
    )
    hidden_dropout_prob: Probability = key(
        0.0, "Probability of the dropout on the encoder's input."
    )


class Encoder(Block):
    """Fusion of image and floats in the multimodal topology."""

    freeze: Bool = key(
        False,
        "Do not train float tokens, positions, trunk and output; the branches before them have "
        "flags of their own.",
    )
    mlp: FloatMlp | None = key(None, "Takes the place of nn.float.mlp in multimodal networks.")
    fusion_encoder: Annotated[str | Part | None, PartOf(null=True, slot="trunk")] = key(
        None,
        "The trunk; null: hf_embedding with transformer.use_hf_backbone, else linear with "
        "fusion_mode vision_transformer, else native_transformer.",
    )
    post_concat_layout: Annotated[PostConcatLayout, Choice.of(PostConcatLayout)] = key(
        "fused_vector", "post_concat: one fused vector cut into tokens, or a sequence."
    )
    float_token_input: Annotated[FloatTokenInput, Choice.of(FloatTokenInput)] = key(
        "raw", "token_sequence: float tokens from normalised floats or the float MLP."
    )
    float_token_layout: Annotated[FloatTokenLayout, Choice.of(FloatTokenLayout)] = key(
        "dense", "token_sequence: one projection to k tokens, or one token a feature."
    )
    transformer: Transformer = key(Transformer, "Token width and native trunk, or its HF model.")
    fusion_mlp: Annotated[Part, OptionsOf(slot="trunk", name="mlp")] = key(
        lambda: read_part("trunk", "mlp", {}),
        "Options of the mlp trunk, where fusion_encoder gives the bare name.",
    )
    fusion_cnn: Annotated[Part, OptionsOf(slot="trunk", name="cnn")] = key(
        lambda: read_part("trunk", "cnn", {}),
        "Options of the cnn trunk, where fusion_encoder gives the bare name.",
    )
    hf_embedding: HfEmbedding = key(HfEmbedding, "Model of the hf_embedding trunk.")
