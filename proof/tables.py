"""The tables: rows of settings, the seeds to run and the numbers to show."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple

from proof.settings import Settings


class Table(NamedTuple):
    """Rows that are compared, over seeds ``0 … seeds − 1``.

    ``shown`` are the metrics on the page and how a number is written. With ``base`` the page also
    shows how far each row's score is from that row's.
    """

    rows: Mapping[str, Settings]
    seeds: int
    shown: Mapping[str, str]
    base: str | None = None


def _distributions() -> Table:
    base = Settings(
        task="known_distribution",
        config={},
        budget=3000,
        evaluations=10,
        batch=128,
        kappa=0.01,
        rate=3e-3,
        final_rate=0.01,
        target_weight=0.02,
    )

    def network(k: int, iqn: dict[str, Any], decoder: dict[str, Any]) -> dict[str, Any]:
        return {
            "float": {"mlp": {"hidden_dim": 32}},
            "iqn": {"n": k, **iqn},
            "decoder": {"dense_hidden_dimension": 64, **decoder},
        }

    heads: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
        "IQN": ({}, {}),
        "FQF": ({"fractions": "fqf"}, {}),
        "monotone": ({}, {"advantage": "monotone", "dueling": "none"}),
    }
    rows = {
        f"{name}, K = {k}": replace(base, config={"nn": network(k, *keys)}, k=k)
        for k in (8, 32)
        for name, keys in heads.items()
    }
    distances = {"W1 safe": ".3f", "W1 risky": ".3f", "W1 of K steps": ".3f"}
    shown = {**distances, "crossings at K": ".1%", "crossings": ".1%"}
    return Table(rows, 5, shown)


def _memory() -> Table:
    network = {
        "float": {"mlp": {"hidden_dim": 32}},
        "iqn": {"embedding_dimension": 32, "k": 8},
        "decoder": {"dense_hidden_dimension": 64},
    }
    base = Settings(
        task="recall",
        options={"delay": 10},
        config={"nn": network},
        budget=1500,
        batch=32,
        rate=2e-3,
        final_rate=0.1,
        target_weight=0.05,
        evaluations=10,
    )
    rows = {
        core: replace(base, config={"nn": {**network, "core": {core: {"hidden_dim": 32}}}})
        for core in ("gru", "lstm")
    }
    return Table({"feed-forward": base, **rows}, 5, {"right": ".1%"})


def _boards() -> Table:
    decoder = {"dense_hidden_dimension": 128}
    base = Settings(
        task="boards",
        config={},
        budget=1500,
        evaluations=10,
        rate=2e-3,
        final_rate=0.1,
        target_weight=0.05,
    )
    iqn = {"embedding_dimension": 32, "k": 8}
    patches = {"patch_size": 12, "d_model": 64}  # a patch is a cell
    tokens = {"d_model": 64, "ff_mult": 2}
    layout = {"post_concat_layout": "token_sequence"}
    encoded = {**patches, "fusion_tokens": "patch_tokens", "n_layers": 1, "ff_mult": 2}
    # Layers of the trunks are such that all rows have 158 000 to 162 000 parameters.
    keys: dict[str, dict[str, Any]] = {
        "classic": {},
        "post_concat, image as one token": {
            "fusion_mode": "post_concat",
            "encoder": {**layout, "transformer": {**tokens, "n_layers": 2, "ff_mult": 3}},
        },
        "post_concat, encoded patches": {
            "fusion_mode": "post_concat",
            "vis": {"transformer": encoded},
            "encoder": {**layout, "transformer": {**tokens, "n_layers": 2}},
        },
        "unified, bare patches": {
            "fusion_mode": "unified",
            "vis": {"transformer": patches},
            "encoder": {"transformer": {**tokens, "n_layers": 3}},
        },
    }
    rows = {
        name: replace(base, config={"nn": {"iqn": iqn, "decoder": decoder, **nn}})
        for name, nn in keys.items()
    }
    # The rate of the example was chosen for the classic network.
    slower = {f"{name}, rate 5e-4": replace(row, rate=5e-4) for name, row in rows.items()}
    longer = {f"{name}, 6000 updates": replace(row, budget=6000) for name, row in slower.items()}
    rows |= slower | longer
    return Table(rows, 5, {"solved": ".1%"})


# Settings of rl-baselines3-zoo, hyperparams/qrdqn.yml: budget, quantiles and everything below.
ZOO: dict[str, Settings] = {
    "CartPole-v1": Settings(
        task="episodes",
        options={"env": "CartPole-v1", "buffer": 100_000, "gamma": 0.99},
        config={},
        budget=50_000,
        k=10,
        batch=64,
        rate=2.3e-3,
        adam_eps=0.01 / 64,
        learning_starts=1000,
        train_every=256,
        updates=128,
        target_every=10,
        epsilon=0.04,
        epsilon_fraction=0.16,
        evaluations=10,
    ),
    "Acrobot-v1": Settings(
        task="episodes",
        options={"env": "Acrobot-v1", "buffer": 50_000, "gamma": 0.99},
        config={},
        budget=100_000,
        k=25,
        batch=128,
        rate=6.3e-4,
        adam_eps=0.01 / 128,
        train_every=4,
        updates=4,
        target_every=250,
        epsilon=0.1,
        epsilon_fraction=0.12,
        evaluations=10,
    ),
    "MountainCar-v0": Settings(
        task="episodes",
        options={"env": "MountainCar-v0", "buffer": 10_000, "gamma": 0.98},
        config={},
        budget=120_000,
        k=25,
        batch=128,
        rate=4e-3,
        adam_eps=0.01 / 128,
        learning_starts=1000,
        train_every=16,
        updates=8,
        target_every=600,
        epsilon=0.07,
        epsilon_fraction=0.2,
        evaluations=10,
    ),
}


def _classic_control(env: str, scales: list[float]) -> Table:
    """The zoo's settings: in our loop, in QRDQN with our network, and QRDQN as it is."""
    ours: dict[str, Any] = {
        "nn": {
            "float": {"mlp": {"hidden_dim": 128}},
            "iqn": {"embedding_dimension": 32, "k": 8},
            "decoder": {"dense_hidden_dimension": 256},
        }
    }
    zoo = ZOO[env]
    scaled = {"float_inputs_std": scales, **ours}
    even = zoo.k + zoo.k % 2  # levels are drawn in pairs
    rows = {
        "IQN, our loop": replace(zoo, config=ours, k=even),
        "IQN, our loop, scaled inputs and falling rate": replace(
            zoo, config=scaled, k=even, final_rate=0.0
        ),
        "QRDQN, our network": replace(zoo, config=ours, learner="qrdqn"),
        "QRDQN, its network": replace(zoo, config={"net_arch": [256, 256]}, learner="qrdqn_own"),
    }
    return Table(rows, 5, {"return": ".1f", "best on the way": ".1f"})


