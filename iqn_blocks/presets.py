"""Configurations of published networks; each key that makes the network is written out."""

from __future__ import annotations

from iqn_blocks.config import Config, parse


def btr(n_actions: int, in_channels: int = 4) -> Config:
    """Beyond The Rainbow (arXiv:2411.03820) for 84×84 Atari frames.

    uint8 images ``(B, in_channels, 84, 84)`` and no floats. IMPALA of twice the usual width with
    spectral normalisation inside residual blocks, max-pooled to 6×6; 64 cosines from ``i = 0``;
    noisy dueling heads of width 512 with a noisy value readout; ReLU and PyTorch's initialisation.
    The Munchausen keys and κ are for trainers.

    >>> import iqn_blocks
    >>> net = iqn_blocks.build(btr(n_actions=6))
    >>> net.q_values(net.example_inputs(batch=2).img).shape
    torch.Size([2, 6])

    Raises:
        ConfigError: a number of actions or channels below 1.
    """
    return parse(
        {
            "n_actions": n_actions,
            "float_input_dim": 0,
            "nn": {
                "activation": "relu",
                "init": "pytorch",
                "vis": {
                    "in_channels": in_channels,
                    "uint8_scaling": "unit",
                    "image_size": {"width": 84, "height": 84},
                    "cnn": {
                        "use_impala_cnn": True,
                        "impala_model_size": 2,
                        "use_adaptive_maxpool": True,
                        "adaptive_maxpool_size": 6,
                        "use_spectral_norm": True,
                        "spectral_norm_scope": "residual",
                    },
                },
                "iqn": {
                    "embedding_dimension": 64,
                    "cosine_start": 0,
                    "n": 8,
                    "k": 8,
                    "kappa": 1.0,
                },
                "decoder": {
                    "dense_hidden_dimension": 1024,
                    "advantage": {"mlp": {"hidden_dim": 512, "n_hidden_layers": 1}},
                    "value": {"mlp": {"hidden_dim": 512, "n_hidden_layers": 1}},
                },
            },
            "btr": {
                "use_layer_norm": False,
                "use_noisy_linear": True,
                "noisy_sigma0": 0.5,
                "noisy_value_readout": True,
                "use_munchausen": True,
                "munchausen_alpha": 0.9,
                "munchausen_entropy_tau": 0.03,
                "munchausen_lo": -1.0,
                "munchausen_clamp": "scaled",
            },
        }
    )
