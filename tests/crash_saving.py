"""Ends processes that are saving a network: at every line that touches files, and amid writes.

``python -m tests.crash_saving FOLDER`` prints how many ends there were of each kind, or fails.
Processes are forked, which a program of one thread can do safely and a test process cannot.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import sys
from collections import Counter
from collections.abc import Callable
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from types import FrameType
from typing import Any

import torch

import iqn_blocks
from iqn_blocks.checkpoint import saving
from iqn_blocks.checkpoint.reading import read_folder
from tests.checkpoints import CONFIG, WEIGHTS, assert_same, build
from tests.configs import tiny, tiny_transformer

# Everything in saving.py that is called once there is something to write.
TOUCHING_FILES = {"save", "_remove_leftovers", "_write", "_sync_folder"}


def encoded(net: iqn_blocks.IQN) -> tuple[bytes, bytes]:
    """The bytes of both files."""
    with TemporaryDirectory() as folder:
        net.save_pretrained(folder)
        return (Path(folder) / WEIGHTS).read_bytes(), (Path(folder) / CONFIG).read_bytes()


OLD = build(tiny(), seed=0)
NEW = build(tiny_transformer(), seed=1)
NETS = {"old": OLD, "new": NEW}
OLD_FILES = dict(zip((WEIGHTS, CONFIG), encoded(OLD), strict=True))


def held(folder: Path) -> str:
    """What a folder loads as: old, new or nothing; anything else raises."""
    if not (folder / WEIGHTS).exists():
        return "nothing"
    manifest, tensors, *_ = read_folder(folder)
    name = "old" if manifest.config == OLD.config else "new"
    assert manifest.config == NETS[name].config
    state = NETS[name].state_dict()
    assert tensors.keys() == state.keys()
    assert all(torch.equal(tensors[key], state[key]) for key in state)
    return name


def save_in_a_process(net: iqn_blocks.IQN, folder: Path, prepare: Callable[[], Any]) -> str:
    """Save in a forked process; how that ended: killed, failed or saved."""
    process = os.fork()
    if process == 0:
        try:
            prepare()
            net.save_pretrained(folder)
        except OSError:
            os._exit(1)
        except BaseException:
            os._exit(2)
        os._exit(0)
    status = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    return {0: "saved", 1: "failed"}[status] if status >= 0 else "killed"


def kill_before_line(n: int) -> None:
    """Kill this process before the n-th line that runs from now on in TOUCHING_FILES."""
    lines = count(1)

    def trace(frame: FrameType, event: str, _: object) -> Any:
        code = frame.f_code
        if code.co_filename != saving.__file__ or code.co_name not in TOUCHING_FILES:
            return None
        if event == "line" and next(lines) == n:
            os.kill(os.getpid(), signal.SIGKILL)
        return trace

    sys.settrace(trace)


def limit_files(size: int, action: signal.Handlers) -> None:
    """Stop writes at ``size`` bytes: SIG_DFL then kills the process, SIG_IGN makes writes raise."""
    signal.signal(signal.SIGXFSZ, action)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


def fresh(folder: Path, before: str) -> Path:
    """The folder with ``before`` in it: old or nothing."""
    shutil.rmtree(folder, ignore_errors=True)
    if before == "old":
        for name, content in OLD_FILES.items():
            folder.mkdir(exist_ok=True)
            (folder / name).write_bytes(content)
    return folder


def kill_at_every_line(folder: Path, before: str) -> int:
    """Kills from the first line to the last; what was there stays until one line commits."""
    seen = []
    for n in count(1):
        end = save_in_a_process(NEW, fresh(folder, before), lambda n=n: kill_before_line(n))
        seen.append(held(folder))
        if end == "saved":
            break
        assert end == "killed", end
    commit = seen.index("new")
    assert seen == [before] * commit + ["new"] * (len(seen) - commit), seen
    assert commit > 0
    return n - 1


def kill_again_and_again(folder: Path) -> int:
    """Each save finds what killed ones left; that is removed a day later."""
    fresh(folder, "old")
    at = "old"
    for n in count(1):
        target = "new" if at == "old" else "old"
        end = save_in_a_process(NETS[target], folder, lambda n=n: kill_before_line(n))
        assert held(folder) in (at, target)
        at = held(folder)
        if end == "saved":
            break
    left = sorted(set(os.listdir(folder)) - {CONFIG, WEIGHTS})
    assert left
    for name in left[1:]:
        os.utime(folder / name, (0, 0))
    NEW.save_pretrained(folder)
    assert sorted(os.listdir(folder)) == sorted([left[0], CONFIG, WEIGHTS])
    return n - 1


def stop_amid_writes(folder: Path, action: signal.Handlers) -> int:
    """Writes stop at many sizes of the file; at one below its size the old network is there yet."""
    fresh(folder, "old")
    size = len(encoded(NEW)[0])
    sizes = sorted({0, 1, 8, 4096, size // 2, size - 1})
    for limit in sizes:
        end = save_in_a_process(NEW, folder, lambda limit=limit: limit_files(limit, action))
        assert end == ("killed" if action == signal.SIG_DFL else "failed"), end
        assert held(folder) == "old"
        if end == "failed":  # it could clean up what was half written
            assert not [name for name in os.listdir(folder) if name.endswith(".tmp")]
    assert save_in_a_process(NEW, folder, lambda: limit_files(size, action)) == "saved"
    assert held(folder) == "new"
    return len(sizes)


def main(folder: Path) -> None:
    """Every kind of end, in one folder."""
    torch.set_num_threads(1)
    ends = Counter(
        {
            "lines, over nothing": kill_at_every_line(folder, "nothing"),
            "lines, over a network": kill_at_every_line(folder, "old"),
            "lines, over killed saves": kill_again_and_again(folder),
            "writes, killed": stop_amid_writes(folder, signal.SIG_DFL),
            "writes, failed": stop_amid_writes(folder, signal.SIG_IGN),
        }
    )
    assert_same(iqn_blocks.from_pretrained(folder), NEW)
    # Saving and loading folders needs neither, and their import takes seconds.
    assert not {"transformers", "huggingface_hub"} & set(sys.modules)
    print(json.dumps(ends))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
