"""Our networks in torchrl: a TensorDictModule with QValueModule, and DQNLoss."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch

import iqn_blocks
from iqn_blocks.blocks import NoisyLinear
from iqn_blocks.interop.torchrl import TorchrlModel
from tests.configs import tiny, tiny_btr, tiny_float, tiny_image
from tests.spectral import copy_parameters, sigmas

pytestmark = [
    pytest.mark.peers,
    # These libraries warn on import, about themselves and what they import.
    pytest.mark.filterwarnings("default"),
]

B, K, A = 16, 8, 3
CONFIGS = {"image and floats": tiny(), "floats": tiny_float(), "image": tiny_image()}


def actor_of(config: dict[str, Any], *, noisy: bool = False) -> Any:
    from tensordict.nn import TensorDictModule
    from torchrl.modules import QValueActor

    torch.manual_seed(0)
    net = iqn_blocks.build(config)
    image, floats = not net.config.nn.vis.no_image, net.config.float_input_dim > 0
    values = TensorDictModule(
        TorchrlModel(net, num_quantiles=K, noisy=noisy),
        in_keys=["image"] * image + ["floats"] * floats,
        out_keys=["action_value", "quantiles", "tau"],
    )
    return QValueActor(values, action_space="categorical")


def observations(*lead: int) -> dict[str, Any]:
    image = torch.randint(256, (*lead, 1, 34, 36), dtype=torch.uint8)
    return {"image": image, "floats": torch.randn(*lead, 5)}


def transitions() -> Any:
    from tensordict import TensorDict

    following = {
        **observations(B),
        "reward": torch.randn(B, 1),
        "done": torch.zeros(B, 1, dtype=torch.bool),
        "terminated": torch.zeros(B, 1, dtype=torch.bool),
    }
    return TensorDict({**observations(B), "action": torch.randint(A, (B,)), "next": following}, [B])


def loss_of(actor: Any) -> Any:
    from torchrl.objectives import DQNLoss

    loss = DQNLoss(actor, action_space="categorical", delay_value=True, double_dqn=True)
    loss.make_value_estimator(gamma=0.99)
    return loss


@pytest.mark.parametrize("lead", [(), (4,), (2, 3)], ids=str)
@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_actor_fills_a_tensordict(config: dict[str, Any], lead: tuple[int, ...]) -> None:
    from tensordict import TensorDict

    td = actor_of(config)(TensorDict(observations(*lead), lead))
    assert td["action_value"].shape == (*lead, A)
    assert td["quantiles"].shape == (*lead, K, A)
    assert td["tau"].shape == (*lead, K)
    torch.testing.assert_close(td["action_value"], td["quantiles"].mean(-2))
    assert torch.equal(td["action"], td["action_value"].argmax(-1))
    best = td["action_value"].max(-1, keepdim=True).values
    torch.testing.assert_close(td["chosen_action_value"], best)


def test_quantiles_are_those_of_the_network() -> None:
    from tensordict import TensorDict

    actor, obs = actor_of(tiny()), observations(4)
    td = actor(TensorDict(obs, [4]))
    net = next(m for m in actor.modules() if isinstance(m, iqn_blocks.IQN))
    q, _ = net(obs["image"], obs["floats"], tau=td["tau"].T.reshape(-1, 1))
    torch.testing.assert_close(td["quantiles"], q.view(K, 4, A).transpose(0, 1))


def test_levels_are_midpoints_in_eval_mode_and_drawn_in_training_mode() -> None:
    from tensordict import TensorDict

    actor, obs = actor_of(tiny()), observations(4)
    net = next(m for m in actor.modules() if isinstance(m, iqn_blocks.IQN))
    levels = (torch.arange(K) + 0.5) / K
    actor.eval()
    for _ in range(2):
        td = actor(TensorDict(obs, [4]))
        torch.testing.assert_close(td["tau"], levels.expand(4, K))
        q = net.q_values(obs["image"], obs["floats"], tau=levels[:, None])
        torch.testing.assert_close(td["action_value"], q)
    actor.train()
    first, second = (actor(TensorDict(obs, [4]))["tau"] for _ in range(2))
    assert not torch.equal(first, second)


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_updates_of_dqn_loss(config: dict[str, Any]) -> None:
    from torchrl.objectives import SoftUpdate

    actor = actor_of(config)
    loss, batch = loss_of(actor), transitions()
    updater = SoftUpdate(loss, tau=0.01)
    optimizer = torch.optim.Adam(loss.parameters(), lr=3e-3)
    losses = []
    for _ in range(50):
        value = loss(batch)["loss"]
        optimizer.zero_grad()
        value.backward()
        assert all(p.grad is not None for p in actor.parameters())
        optimizer.step()
        updater.step()
        losses.append(value.item())
    assert sum(losses[-10:]) < 0.8 * sum(losses[:10])


def test_noise_is_new_at_each_call_where_it_is_on() -> None:
    actor = actor_of(tiny_btr(), noisy=True)
    model = next(m for m in actor.modules() if isinstance(m, TorchrlModel))
    layer = next(m for m in actor.modules() if isinstance(m, NoisyLinear))
    seen: list[Any] = []
    layer.register_forward_pre_hook(lambda m, _: seen.append(tuple(m.epsilon_in.tolist())))
    loss = loss_of(actor)
    for _ in range(3):
        loss(transitions())
    assert len(set(seen)) == len(seen) == 9  # now; next, online and target
    model.noisy = False
    loss(transitions())
    assert not any(any(noise) for noise in seen[9:])


def test_spectral_norm_of_the_target() -> None:
    """In training mode the target divides by the σ of the online network."""
    from torchrl.objectives import HardUpdate

    actor = actor_of(tiny_btr())
    loss = loss_of(actor)
    stale = copy.deepcopy(actor)
    updater = HardUpdate(loss, value_network_update_interval=1)
    optimizer = torch.optim.Adam(loss.parameters(), lr=1e-3)
    for _ in range(100):
        optimizer.zero_grad()
        loss(transitions())["loss"].backward()
        optimizer.step()
        updater.step()
    online_sigma, _ = sigmas(actor)
    assert len(online_sigma) == 15
    with loss.target_value_network_params.to_module(actor, preserve_module_state=False):
        np.testing.assert_allclose(sigmas(actor)[0], online_sigma, rtol=0.01)
    copy_parameters(actor, stale)
    assert (sigmas(stale)[0] / online_sigma).min() < 0.9, "vectors that stay fall behind"


def test_bad_networks_and_inputs() -> None:
    with pytest.raises(ValueError, match="n_actions_per_block = 2; build it with 1"):
        TorchrlModel(iqn_blocks.build(tiny(n_actions_per_block=2)))
    model = TorchrlModel(iqn_blocks.build(tiny()))
    with pytest.raises(ValueError, match=r"takes 2 .*, got 1; see in_keys"):
        model(torch.randn(2, 5))
