"""A folder holds the old network or the new, whatever happens while it is saved."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from safetensors.torch import save

import iqn_blocks
from iqn_blocks.checkpoint.reading import read_folder
from tests.checkpoints import CONFIG, WEIGHTS, assert_same, build, to_version_1
from tests.configs import tiny, tiny_transformer

ROOT = Path(__file__).parents[1]


def test_processes_that_die_while_saving(tmp_path):
    """See tests/crash_saving.py."""
    run = subprocess.run(
        [sys.executable, "-m", "tests.crash_saving", str(tmp_path / "folder")],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    ends = json.loads(run.stdout)
    assert ends["lines, over nothing"] > 30
    assert ends["lines, over a network"] > 30
    assert ends["lines, over killed saves"] > 30
    assert ends["writes, killed"] == ends["writes, failed"] == 6


@pytest.fixture
def calls(monkeypatch):
    """Renames and syncs in order; ``fail_at`` makes the call of that index fail."""
    log: list[str] = []
    options = {"fail_at": None}
    replace, sync = os.replace, os.fsync

    def note(what: str) -> None:
        log.append(what)
        if options["fail_at"] == len(log) - 1:
            raise OSError(f"no room for {what}")

    def noted_replace(source, target):
        note(f"replace {Path(target).name}")
        replace(source, target)

    def noted_sync(descriptor):
        note("sync folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "sync file")
        sync(descriptor)

    monkeypatch.setattr(os, "replace", noted_replace)
    monkeypatch.setattr(os, "fsync", noted_sync)
    return log, options


def test_order_in_which_files_reach_the_disk(calls, tmp_path):
    log, _ = calls
    net = build(tiny())
    net.save_pretrained(tmp_path)
    assert log == [
        "sync file",
        f"replace {WEIGHTS}",
        "sync folder",
        "sync file",
        f"replace {CONFIG}",
        "sync folder",
    ]


@pytest.mark.parametrize("fail_at", range(6))
def test_calls_that_fail(fail_at, calls, tmp_path):
    log, options = calls
    old, new = build(tiny(), seed=0), build(tiny_transformer(), seed=1)
    old.save_pretrained(tmp_path)
    log.clear()
    options["fail_at"] = fail_at
    with pytest.raises(OSError, match="no room for"):
        new.save_pretrained(tmp_path)
    assert not [path for path in tmp_path.iterdir() if path.suffix == ".tmp"]
    assert_same(iqn_blocks.from_pretrained(tmp_path), new if fail_at >= 2 else old)
    options["fail_at"] = None
    new.save_pretrained(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [CONFIG, WEIGHTS]
    assert_same(iqn_blocks.from_pretrained(tmp_path), new)


def test_saving_over_a_network_that_only_the_digest_file_holds(tmp_path, monkeypatch):
    """A save of format version 1 that was cut short: its only copy stays until another commits."""
    net, new = build(tiny()), build(tiny(), seed=1)
    net.save_pretrained(tmp_path)
    to_version_1(tmp_path)
    digest = json.loads((tmp_path / CONFIG).read_text())["weights_sha256"]
    only_copy = tmp_path / f"model-{digest}.safetensors"
    (tmp_path / WEIGHTS).rename(only_copy)
    for stale in (b"", save({"x": torch.zeros(1)}), None):
        (tmp_path / WEIGHTS).unlink(missing_ok=True)
        if stale is not None:
            (tmp_path / WEIGHTS).write_bytes(stale)
        assert_same(iqn_blocks.from_pretrained(tmp_path), net)

    def full(*_):
        raise OSError("no room")

    os.utime(only_copy, (0, 0))
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="no room"):
            new.save_pretrained(tmp_path)
        assert_same(iqn_blocks.from_pretrained(tmp_path), net)
    new.save_pretrained(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [CONFIG, WEIGHTS]
    assert_same(iqn_blocks.from_pretrained(tmp_path), new)


def test_pairs_of_threads_that_save_into_one_folder(tmp_path):
    nets = [build(tiny(), seed=0), build(tiny_transformer(), seed=1)]
    start = threading.Barrier(2)

    def save_with_the_other(net: iqn_blocks.IQN) -> None:
        start.wait(30)
        net.save_pretrained(tmp_path)

    with ThreadPoolExecutor(2) as threads:
        for _ in range(200):
            list(threads.map(save_with_the_other, nets))
            loaded = iqn_blocks.from_pretrained(tmp_path)
            assert_same(loaded, nets[int(loaded.config == nets[1].config)])
            assert sorted(path.name for path in tmp_path.iterdir()) == [CONFIG, WEIGHTS]


def test_processes_that_save_into_one_folder(tmp_path):
    """Each saves its network many times; whatever is there at any moment is one of them."""
    code = (
        "import sys; from tests.checkpoints import build; from tests.configs import tiny\n"
        "net = build(tiny(), seed=int(sys.argv[2]))\n"
        "print('ready', flush=True); input()\n"
        "for _ in range(50): net.save_pretrained(sys.argv[1])\n"
    )
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(tmp_path), str(seed)],
            cwd=ROOT,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        for seed in (0, 1)
    ]
    states = [build(tiny(), seed=seed).state_dict() for seed in (0, 1)]
    for process in processes:
        process.stdout.readline()
    build(tiny(), seed=0).save_pretrained(tmp_path)
    for process in processes:
        process.stdin.write(b"\n")
        process.stdin.flush()
    seen = set()
    while any(process.poll() is None for process in processes):
        tensors = read_folder(tmp_path).tensors
        same = [all(torch.equal(tensors[name], s[name]) for name in s) for s in states]
        assert any(same)
        seen.add(same.index(True))
    assert [process.communicate() and process.returncode for process in processes] == [0, 0]
    assert seen == {0, 1}
    assert sorted(path.name for path in tmp_path.iterdir()) == [CONFIG, WEIGHTS]


def test_reading_while_another_process_saves(tmp_path):
    nets = [build(tiny(), seed=0), build(tiny_transformer(), seed=1)]
    nets[0].save_pretrained(tmp_path)
    stop = threading.Event()

    def keep_saving() -> None:
        while not stop.is_set():
            for net in reversed(nets):
                net.save_pretrained(tmp_path)

    writer = threading.Thread(target=keep_saving)
    writer.start()
    seen = set()
    try:
        for _ in range(300):
            manifest, tensors, *_ = read_folder(tmp_path)
            index = int(manifest.config == nets[1].config)
            state = nets[index].state_dict()
            assert manifest.config == nets[index].config
            assert all(torch.equal(tensors[name], state[name]) for name in state)
            seen.add(index)
    finally:
        stop.set()
        writer.join()
    assert seen == {0, 1}
