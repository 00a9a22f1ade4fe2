"""Configurations of the hf_vision topology."""

from __future__ import annotations

import itertools
import random
from collections.abc import Mapping

from .draws import NOISE, NORMS, SLOTS, SUMMARIES, Config, decoder, float_inputs, quantiles


def hf_vision_grid(vision: Mapping[str, str]) -> dict[str, Config]:
    """Every backbone (name -> folder) × refining layers × channels × norm × kind of head."""
    draw, draw_summary = random.Random(1), random.Random(3)
    grid: dict[str, Config] = {}
    structures = itertools.product(vision, (0, 1, 2), (1, 3), NORMS, SLOTS)
    for backbone, layers, channels, norm, slot in structures:
        noise = draw.choice(list(NOISE))
        # 16 is the width of several backbones, whose projection is then left out.
        transformer: Config = {
            "use_hf_backbone": True,
            "model_name_or_path": vision[backbone],
            "d_model": draw.choice([8, 16]),
            "n_layers": layers,
        }
        if layers > 0:
            transformer |= {"n_heads": draw.choice([1, 2]), "ff_mult": draw.choice([2, 9])}
        transformer |= draw_summary.choice(SUMMARIES)
        grid[f"{backbone}-refine{layers}-c{channels}-{norm}-{noise}-{slot}"] = {
            "n_actions": draw.choice([1, 2, 5]),
            "n_actions_per_block": draw.choice([1, 3]),
            **float_inputs(draw, draw.choice([1, 3])),
            "nn": {
                "activation": draw.choice(["leaky_relu", "relu"]),
                "vis": {"in_channels": channels, "transformer": transformer},
                "float": {"mlp": {"hidden_dim": draw.choice([5, 8])}},
                "iqn": quantiles(draw),
                "decoder": decoder(draw, slot, draw.choice(SLOTS), dense=13),
            },
            "btr": {**NORMS[norm], **NOISE[noise]},
        }
    return grid
