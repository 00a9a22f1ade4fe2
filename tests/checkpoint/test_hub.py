"""The hub, with huggingface_hub cut off from the network or replaced where it would reach it."""

from __future__ import annotations

import re
from pathlib import Path
from unittest.mock import create_autospec

import huggingface_hub
import pytest
import torch

import iqn_blocks
from iqn_blocks import CheckpointError
from iqn_blocks.checkpoint.card import model_card
from tests.checkpoint.networks import CONFIG, WEIGHTS, assert_same, build
from tests.configs import merge, tiny, tiny_btr, tiny_transformer

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """A hub of folders: what is pushed to it can be loaded from it; calls are noted."""
    calls = []

    def create_repo(repo_id, **options):
        calls.append(("create_repo", repo_id, options))

    def upload_folder(*, folder_path, repo_id, **options):
        calls.append(("upload_folder", repo_id, options))
        folder = tmp_path / "hub" / repo_id
        folder.mkdir(parents=True)
        for path in Path(folder_path).iterdir():
            (folder / path.name).write_bytes(path.read_bytes())

    def download(repo_id, **options):
        calls.append(("snapshot_download", repo_id, options))
        return str(tmp_path / "hub" / repo_id)

    api = create_autospec(huggingface_hub.HfApi)
    api.return_value.create_repo.side_effect = create_repo
    api.return_value.upload_folder.side_effect = upload_folder
    snapshot = create_autospec(huggingface_hub.snapshot_download, side_effect=download)
    monkeypatch.setattr(huggingface_hub, "HfApi", api)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    return calls, api, tmp_path / "hub"


# Push and load


def test_push_and_load(hub):
    calls, api, root = hub
    net = build(tiny_btr())
    iqn_blocks.push_to_hub(net, "me/racer")
    assert sorted(path.name for path in (root / "me/racer").iterdir()) == [
        "README.md",
        CONFIG,
        WEIGHTS,
    ]
    assert_same(iqn_blocks.from_pretrained("me/racer"), net)
    api.assert_called_once_with(token=None)
    files = {"allow_patterns": [CONFIG, WEIGHTS]}
    assert calls == [
        ("create_repo", "me/racer", {"private": None, "exist_ok": True}),
        ("upload_folder", "me/racer", {"revision": None, "commit_message": "Upload network"}),
        (
            "snapshot_download",
            "me/racer",
            {"revision": None, "token": None, "cache_dir": None, **files},
        ),
    ]


def test_options_reach_the_hub(hub, tmp_path):
    calls, api, _ = hub
    iqn_blocks.push_to_hub(
        build(tiny()), "racer", private=True, token="t", revision="v2", commit_message="Better"
    )
    loaded = iqn_blocks.from_pretrained(
        "racer", revision="v2", token="t", cache_dir=tmp_path, dtype=torch.float64
    )
    assert loaded.tau_embedding.projection.weight.dtype == torch.float64
    api.assert_called_once_with(token="t")
    (_, _, created), (_, _, uploaded), (_, _, downloaded) = calls
    assert created["private"] is True
    assert uploaded == {"revision": "v2", "commit_message": "Better"}
    assert (downloaded["revision"], downloaded["token"]) == ("v2", "t")
    assert downloaded["cache_dir"] == tmp_path


def test_compiled_network_is_pushed(hub):
    net = build(tiny())
    iqn_blocks.push_to_hub(torch.compile(net), "me/racer")
    assert_same(iqn_blocks.from_pretrained("me/racer"), net)


def test_rank_0_alone_pushes(hub, monkeypatch):
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_rank", lambda: 1)
    iqn_blocks.push_to_hub(build(tiny()), "me/racer")
    assert hub[0] == []


