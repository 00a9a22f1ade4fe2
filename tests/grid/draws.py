"""What the grids share: drawing options, and the quantile path behind every topology."""

from __future__ import annotations

import random
from typing import Any

Config = dict[str, Any]

# name -> the keys of `btr`
NORMS: dict[str, Config] = {"plain": {}, "layer_norm": {"use_layer_norm": True}}
NOISE: dict[str, Config] = {
    "quiet": {},
    "noisy": {"use_noisy_linear": True, "noisy_sigma0": 0.8},
    "value_only": {"noisy_value_readout": True},
    "noisy_value": {"use_noisy_linear": True, "noisy_value_readout": True},
}
SLOTS = ("mlp", "transformer")
# Keys of a pretrained model that is summarised.
SUMMARIES: tuple[Config, ...] = ({}, {"summary_token": "first"}, {"summary_token": "mean"})


def mlp_slot(draw: random.Random, *, sized: bool) -> Config:
    """An mlp slot; `sized` may give it a width of its own, which hides dense_hidden_dimension."""
    block: Config = {"n_hidden_layers": draw.choice([1, 2])}
    if sized and draw.random() < 0.5:
        block["hidden_dim"] = draw.choice([5, 10])
    return {"mlp": block}


def transformer_slot(draw: random.Random) -> Config:
    """A transformer slot; 8 · 9 is more than the least feed-forward width, 8 · 2 less."""
    return {
        "transformer": {
            "d_model": 8,
            "n_layers": draw.choice([1, 2]),
            "n_heads": draw.choice([1, 2, 4]),
            "ff_mult": draw.choice([2, 9]),
        }
    }


def decoder(draw: random.Random, advantage: str, value: str, dense: int) -> Config:
    """Both slots. At most the advantage has its own width, so that `dense` is always read."""
    slots = {"advantage": advantage, "value": value}
    block: Config = {"dense_hidden_dimension": dense}
    for name, kind in slots.items():
        sized = name == "advantage"
        block[name] = mlp_slot(draw, sized=sized) if kind == "mlp" else transformer_slot(draw)
    return block


def quantiles(draw: random.Random) -> Config:
    """The block `iqn`."""
    return {
        "embedding_dimension": draw.choice([1, 3, 8]),
        "cosine_start": draw.choice([0, 1]),
        "k": draw.choice([1, 2, 5]),
    }


def float_inputs(draw: random.Random, count: int) -> Config:
    """`float_input_dim`, with statistics or without."""
    if count == 0 or draw.random() < 0.3:
        return {"float_input_dim": count}
    return {
        "float_input_dim": count,
        "float_inputs_mean": [round(draw.uniform(-2, 2), 2) for _ in range(count)],
        "float_inputs_std": [round(draw.uniform(0.5, 3), 2) for _ in range(count)],
    }
