"""The tables of docs/proof.md at tiny budgets, and the page that is made of them."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

pytest.importorskip("gymnasium")
pytest.importorskip("matplotlib")

import iqn_blocks
from docs.examples import known_distribution as known
from iqn_blocks import Config
from proof import __main__ as program
from proof import loop, page, results
from proof.settings import Settings
from proof.tables import TABLES
from proof.tasks import Batch, Episodes, KnownDistribution, Recall

SHORT = {"budget": 6, "batch": 4, "evaluations": 2}


@pytest.fixture(autouse=True)
def threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def shorten(monkeypatch: pytest.MonkeyPatch, name: str, *rows: str, **changed: object) -> None:
    table = TABLES[name]
    kept = {row: replace(table.rows[row], **{**SHORT, **changed}) for row in rows or table.rows}
    monkeypatch.setitem(TABLES, name, table._replace(rows=kept, seeds=2))


def test_a_table_is_run_resumed_and_put_into_the_page(monkeypatch, tmp_path, capsys):
    shorten(monkeypatch, "memory")
    arguments = ["memory", "--results", str(tmp_path)]
    program.main([*arguments, "--seeds", "0"])
    files = sorted(tmp_path.glob("memory/*.json"))
    assert [file.name for file in files] == ["feed-forward-0.json", "gru-0.json", "lstm-0.json"]
    assert "memory: gru, seed 0: right 0." in capsys.readouterr().out
    lines = page.fill("<!-- table: memory -->\nold\n<!-- end -->\n", tmp_path).splitlines()
    assert lines[1] == "| | seeds of 2 | right | parameters | minutes |"
    assert lines[4].startswith("| gru | 1 | ")
    assert "old" not in lines

    kept = files[0].read_bytes()
    files[1].unlink()
    shorten(monkeypatch, "memory", rate=1e-4)  # what is there came from other settings
    slot = "<!-- table: memory -->\n{}<!-- end -->"
    empty = slot.format("Not run yet: feed-forward; gru; lstm.\n")
    assert page.fill(slot.format("| old |\n"), tmp_path) == empty
    program.main([*arguments, "--row", "feed-forward"])
    text = page.fill(empty, tmp_path)
    assert "\n| feed-forward | 2 | " in text and "| gru |" not in text
    assert text.endswith(" |\n\nNot run yet: gru; lstm.\n<!-- end -->")
    assert files[0].read_bytes() != kept
    kept = files[0].read_bytes()
    program.main([*arguments, "--row", "feed-forward"])
    assert files[0].read_bytes() == kept

    result = results.load(
        tmp_path, "memory", "feed-forward", 1, TABLES["memory"].rows["feed-forward"]
    )
    assert result is not None
    assert {"cpu", "torch", "python", "date", "command"} <= result.machine.keys()
    assert [step for step, _ in result.curve] == [3, 6]


def test_a_row_that_is_not_there_is_refused_with_those_that_are(capsys):
    with pytest.raises(SystemExit):
        program.main(["memory", "--row", "grue"])
    assert "'grue'" in capsys.readouterr().err


def test_check_finds_what_is_not_reproduced(monkeypatch, tmp_path, capsys):
    shorten(monkeypatch, "memory", "gru")
    monkeypatch.setattr(program, "CHECKED", (("memory", "gru"),))
    program.main(["memory", "--results", str(tmp_path)])
    program.main(["check", "--results", str(tmp_path)])
    for file in tmp_path.glob("memory/*.json"):
        text = file.read_text(encoding="utf-8")
        file.write_text(text.replace('"right": 0.', '"right": 7.'), encoding="utf-8")
    with pytest.raises(SystemExit, match="not what is recorded"):
        program.main(["check", "--results", str(tmp_path)])


@pytest.mark.parametrize(
    ("name", "row"),
    [
        ("distributions", "FQF, K = 8"),
        ("boards", "unified, bare patches"),
        ("cartpole", "IQN, our loop"),
    ],
)
def test_rows_run(name: str, row: str) -> None:
    settings = replace(TABLES[name].rows[row], **SHORT, learning_starts=2, train_every=1, updates=1)
    learned = loop.learn(settings, 0, lambda *_: None)
    assert all(np.isfinite(value) for value in learned.metrics.values())
    assert [step for step, _ in learned.curve] == [3, 6]


@pytest.mark.peers
@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize(
    ("name", "row"),
    [
        ("cartpole", "QRDQN, our network"),
        ("cartpole", "QRDQN, its network"),
        ("breakout", "noisy heads, no random actions"),
        ("breakout", "Munchausen"),
    ],
)
def test_rows_run_that_need_another_library(name: str, row: str) -> None:
    short = {"budget": 80, "evaluations": 2, "learning_starts": 40, "train_every": 8, "updates": 1}
    settings = replace(TABLES[name].rows[row], **short)
    learned = loop.learn(settings, 0, lambda *_: None)
    assert np.isfinite(learned.metrics["return"])
    assert [step for step, _ in learned.curve] == [40, 80]


def test_every_row_builds_a_network() -> None:
    for name, table in TABLES.items():
        for row, settings in table.rows.items():
            if settings.learner == "plain" and not settings.options.get("env", "").startswith(
                "Min"
            ):
                task = loop.TASKS[settings.task](0, **settings.options)
                config = Config.model_validate(task.sizes).replace(**settings.config)
                assert iqn_blocks.build(config, strict=True).n_actions > 1, (name, row)


def test_an_update_moves_the_network_and_the_fractions() -> None:
    settings = TABLES["distributions"].rows["FQF, K = 8"]
    net = iqn_blocks.build(
        Config.model_validate(KnownDistribution.sizes).replace(**settings.config)
    )
    before = {name: p.clone() for name, p in net.named_parameters()}
    target = iqn_blocks.build(net.config)
    batch = KnownDistribution(0).batch(16)
    loop.update(net, target, torch.optim.SGD(net.parameters(), lr=0.1), batch, settings)
    assert not [name for name, p in net.named_parameters() if torch.equal(p, before[name])]


def test_a_step_of_a_sequence_is_followed_by_the_next_one(monkeypatch) -> None:
    # Two steps of three sequences; K = 1 and one action, values 0 … 5 row by row.
    q = torch.arange(6.0)[:, None, None]
    monkeypatch.setattr(loop, "values", lambda *_: (q, None))
    floats, zeros = torch.zeros(2, 3, 1), torch.zeros(6)
    discount = torch.tensor([0.5, 0.5, 0.5, 0, 0, 0])
    reward = torch.tensor([0.0, 0, 0, 10, 20, 30])
    batch = Batch((None, floats), zeros.long(), reward, discount, None)
    net = iqn_blocks.build(Config.model_validate(Recall.sizes))
    goals = loop.goals(net, batch, Settings(task="recall", config={}, budget=1))
    assert goals[:, 0].tolist() == [1.5, 2.0, 2.5, 10, 20, 30]


class Truth:
    """A network that knows the distribution, and averages over two steps."""

    n, fractions = 2, None

    def __call__(self, img, floats, k, tau):
        return known.true_quantiles(tau), tau


def test_measures_of_a_network_that_is_right() -> None:
    metrics = KnownDistribution(0).evaluate(Truth(), final=True)
    assert metrics["W1"] == metrics["crossings"] == metrics["crossings at K"] == 0
    steps = known.true_quantiles(torch.tensor([[0.25], [0.75]]))
    off = 0.0
    for level in known.LEVELS[:, 0].tolist():
        step = steps[0] if level < 0.5 else steps[1]
        off += (step - known.true_quantiles(torch.tensor([[level]]))).abs().mean().item() / 1000
    assert metrics["W1 of K steps"] == pytest.approx(off, rel=1e-4)


def test_the_replay_keeps_the_end_of_an_episode_and_not_the_next_beginning() -> None:
    task = Episodes(0, "CartPole-v1", buffer=200, gamma=0.9, envs=2)
    net = iqn_blocks.build(Config.model_validate(task.sizes))
    for _ in range(60):
        task.step(net, epsilon=1.0)
    batch = task.batch(5000)
    now, following = batch.now[1], batch.following[1]
    fallen = batch.discount == 0
    assert 0 < fallen.sum() < 5000
    assert torch.equal(fallen, (following[:, 2].abs() > 0.2095) | (following[:, 0].abs() > 2.4))
    assert batch.discount[~fallen].unique().tolist() == [pytest.approx(0.9)]
    # What follows is a step of 0.02 s further: position by speed.
    torch.testing.assert_close(following[:, 0], now[:, 0] + 0.02 * now[:, 1])


def test_epsilon_is_one_before_learning_and_then_falls() -> None:
    settings = Settings(
        task="", config={}, budget=100, epsilon=0.2, epsilon_fraction=0.5, learning_starts=10
    )
    epsilons = [settings.epsilon_at(step) for step in (10, 25, 50, 100)]
    assert epsilons == pytest.approx([1, 0.6, 0.2, 0.2])


def test_intervals() -> None:
    # Of means of two draws from 0 and 1, a quarter each is 0 and 1.
    assert page.interval(page.means([0.0, 1.0])) == (0, 1)
    assert page.written([0.5, 0.5], ".1%") == "50.0% [50.0%, 50.0%]"
    assert page.written([0.5], ".1f") == "0.5"
    assert page.difference([3.0, 3.0], [1.0, 1.0], ".1f") == "+2.0 [+2.0, +2.0]"


def test_a_thinned_curve_holds_means() -> None:
    assert results.thin([(step, float(step)) for step in range(1, 51)])[:2] == [[2, 1.5], [4, 3.5]]


def test_the_page_shows_the_recorded_results() -> None:
    text = page.PAGE.read_text(encoding="utf-8")
    assert text == page.fill(text, results.FOLDER), "run `python -m proof page`"
    assert {slot[2] for slot in page.SLOT.finditer(text)} == TABLES.keys()
    for file in results.FOLDER.glob("*/*.json"):
        result = results.Result(**json.loads(file.read_text(encoding="utf-8")))
        assert file == results.path_of(results.FOLDER, result.table, result.row, result.seed)