def _minatar(env: str) -> Table:
    def config(**changed: dict[str, Any]) -> dict[str, Any]:
        network: dict[str, Any] = {
            "vis": {"minatar": {}},
            "iqn": {"embedding_dimension": 32, "k": 8, **changed.get("iqn", {})},
            "decoder": {"dense_hidden_dimension": 256, **changed.get("decoder", {})},
        }
        return {"nn": network, "btr": changed.get("btr", {})}

    base = Settings(
        task="episodes",
        options={"env": env, "buffer": 100_000, "gamma": 0.99, "envs": 8},
        config=config(),
        budget=60_000,
        batch=32,
        rate=5e-4,
        learning_starts=2000,
        train_every=8,
        target_every=1000,
        epsilon=0.05,
        epsilon_fraction=0.2,
        evaluations=10,
    )
    simba = {"simba": {"hidden_dim": 128, "n_blocks": 1, "expansion": 2}}
    rows = {
        "base": base,
        "FQF": replace(base, config=config(iqn={"fractions": "fqf", "n": 8})),
        "film": replace(base, config=config(iqn={"mixer": "film"})),
        "LayerNorm": replace(base, config=config(btr={"use_layer_norm": True})),
        "noisy heads, no random actions": replace(
            base, config=config(btr={"use_noisy_linear": True}), epsilon=0.0, epsilon_fraction=1e-9
        ),
        "simba heads": replace(base, config=config(decoder={"advantage": simba, "value": simba})),
        "Munchausen": replace(base, munchausen=True),
    }
    return Table(rows, 3, {"return": ".2f", "best on the way": ".2f"}, base="base")


TABLES: dict[str, Table] = {
    "distributions": _distributions(),
    "memory": _memory(),
    "boards": _boards(),
    "cartpole": _classic_control("CartPole-v1", [1.0, 1.0, 0.1, 1.0]),
    "acrobot": _classic_control("Acrobot-v1", [1.0, 1.0, 1.0, 1.0, 4.0, 9.0]),
    "mountaincar": _classic_control("MountainCar-v0", [1.0, 0.04]),
    "breakout": _minatar("MinAtar/Breakout-v1"),
    "space_invaders": _minatar("MinAtar/SpaceInvaders-v1"),
}
