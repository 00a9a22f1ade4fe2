"""Configurations of the classic topology."""

from __future__ import annotations

import itertools
import random

from .draws import NOISE, NORMS, SLOTS, Config, decoder, float_inputs, quantiles

STEMS: dict[str, Config | None] = {
    "no_image": None,
    "cnn": {},
    "cnn+pool": {"use_adaptive_maxpool": True},
    "cnn+spectral": {"use_spectral_norm": True},
    "cnn+pool+spectral": {"use_adaptive_maxpool": True, "use_spectral_norm": True},
    "impala": {"use_impala_cnn": True},
    "impala+pool": {"use_impala_cnn": True, "use_adaptive_maxpool": True},
    "impala+spectral": {"use_impala_cnn": True, "use_spectral_norm": True},
    "impala+residual": {
        "use_impala_cnn": True,
        "use_spectral_norm": True,
        "spectral_norm_scope": "residual",
    },
    "impala+pool+spectral": {
        "use_impala_cnn": True,
        "use_adaptive_maxpool": True,
        "use_spectral_norm": True,
    },
    "impala+pool+residual": {
        "use_impala_cnn": True,
        "use_adaptive_maxpool": True,
        "use_spectral_norm": True,
        "spectral_norm_scope": "residual",
    },
}


def image_block(draw: random.Random, name: str, scaling: str) -> Config:
    """The block `vis` of a stem by its name. No side of an image equals the other."""
    stem = STEMS[name]
    if stem is None:
        return {"no_image": True}
    cnn = dict(stem)
    if cnn.get("use_impala_cnn"):
        cnn["impala_model_size"] = draw.choice([1, 1, 1, 2])
        sides = draw.choice([(10, 18), (17, 9)])
    else:
        sides = draw.choice([(36, 50), (52, 37)])
    if cnn.get("use_adaptive_maxpool"):
        cnn["adaptive_maxpool_size"] = draw.choice([1, 2, 3])
    return {
        "in_channels": draw.choice([1, 3, 4]),
        "image_size": {"height": sides[0], "width": sides[1]},
        "uint8_scaling": scaling,
        "cnn": cnn,
    }


def _config(
    draw: random.Random,
    stem: str,
    norm: str,
    noise: str,
    slots: tuple[str, str],
    offsets: int,
    activation: str,
    count: int,
    start: int | None = None,
    scaling: str | None = None,
) -> Config:
    # In a transformer head 8 divides both the stem's output and the width of the float MLP.
    chosen = draw.choice(["signed", "unit"]) if scaling is None else scaling
    iqn = quantiles(draw)
    if start is not None:
        iqn["cosine_start"] = start
    nn: Config = {
        "activation": activation,
        "vis": image_block(draw, stem, chosen),
        "iqn": iqn,
        "decoder": decoder(draw, *slots, dense=draw.choice([13, 16])),
    }
    if count > 0:
        nn["float"] = {"mlp": {"hidden_dim": draw.choice([8, 16])}}
    return {
        "n_actions": draw.choice([1, 2, 5]),
        "n_actions_per_block": offsets,
        **float_inputs(draw, count),
        "nn": nn,
        "btr": {**NORMS[norm], **NOISE[noise]},
    }


def classic_grid() -> dict[str, Config]:
    """Every stem × norm × noise × kind of head × offsets, then every small option on two stems."""
    draw = random.Random(0)
    grid: dict[str, Config] = {}
    structures = itertools.product(STEMS, NORMS, NOISE, SLOTS, SLOTS, (1, 3))
    for stem, norm, noise, advantage, value, offsets in structures:
        if noise == "value_only" and stem != "no_image":
            continue  # a matter of the heads alone
        count = draw.choice([0, 1, 3]) if stem != "no_image" else draw.choice([1, 3])
        activation = draw.choice(["leaky_relu", "relu"])
        name = f"{stem}-{norm}-{noise}-{advantage}_{value}-n{offsets}"
        slots = (advantage, value)
        grid[name] = _config(draw, stem, norm, noise, slots, offsets, activation, count)
    options = itertools.product(
        ("cnn", "impala"), ("leaky_relu", "relu"), (0, 3), (0, 1), ("signed", "unit")
    )
    for stem, activation, count, start, scaling in options:
        name = f"{stem}-{activation}-f{count}-start{start}-{scaling}"
        slots = ("mlp", "mlp")
        grid[name] = _config(
            draw, stem, "plain", "quiet", slots, 1, activation, count, start, scaling
        )
    return grid
