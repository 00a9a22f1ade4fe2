"""The five networks that are measured, and the sizes they are measured at."""

from __future__ import annotations

from typing import Any, NamedTuple

NAMES = ("classic", "linesight", "floats", "btr", "multimodal")
CUDA_NAMES = ("classic", "linesight", "btr")


class Sizes(NamedTuple):
    """Every number of a scenario; images as (height, width)."""

    n_actions: int = 12
    n_floats: int = 264
    float_hidden: int = 256
    cosines: int = 64
    square_image: tuple[int, int] = (64, 64)
    wide_image: tuple[int, int] = (120, 160)
    dense: int = 1024
    btr_dense: int = 512
    impala_size: int = 2
    pool: int = 6
    d_model: int = 128
    n_layers: int = 2
    acting_quantiles: int = 32
    acting_batches: tuple[int, ...] = (1, 64)
    training_quantiles: int = 8
    training_batch: int = 256
    training_batch_impala: int = 64  # btr and multimodal


FULL = Sizes()
CUDA = FULL._replace(training_batch=4096, training_batch_impala=4096)
TINY = Sizes(
    n_actions=3,
    n_floats=5,
    float_hidden=8,
    cosines=4,
    square_image=(36, 36),
    wide_image=(34, 40),
    dense=16,
    btr_dense=16,
    impala_size=1,
    pool=2,
    d_model=8,
    acting_quantiles=4,
    acting_batches=(2,),
    training_quantiles=2,
    training_batch=3,
    training_batch_impala=3,
)


class Scenario(NamedTuple):
    """A network's configuration and the batch it is trained with."""

    name: str
    config: dict[str, Any]
    training_batch: int


def scenario(name: str, sizes: Sizes = FULL) -> Scenario:
    """The scenario of that name, one of ``NAMES``."""
    iqn = {"embedding_dimension": sizes.cosines, "k": sizes.acting_quantiles}
    impala = name in ("btr", "multimodal")
    nn: dict[str, Any] = {
        "vis": _vision(name, sizes),
        "float": {"mlp": {"hidden_dim": sizes.float_hidden}},
        "iqn": iqn,
        "decoder": {"dense_hidden_dimension": sizes.btr_dense if impala else sizes.dense},
    }
    config: dict[str, Any] = {
        "n_actions": sizes.n_actions,
        "float_input_dim": sizes.n_floats,
        # Statistics other than zeros and ones, as in use.
        "float_inputs_mean": [0.5 + i % 7 for i in range(sizes.n_floats)],
        "float_inputs_std": [1.0 + i % 5 for i in range(sizes.n_floats)],
        "nn": nn,
    }
    if impala:
        config["btr"] = {
            "use_impala_cnn": True,
            "impala_model_size": sizes.impala_size,
            "use_adaptive_maxpool": True,
            "adaptive_maxpool_size": sizes.pool,
            "use_spectral_norm": True,
            "use_layer_norm": True,
            "use_noisy_linear": True,
        }
    if name == "multimodal":
        del nn["float"]  # scalars become tokens as they are: there is no float MLP
        nn["fusion_mode"] = "post_concat"
        nn["encoder"] = {
            "post_concat_layout": "token_sequence",
            "float_token_layout": "per_feature",
            "transformer": {"d_model": sizes.d_model, "n_layers": sizes.n_layers},
        }
    return Scenario(name, config, sizes.training_batch_impala if impala else sizes.training_batch)


def _vision(name: str, sizes: Sizes) -> dict[str, Any]:
    if name == "floats":
        return {"no_image": True}
    height, width = sizes.wide_image if name == "linesight" else sizes.square_image
    return {"image_size": {"height": height, "width": width}}
