"""CartPole-v1 in torchrl: its environments, collector and buffer, and the quantile Huber loss.

The network, the five-step targets and the settings are those of cartpole.py.

python docs/examples/cartpole_torchrl.py --help
"""

from __future__ import annotations

import copy
import time
from typing import Any

import torch
from tensordict import TensorDict
from tensordict.nn import TensorDictModule, TensorDictSequential
from torchrl.collectors import Collector
from torchrl.data import LazyTensorStorage, TensorDictReplayBuffer
from torchrl.envs import GymEnv, SerialEnv
from torchrl.modules import EGreedyModule, QValueActor

import iqn_blocks
from iqn_blocks.interop.torchrl import TorchrlModel
from iqn_blocks.losses import double_dqn_target, quantile_huber_loss, take
from iqn_blocks.target import hard_update_

FRAMES, EPISODES, SEEDS = 25_600, 20, (0, 1, 2)


def cartpoles(count: int, seed: int) -> Any:
    """Environments that start from ``seed`` on."""
    envs = SerialEnv(count, lambda: GymEnv("CartPole-v1", categorical_action_encoding=True))
    envs.set_seed(seed)
    return envs


def train(seed: int) -> Any:
    """The last policy."""
    import cartpole as loop  # beside this file

    torch.manual_seed(seed)
    values = TensorDictModule(
        TorchrlModel(iqn_blocks.build(loop.CONFIG), num_quantiles=loop.K),
        in_keys=["observation"],
        out_keys=["action_value", "quantiles", "tau"],
    )
    actor = QValueActor(values, action_space="categorical")
    target = copy.deepcopy(actor)
    optimizer = torch.optim.Adam(actor.parameters(), lr=loop.LEARNING_RATE)
    envs = cartpoles(loop.ENVS, seed)
    explore = EGreedyModule(
        envs.action_spec, eps_end=loop.EPSILON, annealing_num_steps=loop.EXPLORING
    )
    buffer = TensorDictReplayBuffer(storage=LazyTensorStorage(FRAMES), batch_size=loop.BATCH)
    size = loop.ENVS * loop.STEPS
    collector = Collector(
        envs,
        TensorDictSequential(actor, explore),
        frames_per_batch=size,
        total_frames=FRAMES,
    )
    for seen in collector:
        seen = seen.transpose(0, 1)
        following = seen["next"]
        steps = loop.Batch(
            seen["observation"],
            seen["action"],
            loop.REWARD_SCALE * following["reward"].squeeze(-1),
            loop.GAMMA * ~following["terminated"].squeeze(-1),
            following["observation"],
        )
        steps = loop.multi_step(steps, following["done"].squeeze(-1))
        names = ("observation", "action", "reward", "discount", "following")
        buffer.extend(TensorDict(dict(zip(names, steps, strict=True)), seen.shape).flatten())
        for update in range(1, loop.UPDATES + 1):
            batch = buffer.sample()
            with torch.no_grad():
                later = TensorDict({"observation": batch["following"]}, batch.shape)
                q = target(later)["quantiles"]
                goal = double_dqn_target(batch["reward"], batch["discount"], q, q)
            online = values(batch.select("observation"))
            pred = take(online["quantiles"], batch["action"])
            loss = quantile_huber_loss(pred, goal, online["tau"]).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            if update % loop.SYNCHRONISE == 0:
                hard_update_(target, actor)
        explore.step()
        optimizer.param_groups[0]["lr"] -= loop.LEARNING_RATE * size / FRAMES
    collector.shutdown()
    return actor


@torch.no_grad()
def mean_return(actor: Any, seed: int = 20_000) -> float:
    """Of one greedy episode in each of ``EPISODES`` environments; in eval mode τ is not drawn."""
    play = cartpoles(EPISODES, seed).rollout(500, actor.eval(), break_when_any_done=False)
    over = play["next", "done"].squeeze(-1).cumsum(1)
    return 1 + (over[:, :-1] == 0).sum(1).float().mean().item()


if __name__ == "__main__":
    from arguments import read  # beside this file

    seeds = read(__doc__, SEEDS).seeds
    torch.set_num_threads(1)  # the networks are far too small for more
    for seed in seeds:
        start = time.process_time()
        score = mean_return(train(seed))
        print(f"seed {seed}: {score:.1f}, {time.process_time() - start:.0f} s", flush=True)
