"""Rules between keys: a configuration that breaks each, what is said, and what mends it."""

from __future__ import annotations

from typing import Any, NamedTuple

from tests.configs import merge

HF = {"use_hf_backbone": True, "model_name_or_path": "some/model"}


def config(**change: Any) -> dict[str, Any]:
    return merge({"n_actions": 3, "float_input_dim": 4}, change)


def nn(**change: Any) -> dict[str, Any]:
    return config(nn=change)


def multimodal(mode: str, *, vis: Any = None, **encoder: Any) -> dict[str, Any]:
    return nn(fusion_mode=mode, vis=vis or {}, encoder=encoder)


class Rule(NamedTuple):
    """A configuration that breaks one rule, what is said, and ways out that are then accepted."""

    broken: dict[str, Any]
    says: str
    mended: list[dict[str, Any]]


UNIFIED = multimodal("unified", vis={"transformer": {"d_model": 64}})
PATCHES = multimodal("post_concat", vis={"transformer": {"fusion_tokens": "patch_tokens"}})
FEATURES = multimodal("post_concat", float_token_layout="per_feature")
HIDDEN = merge(FEATURES, multimodal("post_concat", post_concat_layout="token_sequence"))
HIDDEN = merge(HIDDEN, {"nn": {"encoder": {"float_token_input": "mlp_hidden"}}})
TEXT = multimodal("unified", transformer={"use_hf_backbone": True})
TWO_PATHS = multimodal(
    "unified",
    fusion_encoder="hf_embedding",
    transformer={"model_name_or_path": "a"},
    hf_embedding={"model_name_or_path": "b"},
)

# IMPALA makes 64 · 32² features of the default image; half of 65 536 behind them, twice.
WIDE_STATE = 64 * 32**2 + 256
WIDE_HEADS = 129 * WIDE_STATE + 2 * (WIDE_STATE + 1) * 32_768 + 4 * (32_768 + 1)

