"""Keys of the image branch and of the float inputs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from iqn_blocks.blocks.stems.base import SpectralNormScope
from iqn_blocks.config.block import Block, key
from iqn_blocks.config.part import Chooser, Part, PartsOf
from iqn_blocks.functional import Uint8Scaling
from iqn_blocks.hf.vision import SummaryToken
from iqn_blocks.kinds import Bool, Choice, LayersOrNone, Probability, Size, String
from iqn_blocks.registry import Slot

FusionTokens = Literal["summary", "patch_tokens"]
MissingProcessor = Literal["model", "unit_224"]


class ImageSize(Block):
    """Size of the camera frame, in pixels."""

    aliases: ClassVar[Mapping[str, str]] = {"w": "width", "h": "height"}

    width: Size = key(256, "Width W, in pixels.")
    height: Size = key(256, "Height H, in pixels.")

    @property
    def shape(self) -> tuple[int, int]:
        """``(H, W)``."""
        return self.height, self.width


class Cnn(Block):
    """Convolutional image stem: the 4-layer CNN, or IMPALA."""

    use_impala_cnn: Bool = key(False, "Build the IMPALA stem instead of the 4-layer CNN.")
    impala_model_size: Size = key(
        2, "Width s of the IMPALA stem: its stages have 16s, 32s and 32s channels."
    )
    use_adaptive_maxpool: Bool = key(
        False, "Pool the last feature map to a fixed square before flattening."
    )
    adaptive_maxpool_size: Size = key(6, "Side of that square, in positions.")
    use_spectral_norm: Bool = key(
        False, "Spectral normalisation (arXiv:1802.05957) of the convolutions."
    )
    spectral_norm_scope: Annotated[SpectralNormScope, Choice.of(SpectralNormScope)] = key(
        "all", "Normalise all convolutions, or those inside residual blocks alone."
    )


class Transformer(Block):
    """A transformer: native, or a Hugging Face model."""

    use_hf_backbone: Bool = key(
        False, "Use the Hugging Face model of model_name_or_path instead of a native one."
    )
    model_name_or_path: String = key("", "Hub id or folder of the Hugging Face model.")
    trust_remote_code: Bool = key(
        False, "Let the Hugging Face model run code that comes with its weights."
    )
    hidden_dropout_prob: Probability = key(
        0.0, "Probability of the dropout on what the Hugging Face model returns."
    )
    d_model: Size = key(256, "Token width d.")
    n_layers: LayersOrNone = key(2, "Layers of the native encoder; 0 leaves it out.")
    n_heads: Size = key(4, "Attention heads of the native encoder; must divide d_model.")
    ff_mult: Size = key(4, "Feed-forward width of the native encoder: max(64, d_model * ff_mult).")
    dropout: Probability = key(0.0, "Dropout probability inside the native encoder.")
    patch_size: Size = key(
        8,
        "Side of a square patch of the native vision encoder, in pixels; must divide the image. "
        "Read from vis.transformer.",
    )
    post_concat_seq_len: Size = key(
        4, "Tokens L that a fused vector is cut into for the trunk. Read from encoder.transformer."
    )
    unified_float_tokens: Size = key(
        1,
        "Tokens k that all float inputs together become (dense layout). Read from "
        "encoder.transformer.",
    )
    fusion_tokens: Annotated[FusionTokens, Choice.of(FusionTokens)] = key(
        "summary",
        "What a token sequence gets of the image: one summary token, or all patch tokens. Read "
        "from vis.transformer.",
    )
    summary_token: Annotated[SummaryToken, Choice.of(SummaryToken)] = key(
        "auto",
        "The summary of a Hugging Face vision model: its first token, the mean token, or with "
        "auto the first of a model with a class token and else the mean. Read from "
        "vis.transformer.",
    )
    missing_processor: Annotated[MissingProcessor, Choice.of(MissingProcessor)] = key(
        "model",
        "Pixels for a vision model with neither processor file nor image size in its "
        "configuration (timm's): as the model's own data says, or 224 x 224 in [0, 1] without "
        "mean and std. Read from vis.transformer.",
    )


class Vision(Chooser):
    """Image branch: a stem (cnn by default), a transformer, or none."""

    slot: ClassVar[Slot] = "stem"
    branches: ClassVar[tuple[str, ...]] = ("cnn", "transformer")

    no_image: Bool = key(False, "Build no image branch: the network takes img=None.")
    freeze: Bool = key(
        False, "Do not train the image branch and its projection; ignored with no_image."
    )
    in_channels: Size = key(1, "Image channels C.")
    uint8_scaling: Annotated[Uint8Scaling, Choice.of(Uint8Scaling)] = key(
        "signed",
        "How uint8 images are normalised: (x - 128) / 128, or x / 255. A Hugging Face vision "
        "model is fed from [-1, 1], of which unit fills the upper half alone.",
    )
    image_size: ImageSize = key(ImageSize, "Size of the image.")
    cnn: Cnn | None = key(None, "Convolutional stem; null beside a transformer.")
    transformer: Transformer | None = key(None, "Vision transformer.")
    parts: Annotated[tuple[Part, ...], PartsOf(slot="stem")] = key(
        (), "Any other stem, under its name."
    )

    if TYPE_CHECKING:  # the parts that come with the library, so that editors know their names
        conv: Any = None
        hadamax: Any = None
        impala: Any = None
        impoola: Any = None
        minatar: Any = None
        nature: Any = None

    @classmethod
    def fill(cls, keys: dict[Any, Any]) -> dict[Any, Any]:
        keys = super().fill(keys)
        if keys.get("cnn") is None and keys.get("transformer") is None and not keys["parts"]:
            keys["cnn"] = {}
        return keys


class FloatMlp(Block):
    """MLP over the normalised float inputs."""

    hidden_dim: Size = key(256, "Width h of its two layers.")


class FloatInputs(Chooser):
    """Branch of the float inputs: the float MLP, or another part by its name."""

    slot: ClassVar[Slot] = "floats"

    freeze: Bool = key(False, "Do not train the float MLP (and in hf_vision its projection).")
    mlp: FloatMlp = key(FloatMlp, "The float MLP.")
    parts: Annotated[tuple[Part, ...], PartsOf(slot="floats")] = key(
        (), "Another part in its place, under its name."
    )
    if TYPE_CHECKING:  # as in Vision
        simba: Any = None
        simba_v2: Any = None
