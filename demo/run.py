"""Show what a trained network predicts, and let the networks of docs/configs act on Atari.

Run from the root of the checkout with `make demo`. The trained network walks along a windy river;
docs/examples/windy_river.py made it. Draws build/demo.png and prints its returns, and one row for
each network on Atari, untrained; `python -m demo.run --update-docs` writes the picture of the docs.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

import iqn_blocks
from demo.atari import Atari, measure_float_stats
from demo.figure import TASTES, draw
from demo.tiny_vit import save_tiny_vit
from docs.examples import windy_river

CONFIGS = Path("docs/configs")
NETWORKS = ("default", "btr", "multimodal", "hf_vision")
TINY_VIT = Path("demo/output/tiny-vit")  # named in docs/configs/hf_vision.yaml
GAME = "MsPacman"
RANDOM_STEPS = 500
ACTING_STEPS = 300
TRAINED, WIND = Path("demo/windy_river"), 0.06


class Result(NamedTuple):
    """One network after acting."""

    name: str
    net: iqn_blocks.IQN
    steps_per_second: float


def act(net: iqn_blocks.IQN, game: Atari, steps: int) -> float:
    """Play the greedy action for `steps` steps; how many there were in a second."""
    observation = game.reset()
    start = time.perf_counter()
    for _ in range(steps):
        net.reset_noise()
        q = net.q_values(observation.img, observation.floats)
        observation = game.step(int(q.argmax()))
    return steps / (time.perf_counter() - start)


def run(name: str, game: Atari, stats: tuple[Tensor, Tensor]) -> Result:
    """Build the network of `docs/configs/<name>.yaml` and let it act."""
    torch.manual_seed(0)
    net = iqn_blocks.build(CONFIGS / f"{name}.yaml").eval()
    net.set_float_stats(*stats)
    act(net, game, steps=10)  # the first calls allocate; they are not timed
    return Result(name, net, act(net, game, ACTING_STEPS))


def print_table(results: list[Result]) -> None:
    """One row a network."""
    print(f"{'config':<12}{'topology':<12}{'parameters':>12}{'D':>7}{'steps/s':>9}")
    for result in results:
        topology = iqn_blocks.route(CONFIGS / f"{result.name}.yaml")
        parameters = result.net.num_parameters()
        print(
            f"{result.name:<12}{topology:<12}{parameters:>12,}"
            f"{result.net.state_dim:>7,}{result.steps_per_second:>9.0f}"
        )


def print_returns(net: iqn_blocks.IQN) -> None:
    """What two tastes for risk earn on the windy river."""
    print(f"windy river, gusts at {WIND:.0%} of steps, 5000 episodes each:")
    for name, taste in TASTES.items():
        torch.manual_seed(0)
        returns = windy_river.returns(windy_river.greedy(net, taste), WIND)
        fell, worst = (returns < windy_river.RIVER).float().mean(), returns.sort().values[:1250]
        print(
            f"{name:<22} mean {returns.mean():6.2f}, of the worst quarter {worst.mean():6.2f}, "
            f"{fell:.0%} fell into the river"
        )


@torch.no_grad()
def main(picture: Path) -> None:
    """Draw and print what the trained network does; measure the others."""
    torch.set_num_threads(1)  # a batch of one has nothing to share between threads
    trained = iqn_blocks.from_pretrained(TRAINED)
    picture.parent.mkdir(parents=True, exist_ok=True)
    draw(picture, trained, WIND)
    print_returns(trained)

    game = Atari(GAME, seed=0)
    stats = measure_float_stats(game, RANDOM_STEPS)
    print(f"\n{GAME}: {len(game.actions)} actions, {ACTING_STEPS} greedy steps each, one thread\n")
    save_tiny_vit(TINY_VIT)
    print_table([run(name, game, stats) for name in NETWORKS])


if __name__ == "__main__":
    from docs.examples.arguments import read

    main(read(__doc__, (), "demo.png").figure)
