"""The adapter needs no tianshou: what tianshou does with it is tested beside the other peers."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

import iqn_blocks
from iqn_blocks.interop.tianshou import TianshouModel
from iqn_blocks.interop.torchrl import TorchrlModel
from tests.configs import tiny, tiny_btr, tiny_float, tiny_image
from tests.spectral import copy_parameters, sigmas

IMAGE = np.random.default_rng(0).integers(0, 256, (3, 1, 34, 36), dtype=np.uint8)
VECTOR = np.random.default_rng(1).normal(size=(3, 5))


def model(config, **keys):
    torch.manual_seed(0)
    return TianshouModel(iqn_blocks.build(config), **keys).eval()


@pytest.mark.parametrize(
    ("config", "keys", "obs"),
    [
        (tiny(), {}, {"image": IMAGE, "vector": VECTOR}),
        (tiny(), {"image_key": "a", "vector_key": "b"}, {"a": IMAGE[:, 0], "b": VECTOR}),
        (tiny_float(), {}, VECTOR),
        (tiny_float(), {}, {"vector": VECTOR.astype(np.float32)}),
        (tiny_float(), {}, (VECTOR * 100).astype(np.uint8)),
        (tiny_image(), {}, IMAGE),
    ],
)
def test_answers_as_tianshou_expects(config, keys, obs):
    adapter = model(config, **keys)
    (q, taus), state = adapter(obs, sample_size=7, state="kept", info={})
    assert q.shape == (3, 3, 7)
    assert taus.shape == (3, 7)
    assert state == "kept"


@pytest.mark.parametrize("adapter", [TianshouModel, TorchrlModel])
def test_networks_with_memory_are_refused(adapter):
    net = iqn_blocks.build(tiny_float(nn={"core": "gru"}))
    with pytest.raises(
        ValueError, match=r"net: found .* nn\.core; .* nn\.core to null, or .*cores\.md"
    ):
        adapter(net)


def test_values_are_those_of_the_network():
    adapter = model(tiny())
    (q, taus), _ = adapter({"image": IMAGE, "vector": VECTOR}, sample_size=4)
    tau = taus.T.reshape(-1, 1)
    expected, _ = adapter.net(torch.from_numpy(IMAGE), torch.from_numpy(VECTOR), tau=tau)
    for b in range(3):
        for k in range(4):
            torch.testing.assert_close(q[b, :, k], expected[k * 3 + b])


def test_deep_copy_keeps_spectral_norm_alive():
    online = model(tiny_btr()).train()
    # A copy of the bare network does not iterate in eval mode.
    target, stale = copy.deepcopy(online).eval(), copy.deepcopy(online.net).eval()
    obs = {"image": IMAGE[:1], "vector": VECTOR[:1]}
    optimizer = torch.optim.Adam(online.parameters(), lr=1e-3)
    for _ in range(100):
        (q, _), _ = online(obs, sample_size=2)
        optimizer.zero_grad()
        (q - 10).square().mean().backward()
        optimizer.step()
        for twin in (target, stale):
            copy_parameters(online, twin)
        target(obs, sample_size=2)
        stale(*(torch.from_numpy(x) for x in obs.values()), 2)
    # Against the online network: among nearly equal singular values it is itself 1.5 % off.
    online_sigma, largest = sigmas(online)
    followed, behind = sigmas(target)[0], sigmas(stale)[0]
    np.testing.assert_allclose(followed, online_sigma, rtol=0.01)
    np.testing.assert_allclose(followed, largest, rtol=0.03)
    assert (behind / online_sigma).min() < 0.9
    assert target.image_key == online.image_key


def test_bad_observations_and_networks():
    adapter = model(tiny())
    with pytest.raises(ValueError, match=r"mapping with the keys 'image' and 'vector'"):
        adapter(VECTOR, sample_size=4)
    with pytest.raises(ValueError, match=r"no key 'image' among \['frame', 'vector'\]"):
        adapter({"frame": IMAGE, "vector": VECTOR}, sample_size=4)
    with pytest.raises(ValueError, match="n_actions_per_block = 2; build it with 1"):
        model(tiny(n_actions_per_block=2))
