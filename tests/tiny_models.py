"""Tiny HF models with random weights, written to a folder as `save_pretrained` writes real ones."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

# Processor files as they are found on the hub: `crop_size` wins over `size`, and `size` is either
# height and width or the shortest edge.
PROCESSORS: Mapping[str, Mapping[str, Any] | None] = {
    "sides": {
        "size": {"height": 16, "width": 16},
        "image_mean": [0.5, 0.4, 0.3],
        "image_std": [0.2, 0.25, 0.3],
    },
    "edge": {
        "size": {"shortest_edge": 16},
        "image_mean": [0.485, 0.456, 0.406],
        "image_std": [0.229, 0.224, 0.225],
    },
    "crop": {
        "size": {"shortest_edge": 20},
        "crop_size": {"height": 16, "width": 16},
        "image_mean": [0.1, 0.2, 0.3],
        "image_std": [1.0, 0.5, 0.75],
    },
    "wide": {
        "size": {"height": 16, "width": 24},
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.5, 0.4, 0.3],
    },
    "absent": None,
}


def _vit() -> Any:
    from transformers import ViTConfig

    return ViTConfig(
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=24,
        image_size=16,
        patch_size=8,
    )


def _dinov2() -> Any:
    from transformers import Dinov2Config

    return Dinov2Config(
        hidden_size=24,
        num_hidden_layers=1,
        num_attention_heads=2,
        mlp_ratio=2,
        image_size=16,
        patch_size=8,
        layerscale_value=0.7,
    )


def _swin() -> Any:
    from transformers import SwinConfig

    return SwinConfig(
        image_size=16,
        patch_size=2,
        embed_dim=8,
        depths=[1, 1],
        num_heads=[1, 2],
        window_size=4,
        mlp_ratio=2.0,
        drop_path_rate=0.0,
    )


def _convnext() -> Any:
    from transformers import ConvNextConfig

    return ConvNextConfig(
        image_size=16,
        patch_size=4,
        hidden_sizes=[8, 16],
        depths=[1, 1],
        num_stages=2,
        layer_scale_init_value=0.5,
    )


def _bert() -> Any:
    from transformers import BertConfig

    return BertConfig(
        vocab_size=12,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=24,
        max_position_embeddings=32,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )


def _roberta() -> Any:
    from transformers import RobertaConfig

    return RobertaConfig(
        vocab_size=12,
        hidden_size=24,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=34,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )


def _gpt2() -> Any:
    from transformers import GPT2Config

    return GPT2Config(
        vocab_size=12,
        n_embd=16,
        n_layer=1,
        n_head=2,
        n_positions=32,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
    )


def _llama() -> Any:
    from transformers import LlamaConfig

    return LlamaConfig(
        vocab_size=12,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        intermediate_size=24,
        max_position_embeddings=32,
    )


VISION: Mapping[str, Callable[[], Any]] = {
    "vit": _vit,
    "dinov2": _dinov2,
    "swin": _swin,
    "convnext": _convnext,
}
TEXT: Mapping[str, Callable[[], Any]] = {
    "bert": _bert,
    "roberta": _roberta,
    "gpt2": _gpt2,
    "llama": _llama,
}
# A case is a model with a processor file; every kind of file occurs.
CASES: Mapping[str, tuple[str, str]] = {
    "vit": ("vit", "sides"),
    "vit_bare": ("vit", "absent"),
    "dinov2": ("dinov2", "edge"),
    "swin": ("swin", "crop"),
    "convnext": ("convnext", "wide"),
    **{name: (name, "absent") for name in TEXT},
}
VISION_CASES = [case for case, (name, _) in CASES.items() if name in VISION]


def save(name: str, folder: str | Path, *, processor: str = "sides", seed: int = 0) -> str:
    """Write the model called `name` into `folder` and return that folder's path.

    A vision model gets the `preprocessor_config.json` called `processor` in `PROCESSORS`.
    """
    from transformers import AutoModel

    models: Any = AutoModel
    config = {**VISION, **TEXT}[name]()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = models.from_config(config)
        for parameter in model.parameters():
            # Class tokens, biases and embeddings of zeros would hide that they are left out.
            torch.nn.init.normal_(parameter, std=0.3)
    model.save_pretrained(folder)
    if name in VISION and PROCESSORS[processor] is not None:
        file = Path(folder) / "preprocessor_config.json"
        file.write_text(json.dumps(PROCESSORS[processor]))
    return str(folder)


def save_all(folder: str | Path) -> dict[str, str]:
    """Write every case below `folder`; its name -> its own folder."""
    root = Path(folder)
    return {
        case: save(name, root / case, processor=processor, seed=seed)
        for seed, (case, (name, processor)) in enumerate(CASES.items())
    }


def load(folder: str | Path) -> torch.nn.Module:
    """The model in `folder` in eval mode, without a pooler where it can be built so."""
    from transformers import AutoConfig, AutoModel

    config = AutoConfig.from_pretrained(folder)
    if config.model_type in {"vit", "bert", "roberta", "swin"}:
        model: torch.nn.Module = AutoModel.from_pretrained(folder, add_pooling_layer=False)
    else:
        model = AutoModel.from_pretrained(folder)
    return model.eval()
