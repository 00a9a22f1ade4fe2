"""Small configurations that the tests share."""

from __future__ import annotations

from typing import Any


def merge(base: dict[str, Any], change: dict[str, Any]) -> dict[str, Any]:
    """``base`` with ``change`` laid over it, block by block."""
    merged = dict(base)
    for key, value in change.items():
        old = merged.get(key)
        both = isinstance(old, dict) and isinstance(value, dict)
        merged[key] = merge(old, value) if both else value
    return merged


def tiny(**change: Any) -> dict[str, Any]:
    """A classic network of a few thousand parameters."""
    base: dict[str, Any] = {
        "n_actions": 3,
        "float_input_dim": 5,
        "nn": {
            "vis": {"image_size": {"width": 36, "height": 34}},
            "float": {"mlp": {"hidden_dim": 8}},
            "iqn": {"embedding_dimension": 6, "n": 4, "k": 4},
            "decoder": {"dense_hidden_dimension": 16},
        },
    }
    return merge(base, change)


def tiny_float(**change: Any) -> dict[str, Any]:
    """The same without an image."""
    base = tiny()
    base["nn"]["vis"] = {"no_image": True}
    return merge(base, change)


def tiny_image(**change: Any) -> dict[str, Any]:
    """The same without floats."""
    base = tiny(float_input_dim=0)
    del base["nn"]["float"]
    return merge(base, change)


def tiny_btr(**change: Any) -> dict[str, Any]:
    """The same with IMPALA, max-pool, spectral norm, LayerNorm and noisy heads."""
    btr = {
        "use_layer_norm": True,
        "use_noisy_linear": True,
        "use_impala_cnn": True,
        "impala_model_size": 1,
        "use_adaptive_maxpool": True,
        "adaptive_maxpool_size": 2,
        "use_spectral_norm": True,
    }
    return merge(tiny(btr=btr), change)


def tiny_transformer(**change: Any) -> dict[str, Any]:
    """A float-only network with a transformer in the value slot."""
    slot = {"transformer": {"d_model": 4, "n_heads": 2}}
    return merge(tiny_float(nn={"decoder": {"value": slot}}), change)


def tiny_multimodal(**change: Any) -> dict[str, Any]:
    """An image and a token for each scalar through a native encoder of one layer."""
    fusion = {
        "fusion_mode": "post_concat",
        "encoder": {
            "post_concat_layout": "token_sequence",
            "float_token_layout": "per_feature",
            "transformer": {"d_model": 8, "n_layers": 1, "n_heads": 2},
        },
    }
    base = tiny(nn=fusion)
    del base["nn"]["float"]
    return merge(base, change)
