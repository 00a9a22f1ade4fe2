"""Damages configurations, checkpoints and saves at random, to see whether anything odd comes out.

``python -m tests.fuzz [--minutes 10] [--seed 0] [--kinds NAME ...] [--cases N]`` prints a table of
how many cases of each kind were tried, worked, were refused, and failed. A case fails where it ends
in another error than the documented ones, takes more than ``CPU_SECONDS`` or ``MEMORY``, opens a
connection or a process, or gives wrong contents. ``--only KIND NUMBER`` runs one case again and
shows its end. Each case is a forked process of its own, drawn from the seed, its kind and number.
"""

from __future__ import annotations

import argparse
import copy
import hashlib
import json
import os
import random
import resource
import shutil
import signal
import sys
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

os.environ |= {"HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}

import torch
import yaml

import iqn_blocks
from iqn_blocks import CheckpointError, ConfigError
from iqn_blocks.assembly import assemble
from tests import tiny_models
from tests.checkpoint import crash_saving
from tests.checkpoint.crash_saving import NETS, held, limit_files, save_in_a_process
from tests.checkpoint.networks import CONFIG, WEIGHTS, build, settings_sha256, to_version_1
from tests.configs import tiny, tiny_btr, tiny_float, tiny_multimodal, tiny_transformer
from tests.grid import classic_grid, hf_vision_grid, multimodal_grid
from tests.hf.test_models import trunk_config, vision_config

CPU_SECONDS, WALL_SECONDS, MEMORY = 10, 120, 4 * 2**30
Draw = random.Random

ODD: list[Any] = [
    *(None, True, False, 0, 1, -1, 2, 3, 7, 64, 2**16, 2**16 + 1, 2**31, 2**63, 2**64, 10**400),
    *(0.0, -0.0, 0.5, 1.0, 1e-45, 1e-320, 1e38, 1e300, float("nan"), float("inf")),
    *("", " ", "0", "3", "1e-3", "null", "true", "mlp", "relu", "flatten", "x" * 100_000),
    *("\0", "\ud800", "é\n`|", "../..", "/dev/zero", "hf://a/b", b"x", 3j, object),
    *([], [1], [[]], [0] * 1000, ["a", None], (1, 2)),
    *({}, {"a": 1}, {"": {}}, {"mlp": {}}, {1: 2}, {"name": "mlp"}),
]
TOKENS = [
    *(b"!!null x", b"!!int ", b"!!python/name:os.system", b"!a ", b"&a ", b"*a", b"<<: *a"),
    *(b"? ", b"- ", b": ", b"\t", b"\n", b"\r", b"{", b"}", b"[", b"]", b"'", b'"', b"|", b">"),
    *(b"[" * 500, b'{"a":' * 200, b"%YAML 9", b"---", b"...", b"#", b"\0", b"\xff"),
    *(b"\xef\xbb\xbf", b"<<: "),
    *(b"1e999", b"9" * 5000, b"0x_", b"1_0", b"1:30", b".nan", b"NaN", b"-Infinity", b"~", b"yes"),
    *(b"2024-13-45", b"n_actions: 3\n", b'"n_actions": 3,', b"\\ud800", b"\\", "é".encode()),
]
CHECKPOINTS = {
    "classic": tiny(),
    "btr": tiny_btr(),
    "multimodal": tiny_multimodal(),
    "transformer": tiny_transformer(),
}


class World:
    """What all cases draw from: configurations, and checkpoints as bytes."""

    def __init__(self, folder: Path) -> None:
        vit, bert = (tiny_models.save(name, folder / name) for name in ("vit", "bert"))
        self.models = {"vit": vit, "bert": bert}
        models = {"vit": vit}, {"bert": bert}
        grids = classic_grid(), multimodal_grid(*models), hf_vision_grid(models[0])
        self.configs = [raw for grid in grids for raw in list(grid.values())[::3]]
        self.configs += [tiny(), tiny_float(), *CHECKPOINTS.values()]
        for name in iqn_blocks.list_presets():
            self.configs.append({"n_actions": 3, "float_input_dim": 4, "preset": name})
        hf = next(iter(hf_vision_grid(models[0]).values()))
        self.nets = {name: build(raw) for name, raw in {**CHECKPOINTS, "hf": hf}.items()}
        self.files = {}
        for name, net in self.nets.items():
            net.save_pretrained(folder / "net")
            for version in (2, 1):
                if version == 1:
                    to_version_1(folder / "net")
                files = {p.name: p.read_bytes() for p in (folder / "net").iterdir()}
                self.files[name, version] = files
            shutil.rmtree(folder / "net")

    def checkpoint(self, draw: Draw, folder: Path) -> tuple[iqn_blocks.IQN, int]:
        """One of them, written into ``folder``; the network, and the version of its format."""
        name, version = draw.choice(list(self.files))
        write(folder, self.files[name, version])
        return self.nets[name], version


# ------------------------------------------------------------------ damage


def places(data: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path of every value below the top of some plain data."""
    if not isinstance(data, dict | list):
        return
    for key, value in data.items() if isinstance(data, dict) else enumerate(data):
        yield (*path, key)
        yield from places(value, (*path, key))


def damage(data: Any, draw: Draw, donor: Any = None) -> Any:
    """A copy of plain data in which one to four values are others, moved, gone or new."""
    data = copy.deepcopy(data)
    for _ in range(draw.choice((1, 1, 2, 4))):
        everywhere = list(places(data))
        if not everywhere:
            break
        *above, key = draw.choice(everywhere)
        block = data
        for step in above:
            block = block[step]
        source = donor if donor is not None and draw.random() < 0.5 else data
        value: Any = source
        for step in draw.choice(list(places(source))):
            value = value[step]
        kind = draw.randrange(6)
        if kind == 0:
            del block[key]
        elif kind == 1 and isinstance(block, dict):
            block[draw.choice([key[:-1], f"{key}s", key.upper(), "x", ""])] = block.pop(key)
        elif kind == 2:
            block[key] = copy.deepcopy(value)
        elif kind == 3 and isinstance(block[key], int | float):
            block[key] = draw.choice([-block[key], block[key] * 2, block[key] + 1, block[key] / 3])
        else:
            block[key] = copy.deepcopy(draw.choice(ODD))
    return data


def damage_bytes(content: bytes, draw: Draw, tokens: list[bytes] | None = None) -> bytes:
    """Bytes with flipped bits, cut, doubled, zeroed or with tokens put in."""
    data = bytearray(content)
    for _ in range(draw.choice((1, 1, 2, 8))):
        at = draw.randrange(len(data) + 1)
        to = min(len(data), at + draw.choice((1, 2, 8, 64, 4096)))
        kind = draw.randrange(7 if tokens else 6)
        if kind <= 1 and at < len(data):
            data[at] ^= 1 << draw.randrange(8)
        elif kind == 2:
            del data[at:]
        elif kind == 3:
            del data[at:to]
        elif kind == 4:
            data[at:at] = data[at:to]
        elif kind == 5:
            data[at:to] = bytes(to - at)
        elif tokens:
            data[at:at] = draw.choice(tokens)
    return bytes(data)


def write(folder: Path, files: dict[str, bytes]) -> None:
    folder.mkdir(exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)


# ------------------------------------------------------------------ kinds of cases


def use(config: iqn_blocks.Config, folder: Path) -> None:
    """Build, run, save and load what a configuration describes, unless it is large."""
    assert iqn_blocks.Config.model_validate(config.to_dict()) == config
    with torch.device("meta"):
        size = sum(p.numel() for p in assemble(config).parameters())
    numbers = [x for x in _leaves(config.to_dict()) if type(x) is int]
    if size > 2_000_000 or max(numbers) > 1024 or config.nn.init_from_pretrained:
        return
    net = iqn_blocks.build(config)
    if net.inputs.image_shape is not None and max(net.inputs.image_shape) > 128:
        return
    try:
        values = net.q_values(*net.example_inputs(2))
        getattr(values, "q", values).sum().backward()
    except RuntimeError as error:
        if "allocate" not in str(error):
            raise
    net.save_pretrained(folder / "saved")
    same(iqn_blocks.from_pretrained(folder / "saved"), net)


def _leaves(data: Any) -> Iterator[Any]:
    if isinstance(data, dict | list):
        for value in data.values() if isinstance(data, dict) else data:
            yield from _leaves(value)
    else:
        yield data


def same(found: iqn_blocks.IQN, expected: iqn_blocks.IQN) -> None:
    """Names and every bit of two states."""
    one, other = found.state_dict(), expected.state_dict()
    assert list(one) == list(other), "other names"
    for name in one:
        a, b = (x[name].contiguous().reshape(-1).view(torch.uint8) for x in (one, other))
        assert torch.equal(a, b), f"other values in {name}"


def configs(world: World, draw: Draw, folder: Path) -> None:
    raw = damage(draw.choice(world.configs), draw, draw.choice(world.configs))
    use(iqn_blocks.check(raw), folder)


def texts(world: World, draw: Draw, folder: Path) -> None:
    raw = draw.choice(world.configs)
    name, text = draw.choice([("a.yaml", yaml.safe_dump(raw)), ("a.json", json.dumps(raw))])
    write(folder, {name: damage_bytes(text.encode(), draw, TOKENS)})
    use(iqn_blocks.check(folder / name), folder)


def load(world: World, draw: Draw, folder: Path, net: iqn_blocks.IQN) -> iqn_blocks.IQN:
    """A checkpoint by one of three ways; a refusal leaves a network as it was."""
    way = draw.choice(("from_pretrained", "load_weights", "init_from_pretrained"))
    if way == "from_pretrained":
        return iqn_blocks.from_pretrained(folder)
    assert net.config is not None
    if way == "init_from_pretrained":
        raw = net.config.to_dict()
        raw["nn"]["init_from_pretrained"] = str(folder)
        other = iqn_blocks.build(raw)
    else:
        other = copy.deepcopy(net)
        with torch.no_grad():
            for parameter in other.parameters():
                parameter.add_(1)
        before = copy.deepcopy(other)
        try:
            iqn_blocks.load_weights(other, folder)
        except CheckpointError:
            same(other, before)
            raise
    if way == "init_from_pretrained":  # the encoder alone is the other's
        other.load_state_dict({**net.state_dict(), **_encoder(other)})
    return other


def _encoder(net: iqn_blocks.IQN) -> dict[str, torch.Tensor]:
    return {k: v for k, v in net.state_dict().items() if k.startswith("encoder.")}


def bit_flips(world: World, draw: Draw, folder: Path) -> None:
    net, version = world.checkpoint(draw, folder)
    path = folder / (WEIGHTS if version == 2 else draw.choice((WEIGHTS, CONFIG)))
    content = bytearray(path.read_bytes())
    for _ in range(draw.choice((1, 1, 2, 8))):
        content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
    path.write_bytes(content)
    same(load(world, draw, folder, net), net)


def truncations(world: World, draw: Draw, folder: Path) -> None:
    """Also other damage to whole ranges, and files that are missing or another's."""
    net, version = world.checkpoint(draw, folder)
    path = folder / (WEIGHTS if version == 2 else draw.choice((WEIGHTS, CONFIG)))
    content = path.read_bytes()
    kind = draw.randrange(5)
    if kind == 0:
        path.unlink()
    elif kind == 1:
        path.write_bytes(draw.choice(list(world.files.values()))[path.name])
        other = iqn_blocks.from_pretrained(folder)
        assert other.config is not None
        return
    elif kind == 2:
        path.write_bytes(content[: draw.randrange(len(content))])
    else:
        path.write_bytes(damage_bytes(content, draw))
    same(load(world, draw, folder, net), net)


def edited_settings(world: World, draw: Draw, folder: Path) -> None:
    """Settings and table of tensors of a stranger's making, under digests that hold."""
    _, version = world.checkpoint(draw, folder)
    content = (folder / WEIGHTS).read_bytes()
    start = 8 + int.from_bytes(content[:8], "little")
    header, body = json.loads(content[8:start]), content[start:]
    if version == 1:
        data = json.loads((folder / CONFIG).read_text())
    else:
        data = json.loads(header["__metadata__"]["iqn-blocks"])
    if draw.random() < 0.3:
        table = damage({k: v for k, v in header.items() if k != "__metadata__"}, draw)
        header = {"__metadata__": header.get("__metadata__", {}), **table}
    else:
        data = damage(data, draw, draw.choice(world.configs))
    try:
        data["settings_sha256"] = settings_sha256(data)
        data["weights_sha256"] = "0" * 64
        text = json.dumps(data)
    except (KeyError, TypeError, ValueError):
        text = json.dumps(data, default=str, skipkeys=True)
    if version == 2:
        header["__metadata__"] = {"iqn-blocks": text}
    table_text = json.dumps(header, default=str, skipkeys=True).encode("utf-8", "replace")
    table_text += b" " * (-len(table_text) % 8)
    content = len(table_text).to_bytes(8, "little") + table_text + body
    digest = hashlib.sha256(content).hexdigest()
    zeros = b'"' + b"0" * 64 + b'"'
    if version == 2:
        content = content.replace(zeros.replace(b'"', b'\\"'), f'\\"{digest}\\"'.encode(), 1)
    else:
        (folder / CONFIG).write_text(text.replace(zeros.decode(), f'"{digest}"', 1))
    (folder / WEIGHTS).write_bytes(content)
    found = iqn_blocks.from_pretrained(folder)
    assert found.config is not None
    use(found.config, folder)


def models(world: World, draw: Draw, folder: Path) -> None:
    """The folder of a pretrained model, by a stranger."""
    name, config = draw.choice((("vit", vision_config), ("bert", trunk_config)))
    shutil.copytree(world.models[name], folder)
    path = draw.choice([p for p in folder.iterdir() if p.suffix in (".json", ".safetensors")])
    content = path.read_bytes()
    if path.suffix == ".json" and draw.random() < 0.8:
        data = damage(json.loads(content), draw, draw.choice(world.configs))
        text = json.dumps(data, default=str, skipkeys=True)
        path.write_text(text, encoding="utf-8", errors="replace")
    else:
        path.write_bytes(damage_bytes(content, draw, TOKENS))
    net = iqn_blocks.build(config(folder))
    net.q_values(*net.example_inputs(2))


def kills(world: World, draw: Draw, folder: Path) -> None:
    """A save ends at an arbitrary moment; what is there is the old network or the new."""
    before = crash_saving.fresh(folder, draw.choice(("old", "nothing")))
    there = held(before)
    after = draw.uniform(1e-4, 0.03)
    save_in_a_process(NETS["new"], folder, lambda: signal.setitimer(signal.ITIMER_REAL, after))
    assert held(folder) in (there, "new")
    NETS["old"].save_pretrained(folder)
    assert held(folder) == "old"


def two_writers(world: World, draw: Draw, folder: Path) -> None:
    """Both save into one folder, and may be killed, while a third process reads it."""
    crash_saving.fresh(folder, "old")
    writers = []
    for name in draw.choice((("old", "new"), ("new", "old"), ("new", "new"))):
        delay, dies = draw.uniform(0, 0.01), draw.random() < 0.3
        process = os.fork()
        if process == 0:
            time.sleep(delay)
            if dies:
                signal.setitimer(signal.ITIMER_REAL, delay * 3 + 1e-4)
            for _ in range(3):
                NETS[name].save_pretrained(folder)
            os._exit(0)
        writers.append(process)
    for _ in range(5):
        assert held(folder) in NETS
    for process in writers:
        code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
        assert code in (0, -signal.SIGALRM), code
    assert held(folder) in NETS


def full_disk(world: World, draw: Draw, folder: Path) -> None:
    before = held(crash_saving.fresh(folder, draw.choice(("old", "nothing"))))
    size = len(crash_saving.encoded(NETS["new"])[0])
    limit = draw.randrange(size + size // 8)
    end = save_in_a_process(NETS["new"], folder, lambda: limit_files(limit, signal.SIG_IGN))
    assert (end, held(folder)) == (("saved", "new") if limit >= size else ("failed", before))
    assert not folder.exists() or not [n for n in os.listdir(folder) if n.endswith(".tmp")]


KINDS: dict[str, Callable[[World, Draw, Path], None]] = {
    "configurations": configs,
    "texts": texts,
    "bit flips": bit_flips,
    "truncations": truncations,
    "edited settings": edited_settings,
    "model folders": models,
    "kills": kills,
    "two writers": two_writers,
    "full disk": full_disk,
}
SAVES = kills, two_writers, full_disk  # nothing is to be refused there
SLOW_EVERY = 4  # each of them waits for the disk: one for so many of the others


# ------------------------------------------------------------------ running them

_FORBIDDEN = ("socket.connect", "subprocess.Popen", "os.system", "os.exec", "os.posix_spawn")


def _watch(event: str, _: object) -> None:
    if event in _FORBIDDEN:
        raise AssertionError(f"a case caused {event}")


def outcome(case: Callable[[], None], *, may_refuse: bool) -> str:
    """How a case ends in this process: ``worked``, ``refused`` or a traceback."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", iqn_blocks.UnusedConfigWarning)
            case()
    except (ConfigError, CheckpointError) as error:
        message = str(error)
        if may_refuse and message.strip() and len(message.encode("utf-8", "replace")) <= 8192:
            return "refused"
        return f"its message has {len(message)} characters: {message[:500]}"
    except BaseException:
        return traceback.format_exc()
    return "worked"


def run(world: World, kind: str, number: int, seed: int, folder: Path) -> tuple[str, float]:
    """The outcome of a case in a process of its own, and the seconds of CPU that it took."""
    shutil.rmtree(folder, ignore_errors=True)
    call, draw = KINDS[kind], random.Random(f"{seed} {kind} {number}")
    result, end = os.pipe()
    process = os.fork()
    if process == 0:
        os.setpgid(0, 0)
        here = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (here + MEMORY, here + MEMORY))
        resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS + 1))
        signal.alarm(WALL_SECONDS)
        sys.addaudithook(_watch)
        torch.manual_seed(number)
        found = outcome(lambda: call(world, draw, folder), may_refuse=call not in SAVES)
        os.write(end, found[-60_000:].encode("utf-8", "replace"))
        os._exit(0)
    os.close(end)
    with os.fdopen(result, "rb") as pipe:
        found = pipe.read().decode()
    _, status, usage = os.wait4(process, 0)
    if not found:
        code = os.waitstatus_to_exitcode(status)
        found = f"the process ended with {signal.Signals(-code).name if code < 0 else code}"
    return found, usage.ru_utime + usage.ru_stime


def table(counts: dict[str, Counter[str]], slowest: dict[str, float]) -> str:
    """Markdown: a line for each kind, and one for all."""
    lines = ["| kind | tried | worked | refused | failed | slowest |", "|---|--:|--:|--:|--:|--:|"]
    total: Counter[str] = sum(counts.values(), Counter())
    for kind, count in [*counts.items(), ("all", total)]:
        cells = [str(count[key]) for key in ("tried", "worked", "refused", "failed")]
        seconds = slowest.get(kind) or max(slowest.values(), default=0.0)
        lines.append(f"| {kind} | {' | '.join(cells)} | {seconds:.1f} s |")
    return "\n".join(lines)


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cases", type=int, default=sys.maxsize, help="rounds, at most")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--only", nargs=2, metavar=("KIND", "NUMBER"), help="one case")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    counts = {kind: Counter[str]() for kind in options.kinds}
    slowest = dict.fromkeys(options.kinds, 0.0)
    with TemporaryDirectory() as temporary:
        world = World(Path(temporary) / "world")
        folder = Path(temporary) / "case"
        if options.only:
            kind, number = options.only
            print(*run(world, kind, int(number), options.seed, folder), sep="\n")
            return 0
        stop = time.monotonic() + 60 * options.minutes
        for number in range(options.cases):
            for kind in options.kinds:
                if KINDS[kind] in SAVES and number % SLOW_EVERY:
                    continue
                if time.monotonic() > stop:
                    break
                found, seconds = run(world, kind, number, options.seed, folder)
                short = found if found in ("worked", "refused") else "failed"
                counts[kind].update(("tried", short))
                slowest[kind] = max(slowest[kind], seconds)
                if short == "failed":
                    print(f"--only {kind!r} {number} --seed {options.seed}\n{found}", flush=True)
            if time.monotonic() > stop:
                break
    print(table(counts, slowest))
    return int(any(count["failed"] for count in counts.values()))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
