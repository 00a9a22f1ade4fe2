"""The catalogue of topologies: each network is built, and its tensors are written down."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
import yaml

import iqn_blocks
from demo.tiny_vit import save_tiny_vit
from iqn_blocks.describe import stages
from iqn_blocks.diagram import svg

Keys = dict[str, Any]

HEADER = """\
# Topologies

<!-- Made from built networks by `make docs`. -->

A topology makes the state `s (B, D)` of image and floats; everything after `s` is the same for all,
see [Architecture](architecture.md).

## Which one to take

**Start with `classic`.** It is what the published networks are, it is the fastest, and it takes
every option: LayerNorm, noise, spectral normalisation, folding for acting. Leave it for a reason:

| you have | take | why, and what it costs |
|---|---|---|
| an image, floats, or both | `classic` | A convolution knows that neighbouring pixels belong \
together; a transformer has to learn that, from more frames |
| scores of Atari games to reach | `classic` with IMPALA, as the preset `btr` has it | The network \
behind the scores of Beyond The Rainbow; [4 times the time](performance.md#acting) of the 4-layer \
CNN for a frame |
| images like photographs, and few of them | `hf_vision`, frozen at first | The model has seen \
millions of images; each frame costs a whole transformer |
| many floats of different kinds that say something about the image | `post_concat` with \
`post_concat_layout: token_sequence` and `float_token_layout: per_feature` | Each float is a token \
that attends to the others and to the image; time grows with their number |
| places in an image and floats to relate | `unified`, with `readout: tokens` of a stem | Every \
place is a token beside the floats; the dearest of all |
| image and floats to mix before the quantile path | `vision_transformer` without a trunk | \
`classic` and one more Linear layer |
| something else | [your own](own_encoder.md) | |

Their speed is in [Performance](performance.md). Their scores are compared in
[one table](proof.md#pixels-and-floats-together), with few seeds, one task: `classic` leads there,
and nothing says that tokens beat it on yours.

## What each builds

The tables show the tensors on the way to the state. The networks read 64×64 frames and 128 floats
and have 9 actions; a table has the keys of `nn` that make the difference. `<vit>` and `<bert>`
stand for the folder or hub id of a Hugging Face model, here two of width 64.
"""

COMMON: Keys = {
    "n_actions": 9,
    "float_input_dim": 128,
    "nn": {
        "vis": {"image_size": {"width": 64, "height": 64}},
        "iqn": {"embedding_dimension": 64},
        "decoder": {"dense_hidden_dimension": 512},
    },
}


def merged(*parts: Keys) -> Keys:
    """Nested mappings as one; later ones win."""
    result: Keys = {}
    for part in parts:
        for key, value in part.items():
            both = isinstance(value, dict) and isinstance(result.get(key), dict)
            result[key] = merged(result[key], value) if both else value
    return result


NO_IMAGE: Keys = {"vis": {"no_image": True}}
CNN: Keys = {"vis": {"cnn": {}}}
NATIVE: Keys = {"vis": {"transformer": {"d_model": 128}}}
HF: Keys = {"vis": {"transformer": {"use_hf_backbone": True, "model_name_or_path": "<vit>"}}}
HF_PROJECTED = merged(HF, NATIVE)
PATCH_TOKENS: Keys = {"vis": {"transformer": {"fusion_tokens": "patch_tokens"}}}


class Section(NamedTuple):
    """One table: rows of keys on top of keys that all rows share, and a picture of one row."""

    title: str
    text: str
    shared: Keys
    rows: list[Keys]
    picture: str
    pictured_row: int


def _encoder(**keys: Any) -> Keys:
    return {"encoder": keys}


def _fusion(mode: str, **encoder: Any) -> Keys:
    return {"fusion_mode": mode, **_encoder(**encoder, transformer={"d_model": 128})}


SECTIONS = [
    Section(
        "classic",
        "A convolutional stem and a float MLP side by side; either may be all there is.",
        {},
        [
            CNN,
            {"vis": {"cnn": {"use_impala_cnn": True, "use_adaptive_maxpool": True}}},
            NO_IMAGE,
        ],
        "classic",
        1,
    ),
    Section(
        "hf_vision",
        "A pretrained vision model and a float MLP side by side. The vector is the class token,\n"
        "or the mean token of a model that has none (Swin, ConvNeXt).",
        {},
        [HF_PROJECTED],
        "hf-vision",
        0,
    ),
    Section(
        "multimodal: vision_transformer",
        "A vision vector beside the float MLP. The state is one Linear of both, or they are cut\n"
        "into tokens for a trunk.",
        {"fusion_mode": "vision_transformer"},
        [
            NO_IMAGE,
            CNN,
            NATIVE,
            HF_PROJECTED,
            merged(
                NATIVE,
                _encoder(fusion_encoder="native_transformer", transformer={"d_model": 128}),
            ),
        ],
        "vision-transformer",
        4,
    ),
    Section(
        "multimodal: post_concat, fused_vector",
        "Image vector and float MLP, cut into `post_concat_seq_len` tokens for a trunk.",
        _fusion("post_concat"),
        [NO_IMAGE, CNN, NATIVE, HF_PROJECTED],
        "fused-vector",
        1,
    ),
    Section(
        "multimodal: post_concat, token_sequence",
        "Image tokens and float tokens in one sequence.",
        _fusion("post_concat", post_concat_layout="token_sequence"),
        [
            NO_IMAGE,
            CNN,
            NATIVE,
            merged(NATIVE, PATCH_TOKENS),
            HF_PROJECTED,
            merged(HF_PROJECTED, PATCH_TOKENS),
            _encoder(transformer={"unified_float_tokens": 4}),
            _encoder(float_token_layout="per_feature"),
            _encoder(float_token_input="mlp_hidden"),
        ],
        "token-sequence",
        3,
    ),
    Section(
        "multimodal: unified",
        "Bare image tokens and float tokens in one sequence; the trunk does all the mixing.",
        _fusion("unified"),
        [NO_IMAGE, CNN, NATIVE, HF],
        "unified",
        2,
    ),
    Section(
        "Trunks",
        "What turns the tokens of a multimodal network into one vector, shown under `unified`.",
        _fusion("unified"),
        [
            _encoder(fusion_encoder="linear"),
            _encoder(fusion_encoder="native_transformer"),
            _encoder(fusion_encoder="mlp"),
            _encoder(fusion_encoder="cnn"),
            _encoder(fusion_encoder="hf_embedding", hf_embedding={"model_name_or_path": "<bert>"}),
        ],
        "",
        0,
    ),
]


def pages() -> dict[str, str]:
    """The catalogue and its pictures."""
    texts, pictures = [HEADER], {}
    with tempfile.TemporaryDirectory() as folder:
        models = _tiny_models(Path(folder))
        for section in SECTIONS:
            nets = [_build(merged(section.shared, row), models) for row in section.rows]
            texts += _table(section, nets)
            if section.picture:
                path = f"images/topology-{section.picture}.svg"
                pictures[f"docs/{path}"] = svg(nets[section.pictured_row])
                keys = _yaml(section.rows[section.pictured_row])
                texts.append(f"![Stages of the network with {keys}]({path})\n")
    return {"docs/topologies.md": "\n".join(texts), **pictures}


def _table(section: Section, nets: list[iqn_blocks.IQN]) -> Iterator[str]:
    yield f"### {section.title}\n"
    yield f"{section.text}\n"
    if section.shared:
        yield f"All rows: `{_yaml(section.shared)}`\n"
    yield "| keys | encoder | tensors | D |\n|---|---|---|---|"
    for row, net in zip(section.rows, nets, strict=True):
        steps = [
            f"{stage.name.removeprefix('encoder.')} {stage.kind} ({', '.join(stage.shape)})"
            for stage in stages(net)
            if stage.name.startswith("encoder.")
        ]
        yield (
            f"| `{_yaml(row)}` | {type(net.encoder).__name__} | {'<br>'.join(steps)} "
            f"| {net.state_dim} |"
        )
    yield ""


def _yaml(keys: Keys) -> str:
    text = yaml.safe_dump(keys, default_flow_style=True, sort_keys=False, width=10_000).strip()
    return text[1:-1].replace("'", "")


def _build(keys: Keys, models: dict[str, str]) -> iqn_blocks.IQN:
    torch.manual_seed(0)
    cfg = merged(COMMON, {"nn": _named(keys, models)})
    if cfg["nn"]["vis"].get("no_image"):
        del cfg["nn"]["vis"]["image_size"]
    return iqn_blocks.build(cfg, strict=True)  # strict: every key shown is read


def _named(keys: Any, models: dict[str, str]) -> Any:
    """The keys with a folder in place of each name in ``models``."""
    if isinstance(keys, dict):
        return {key: _named(value, models) for key, value in keys.items()}
    return models.get(keys, keys) if isinstance(keys, str) else keys


def _tiny_models(folder: Path) -> dict[str, str]:
    from transformers import BertConfig, BertModel

    vit, bert = folder / "vit", folder / "bert"
    save_tiny_vit(vit)
    config = BertConfig(
        vocab_size=8,
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=128,
        max_position_embeddings=256,
    )
    BertModel(config, add_pooling_layer=False).save_pretrained(bert)
    return {"<vit>": str(vit), "<bert>": str(bert)}