RULES = {
    "two image branches": Rule(
        nn(vis={"cnn": {}, "transformer": HF}),
        "nn.vis: found both cnn and transformer; accepted: one of them; "
        "remove nn.vis.cnn or nn.vis.transformer",
        [nn(vis={"cnn": {}, "transformer": None}), nn(vis={"cnn": None, "transformer": HF})],
    ),
    "two kinds of head": Rule(
        nn(decoder={"value": {"mlp": {}, "transformer": {}}}),
        "nn.decoder.value: found both mlp and transformer; accepted: one of them; "
        "remove nn.decoder.value.mlp or nn.decoder.value.transformer",
        [nn(decoder={"value": {"mlp": None}}), nn(decoder={"value": {"transformer": None}})],
    ),
    "means": Rule(
        config(float_inputs_mean=[0.0] * 3),
        "float_inputs_mean: found 3 numbers; accepted: float_input_dim = 4 numbers; "
        "change float_inputs_mean or float_input_dim",
        [config(float_inputs_mean=[0.0] * 4), config(float_input_dim=3)],
    ),
    "standard deviations": Rule(
        config(float_inputs_std=[]),
        "float_inputs_std: found 0 numbers; accepted: float_input_dim = 4 numbers; "
        "change float_inputs_std or float_input_dim",
        [config(float_inputs_std=[1] * 4), config(float_input_dim=0)],
    ),
    "no input at all": Rule(
        config(float_input_dim=0, nn={"vis": {"no_image": True}}),
        "float_input_dim: found 0 in a classic network with no_image; accepted: at least 1 there; "
        "give float inputs, or build a classic network with an image",
        [config(float_input_dim=1), nn(vis={"no_image": False})],
    ),
    "image only, fused": Rule(
        config(float_input_dim=0, nn={"fusion_mode": "unified"}),
        "float_input_dim: found 0 in multimodal; accepted: at least 1 there",
        [config(float_input_dim=1), nn(fusion_mode="none")],
    ),
    "image only, hf_vision": Rule(
        config(float_input_dim=0, nn={"vis": {"transformer": HF}}),
        "float_input_dim: found 0 in hf_vision; accepted: at least 1 there",
        [config(float_input_dim=1), nn(vis={"transformer": None, "cnn": {}})],
    ),
    "small image": Rule(
        nn(vis={"image_size": {"w": 33, "h": 40}}),
        "nn.vis.image_size: found 33 x 40 (width x height), too small for the 4-layer CNN; "
        "accepted: at least 34 x 34; enlarge the image, or take an IMPALA stem",
        [nn(vis={"image_size": {"w": 34}}), nn(vis={"cnn": {"use_impala_cnn": True}})],
    ),
    "patches": Rule(
        multimodal("unified", vis={"image_size": {"w": 96}, "transformer": {"patch_size": 7}}),
        "nn.vis.transformer.patch_size: found 7, which does not divide nn.vis.image_size 96 x 256 "
        "(width x height); accepted: a divisor of both; set patch_size to 8, or change image_size",
        [
            nn(vis={"transformer": {"patch_size": 8}}),
            nn(vis={"image_size": {"w": 14, "h": 21}}),
        ],
    ),
    "heads of vision": Rule(
        multimodal("post_concat", vis={"transformer": {"d_model": 30}}),
        "nn.vis.transformer.n_heads: found 4, which does not divide nn.vis.transformer.d_model = "
        "30; accepted: a divisor of it; set n_heads to 3, or change d_model",
        [
            nn(vis={"transformer": {"n_heads": 3}}),
            nn(vis={"transformer": {"d_model": 32}}),
            nn(vis={"transformer": {"n_layers": 0}}),
        ],
    ),
    "heads of the trunk": Rule(
        multimodal("unified", transformer={"n_heads": 7}),
        "nn.encoder.transformer.n_heads: found 7, which does not divide "
        "nn.encoder.transformer.d_model = 256; accepted: a divisor of it; set n_heads to 8",
        [nn(encoder={"transformer": {"n_heads": 8}}), nn(encoder={"fusion_encoder": "linear"})],
    ),
    "heads of a decoder slot": Rule(
        nn(decoder={"advantage": {"transformer": {"n_heads": 5}}}),
        "nn.decoder.advantage.transformer.n_heads: found 5, which does not divide d_model = 128; "
        "accepted: a divisor of it; set n_heads to 4, or change d_model",
        [nn(decoder={"advantage": {"transformer": {"n_heads": 4}}})],
    ),
    "tokens of a decoder slot": Rule(
        nn(vis={"no_image": True}, decoder={"value": {"transformer": {"d_model": 60}}}),
        "nn.decoder.value.transformer.d_model: found 60, which does not divide the state width "
        "D = 256; accepted: a divisor of D; set d_model to 64",
        [nn(decoder={"value": {"transformer": {"d_model": 64}}})],
    ),
    "unified widths": Rule(
        UNIFIED,
        "nn.vis.transformer.d_model: found 64, but nn.encoder.transformer.d_model is 256; "
        "accepted: equal widths with nn.fusion_mode unified; set both to one value",
        [
            nn(vis={"transformer": {"d_model": 256}}),
            nn(encoder={"transformer": {"d_model": 64}}),
            nn(vis={"transformer": HF}),
        ],
    ),
    "patch tokens": Rule(
        PATCHES,
        "nn.vis.transformer.fusion_tokens: found patch_tokens with "
        "nn.encoder.post_concat_layout fused_vector; accepted: summary there; set "
        "post_concat_layout to token_sequence, or fusion_tokens to summary",
        [
            nn(vis={"transformer": {"fusion_tokens": "summary"}}),
            nn(encoder={"post_concat_layout": "token_sequence"}),
        ],
    ),
    "per_feature in a fused vector": Rule(
        FEATURES,
        "nn.encoder.float_token_layout: found per_feature with nn.encoder.post_concat_layout "
        "fused_vector; accepted: dense there; set post_concat_layout to token_sequence, or "
        "float_token_layout to dense",
        [
            nn(encoder={"post_concat_layout": "token_sequence"}),
            nn(encoder={"float_token_layout": "dense"}),
        ],
    ),
    "per_feature of hidden values": Rule(
        HIDDEN,
        "nn.encoder.float_token_layout: found per_feature with nn.encoder.float_token_input "
        "mlp_hidden; accepted: dense there; set float_token_input to raw, or float_token_layout "
        "to dense",
        [
            nn(encoder={"float_token_input": "raw"}),
            nn(encoder={"float_token_layout": "dense"}),
        ],
    ),
    "vision model without a path": Rule(
        nn(vis={"transformer": {"use_hf_backbone": True}}),
        "nn.vis.transformer.model_name_or_path: found '' with use_hf_backbone true; accepted: a "
        "hub id or folder; set it, or set use_hf_backbone to false",
        [nn(vis={"transformer": HF}), nn(vis={"transformer": {"use_hf_backbone": False}})],
    ),
    "channels of a vision model": Rule(
        nn(vis={"in_channels": 4, "transformer": HF}),
        "nn.vis.in_channels: found 4 with nn.vis.transformer.use_hf_backbone true; accepted: "
        "1 (repeated to 3) or 3; convert the image, or use nn.vis.cnn",
        [nn(vis={"in_channels": 1}), nn(vis={"in_channels": 3})],
    ),
    "trunk model without a path": Rule(
        TEXT,
        "nn.encoder.hf_embedding.model_name_or_path: found '', and "
        "nn.encoder.transformer.model_name_or_path is '' too; accepted: a hub id or folder in one "
        "of them; set one, or choose another nn.encoder.fusion_encoder",
        [
            nn(encoder={"transformer": HF}),
            nn(encoder={"hf_embedding": {"model_name_or_path": "a"}}),
            nn(encoder={"transformer": {"use_hf_backbone": False}}),
        ],
    ),
    "two trunk models": Rule(
        TWO_PATHS,
        "nn.encoder.hf_embedding.model_name_or_path: found 'b', but "
        "nn.encoder.transformer.model_name_or_path is 'a'; accepted: one path; remove one of the "
        "two",
        [
            nn(encoder={"hf_embedding": {"model_name_or_path": ""}}),
            nn(encoder={"transformer": {"model_name_or_path": ""}}),
            nn(encoder={"transformer": {"model_name_or_path": "b"}}),
            nn(encoder={"fusion_encoder": "mlp"}),
        ],
    ),
    "native trunk with a model": Rule(
        multimodal("unified", transformer=HF, fusion_encoder="native_transformer"),
        "nn.encoder.fusion_encoder: found native_transformer with "
        "nn.encoder.transformer.use_hf_backbone true; accepted: one of them; set fusion_encoder "
        "to hf_embedding, or use_hf_backbone to false",
        [
            nn(encoder={"fusion_encoder": "hf_embedding"}),
            nn(encoder={"transformer": {"use_hf_backbone": False}}),
        ],
    ),
    "another topology": Rule(
        nn(topology="multimodal"),
        "nn.topology: found 'multimodal', but the other keys describe classic; accepted: classic "
        "or null; set it so, or change nn.fusion_mode and nn.vis",
        [nn(topology="classic"), nn(topology=None), nn(fusion_mode="unified")],
    ),
    "a topology that nothing builds": Rule(
        nn(topology="classic", vis={"transformer": {}}),
        "nn.topology: found 'classic'; nn.vis.transformer: found a native vision transformer with "
        "nn.fusion_mode none; accepted: a native one that is fused, or a Hugging Face one; set "
        "nn.fusion_mode to vision_transformer, post_concat or unified, or "
        "nn.vis.transformer.use_hf_backbone to true",
        [
            nn(topology="multimodal", fusion_mode="unified"),
            nn(topology="hf_vision", vis={"transformer": HF}),
        ],
    ),
    "large network": Rule(
        nn(decoder={"dense_hidden_dimension": 65_536}, vis={"cnn": {"use_impala_cnn": True}}),
        "the network: found 4320883524 parameters; accepted: at most 2147483648; the encoder has "
        f"455232 of them, τ projection and heads {WIDE_HEADS}: reduce the sizes there",
        [nn(decoder={"dense_hidden_dimension": 1024})],
    ),
}
