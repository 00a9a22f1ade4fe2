"""Configurations of published networks. Each is a YAML file here that a configuration can name.

``{"preset": "btr", "n_actions": 6}`` is the same as ``presets.btr(6)``. Further keys, there and as
keyword arguments here, are laid over the preset's, block by block.
"""

from __future__ import annotations

from typing import Any

from iqn_blocks.config import Config, list_presets, parse

__all__ = [
    "btr",
    "fqf",
    "impoola_iqn",
    "iqn",
    "linesight",
    "list_presets",
    "minatar",
    "recurrent_iqn",
    "simba_iqn",
]


def btr(n_actions: int, in_channels: int = 4, **keys: Any) -> Config:
    """Beyond The Rainbow (arXiv:2411.03820) for 84×84 Atari frames.

    uint8 images ``(B, in_channels, 84, 84)`` and no floats. IMPALA of twice the usual width with
    spectral normalisation inside residual blocks, max-pooled to 6×6; 64 cosines from ``i = 0``;
    noisy dueling heads of width 512 with a noisy value readout; ReLU and PyTorch's initialisation.
    The Munchausen keys and κ are for trainers.

    Its parameters, as many as those of its program, are counted in the tests; the paper gives no
    number.

    >>> import iqn_blocks
    >>> net = iqn_blocks.build(btr(n_actions=6))
    >>> net.q_values(net.example_inputs(batch=2).img).shape
    torch.Size([2, 6])
    >>> btr(6, float_input_dim=20, nn={"iqn": {"n": 16}}).nn.iqn.n
    16

    Raises:
        ConfigError: a key that is not valid.
    """
    return _preset("btr", keys, n_actions=n_actions, in_channels=in_channels)


def fqf(n_actions: int, in_channels: int = 4, **keys: Any) -> Config:
    """FQF (arXiv:1911.02140) for 84×84 Atari frames; uint8 images, no floats.

    :func:`iqn`, and one Linear layer that proposes 32 fractions for each state. The paper gives no
    number of parameters; its layers have 1 991 430 for 6 actions, as this network.

    Raises:
        ConfigError: a key that is not valid.
    """
    return _preset("fqf", keys, n_actions=n_actions, in_channels=in_channels)


def impoola_iqn(n_actions: int, in_channels: int = 3, **keys: Any) -> Config:
    """IQN on Impoola's stem (arXiv:2503.05546) for 64×64 Procgen frames; uint8 images, no floats.

    IMPALA of twice the usual width and the mean over positions; a head of width 256, that paper's
    Linear layer. Its quantile path is that of :func:`iqn`; the paper has DQN and PPO behind the
    stem, so that there is no number of parameters to compare with.

    Raises:
        ConfigError: a key that is not valid.
    """
    return _preset("impoola_iqn", keys, n_actions=n_actions, in_channels=in_channels)


def iqn(n_actions: int, in_channels: int = 4, **keys: Any) -> Config:
    """IQN (arXiv:1806.06923) for 84×84 Atari frames; uint8 images, no floats.

    The stem of DQN, 64 cosines from ``i = 0``, one head of width 512 without dueling, ReLU and
    PyTorch's initialisation. The paper gives no number of parameters; its layers have 1 891 046 for
    6 actions, as this network.

    Raises:
        ConfigError: a key that is not valid.
    """
    return _preset("iqn", keys, n_actions=n_actions, in_channels=in_channels)


def linesight(n_actions: int = 12, float_input_dim: int = 184, **keys: Any) -> Config:
    """The network of Linesight, which drives in TrackMania: 160×120 grey frames and 184 floats.

    The 4-layer CNN and a float MLP of width 256, 64 cosines from ``i = 1``, dueling heads of width
    512, LeakyReLU and orthogonal initialisation. Its program gives no number of parameters, but the
    5632 features of the CNN, which ours has. ``float_inputs_mean`` and ``_std`` are up to you.

    Raises:
        ConfigError: a key that is not valid.
    """
    return _preset("linesight", keys, n_actions=n_actions, float_input_dim=float_input_dim)


def minatar(n_actions: int, in_channels: int, **keys: Any) -> Config:
    """IQN on the stem of MinAtar (arXiv:1903.03176): 10×10 grids of any number of channels.

    One convolution and a head of width 128, the layers of that paper's DQN, whose parameters these
    are. The quantile path is that of :func:`iqn`. Grids are 0 or 1: pass them as floats, since
    uint8 images are divided by 255.

    Raises:
        ConfigError: a key that is not valid.
    """
    return _preset("minatar", keys, n_actions=n_actions, in_channels=in_channels)


def recurrent_iqn(n_actions: int, in_channels: int = 4, **keys: Any) -> Config:
    """:func:`iqn` with the memory and the dueling heads of R2D2; uint8 images, no floats.

    The stem of DQN, an LSTM of 512 units, heads of width 512, as "Recurrent experience replay in
    distributed reinforcement learning" (ICLR 2019) has them. Its LSTM reads the last reward and
    action too: give them as floats (``float_input_dim``) for that. It gives no number of
    parameters.

    Raises:
        ConfigError: a key that is not valid.
    """
    return _preset("recurrent_iqn", keys, n_actions=n_actions, in_channels=in_channels)


def simba_iqn(n_actions: int, float_input_dim: int, **keys: Any) -> Config:
    """IQN over floats alone, behind SimBa (arXiv:2410.09754) of width 512 and two blocks.

    These are the sizes of that paper's critic; the quantile path is that of :func:`iqn`. The paper
    has continuous actions, so that there is no number of parameters to compare with.

    Raises:
        ConfigError: a key that is not valid.
    """
    return _preset("simba_iqn", keys, n_actions=n_actions, float_input_dim=float_input_dim)


def _preset(name: str, keys: dict[str, Any], in_channels: int | None = None, **own: Any) -> Config:
    if in_channels is not None:
        own["nn"] = {"vis": {"in_channels": in_channels}}
    return parse({"preset": name, **Config.merge(own, keys)})