def test_a_folder_that_exists_is_no_hub_id(hub, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    net = build(tiny())
    net.save_pretrained("me/racer")
    assert_same(iqn_blocks.from_pretrained("me/racer"), net)
    with pytest.raises(ValueError, match="revision, token: me/racer is a folder, not a hub id"):
        iqn_blocks.from_pretrained("me/racer", revision="v2", token="t")
    (tmp_path / "file").touch()
    with pytest.raises(
        CheckpointError, match=r"file: is a file; a checkpoint is a folder: pass another path$"
    ):
        iqn_blocks.from_pretrained("file")
    with pytest.raises(CheckpointError, match=r"absent/model\.safetensors: not found"):
        iqn_blocks.from_pretrained(Path("absent"))
    assert hub[0] == []


# huggingface_hub itself, cut off from the network


@pytest.fixture
def offline(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


def test_hub_that_cannot_be_reached(offline, tmp_path):
    with pytest.raises(CheckpointError, match="me/racer: there is no such folder, and the hub"):
        iqn_blocks.from_pretrained("me/racer", cache_dir=tmp_path)


def test_pushing_to_a_hub_that_cannot_be_reached(offline):
    with pytest.raises(OSError, match=r"me/racer: was not pushed: .*offline mode.*save_pretrained"):
        iqn_blocks.push_to_hub(build(tiny()), "me/racer")


def test_name_that_the_hub_refuses(offline, tmp_path):
    with pytest.raises(CheckpointError, match=r"a\.\.b: there is no such folder, and the hub"):
        iqn_blocks.from_pretrained("a..b", cache_dir=tmp_path)


def test_cached_download(offline, tmp_path):
    """The cache's own layout: files are links, which the network must not stay tied to."""
    net = build(tiny())
    net.save_pretrained(tmp_path / "blobs")
    repo = tmp_path / "cache" / "models--me--racer"
    snapshot = repo / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text(COMMIT)
    for file in (CONFIG, WEIGHTS):
        (snapshot / file).symlink_to(tmp_path / "blobs" / file)
    for revision in (None, "main", COMMIT):
        loaded = iqn_blocks.from_pretrained(
            "me/racer", revision=revision, cache_dir=tmp_path / "cache"
        )
        assert_same(loaded, net)
    with pytest.raises(CheckpointError, match="me/racer: there is no such folder"):
        iqn_blocks.from_pretrained("me/racer", revision="v9", cache_dir=tmp_path / "cache")
    (snapshot / WEIGHTS).unlink()
    with pytest.raises(CheckpointError, match=rf"{COMMIT}/model\.safetensors: not found"):
        iqn_blocks.from_pretrained("me/racer", cache_dir=tmp_path / "cache")


# The model card


def test_card_loads_as_it_says(hub):
    net = build(tiny_btr(n_actions_per_block=2))
    iqn_blocks.push_to_hub(net, "me/racer")
    text = (hub[2] / "me/racer/README.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    names: dict[str, object] = {}
    exec(example, names)
    assert_same(names["net"], net.eval())
    assert names["q"].shape == (4 * 2, 2, 3)
    assert names["actions"].shape == (2, 2)


def test_card_is_understood_by_the_hub():
    card = huggingface_hub.ModelCard(model_card(build(tiny()), "me/racer"))
    assert card.data.library_name == "iqn-blocks"
    assert "reinforcement-learning" in card.data.tags
    assert card.text.lstrip().startswith("# racer\n")


CARDS = {
    "image and floats": (tiny(), {"img", "floats", "q", "tau"}, "(K·B, 3)"),
    "unit scale": (
        tiny(nn={"vis": {"uint8_scaling": "unit"}}),
        {"img", "floats", "q", "tau"},
        "x / 255",
    ),
    "floats": (tiny_transformer(), {"floats", "q", "tau"}, "(B, 5)"),
    "image": (
        merge(tiny(float_input_dim=0), {"nn": {"float": {"mlp": {"hidden_dim": 256}}}}),
        {"img", "q", "tau"},
        "(B, 1, 34, 36)",
    ),
    "blocks of actions": (
        tiny(n_actions_per_block=2),
        {"img", "floats", "q", "tau"},
        "(K·B, 2, 3)",
    ),
}


@pytest.mark.parametrize("name", CARDS)
def test_card_states_shapes_and_parameters(name):
    config, rows, text = CARDS[name]
    net = build(config)
    card = model_card(net, "me/racer")
    table = card.partition("## Inputs and outputs")[2].partition("## ")[0]
    assert set(re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)) == rows
    assert text in table
    assert f"{sum(p.numel() for p in net.parameters()):,} parameters" in card
    assert iqn_blocks.describe(net) in card
    assert "```text" in card


def test_card_counts_frozen_parameters():
    net = build(tiny(nn={"vis": {"freeze": True}}))
    frozen = sum(p.numel() for p in net.encoder.stem.parameters())
    assert f"({frozen:,} of them frozen)" in model_card(net, "me/racer")


def test_card_lists_every_key():
    notes = {"a": "x | y", "b": "`z`\nsecond line", "c": {}, "d": [1] * 9, "e` |\n# f": 1}
    config = merge(tiny(float_inputs_mean=[0.5] * 5), {"nn": {"training": notes}})
    card = model_card(build(config), "me/racer")
    rows = dict(re.findall(r"^\| `(.+?)` \| (.*) \|$", card.partition("## Conf")[2], re.M))
    assert rows["n_actions"] == "`3`"
    assert rows["float_inputs_mean"] == "`[0.5, 0.5, 0.5, 0.5, 0.5]`"
    assert rows["nn.iqn.embedding_dimension"] == "`6`"
    assert rows["nn.vis.cnn.use_impala_cnn"] == "`false`"
    assert rows["nn.decoder.value.mlp.hidden_dim"] == "`null`"
    assert rows["nn.training.a"] == r'`"x \| y"`'
    assert rows["nn.training.b"] == r"""`"'z'\nsecond line"`"""
    assert rows["nn.training.c"] == "`{}`"
    assert rows[r"nn.training.e' \|\n# f"] == "`1`"
    assert rows["nn.training.d"] == "9 values, see `config.json`"


def test_card_quotes_a_name_that_is_none():
    card = model_card(build(tiny()), 'me/`x`"\n# y')
    assert '\n# `"me/\'x\'\\"\\n# y"`\n' in card
    assert 'iqn_blocks.from_pretrained("me/`x`\\"\\n# y").eval()' in card
    assert "\n# y" not in card
