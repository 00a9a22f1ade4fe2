"""How many small faults in the library would the tests notice?

``python -m tests.mutants [FILES] [--sample N] [--seed S]`` changes one thing at a time in a copy of
the checkout (a comparison, an operator, a constant, a default, a result, a statement), runs the
tests of that file, and lists the changes that no test noticed. Results are kept in ``.mutants/`` by
file and source, so that a campaign that was cut off goes on where it stopped; survivors are tried
again once a test changes.
"""

from __future__ import annotations

import argparse
import ast
import copy
import hashlib
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
import transformers  # noqa: F401 - imported once, before all the forks

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / ".mutants"
# The tests of a file, or of all files of a folder: quick ones first, since a failure ends a run.
TESTS = {
    "iqn_blocks/functional.py": "tests/test_functional.py tests/test_diagnostics.py "
    "tests/losses/test_fractions.py",
    "iqn_blocks/losses.py": "tests/losses",
    "iqn_blocks/risk.py": "tests/test_risk.py",
    "iqn_blocks/target.py": "tests/test_target.py",
    "iqn_blocks/diagnostics.py": "tests/test_diagnostics.py",
    "iqn_blocks/plasticity.py": "tests/test_plasticity.py",
    "iqn_blocks/network.py": "tests/network/test_network.py tests/network/test_inputs.py "
    "tests/network/test_dueling.py tests/network/test_fractions.py tests/network/test_build.py "
    "tests/network/test_action_sizes.py tests/blocks/test_monotone.py",
    "iqn_blocks/inputs.py": "tests/network/test_inputs.py tests/network/test_network.py",
    "iqn_blocks/hf/foreign.py": "tests/hf tests/checkpoint/test_hf.py",
    "iqn_blocks/fast": "tests/fast",
    "iqn_blocks/recurrent.py": "tests/network/test_cores.py",
    "iqn_blocks/blocks": "tests/blocks tests/network/test_cores.py tests/network/test_network.py "
    "tests/network/test_recompute.py tests/network/test_inputs.py "
    "tests/test_parts.py tests/grid/test_classic.py tests/fast/test_folded.py",
}
# Compilers take long and would find little more.
LEFT_OUT = "compile or inductor or export or one_graph or spawned"
# Changes that no test can notice, and why.
EQUIVALENT = {
    "iqn_blocks/functional.py: constant: True -> False (2)": "sort's stable: on CPUs it always is",
    "iqn_blocks/plasticity.py: constant: True -> False": "zip's strict: lengths are equal by count",
    "iqn_blocks/plasticity.py: constant: 1.0 -> 2.0": "a factor of weights that are all 0",
}

SWAPS: dict[type[ast.AST], type[ast.AST]] = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq, ast.In: ast.NotIn, ast.NotIn: ast.In, ast.Is: ast.IsNot, ast.IsNot: ast.Is,
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.Pow: ast.Mult,
    ast.FloorDiv: ast.Mult, ast.Mod: ast.Mult, ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd,
    ast.And: ast.Or, ast.Or: ast.And,
}  # fmt: skip
NOT_LOOKED_INTO = (ast.Raise, ast.JoinedStr, ast.Import, ast.ImportFrom, ast.AnnAssign)


class Mutant(NamedTuple):
    file: str
    line: int
    change: str
    source: str

    @property
    def key(self) -> str:
        return f"{self.file}: {self.change}"


def changes(node: ast.AST) -> Iterator[tuple[str, ast.AST]]:
    """Replacements of one node."""
    if isinstance(node, ast.Compare | ast.BinOp | ast.BoolOp):
        changed: Any = copy.deepcopy(node)
        operator = changed.ops[0] if isinstance(node, ast.Compare) else changed.op
        if type(operator) in SWAPS:
            swapped = SWAPS[type(operator)]()
            if isinstance(node, ast.Compare):
                changed.ops[0] = swapped
            else:
                changed.op = swapped
            yield "operator", changed
    elif isinstance(node, ast.UnaryOp):
        yield "operator", node.operand
    elif isinstance(node, ast.Constant):
        if isinstance(node.value, bool):
            yield "constant", ast.Constant(not node.value)
        elif isinstance(node.value, int | float):
            yield "constant", ast.Constant(node.value + 1)
    elif isinstance(node, ast.Return) and node.value is not None:
        if ast.unparse(node.value) != "None":
            yield "result", ast.Return(ast.Constant(None))
    elif isinstance(node, ast.If):
        if not isinstance(node.test, ast.UnaryOp):
            yield "condition", ast.If(ast.UnaryOp(ast.Not(), node.test), node.body, node.orelse)
        yield "body", ast.If(node.test, [ast.Pass()], node.orelse)
    elif isinstance(node, ast.Expr | ast.AugAssign) and not (
        isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    ):
        yield "statement", ast.Pass()


def places(node: ast.AST) -> Iterator[tuple[ast.AST, str, int | None]]:
    """Parent, field and index of every node that may be changed: no annotations, no messages."""
    for field, value in ast.iter_fields(node):
        if field in ("annotation", "returns", "decorator_list", "keywords", "bases") and not (
            field == "keywords" and isinstance(node, ast.Call)
        ):
            continue
        for i, child in enumerate(value if isinstance(value, list) else [value]):
            if isinstance(child, ast.AST) and not isinstance(child, NOT_LOOKED_INTO):
                yield node, field, i if isinstance(value, list) else None
                yield from places(child)


def replace(parent: ast.AST, field: str, index: int | None, node: ast.AST) -> ast.AST:
    """Put a node there and return what was there."""
    before: ast.AST = getattr(parent, field)
    if index is None:
        setattr(parent, field, node)
        return before
    items: list[ast.AST] = getattr(parent, field)
    before, items[index] = items[index], node
    return before


def mutants(file: str) -> list[Mutant]:
    tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
    found: list[Mutant] = []
    seen: dict[str, int] = {}
    for parent, field, index in list(places(tree)):
        value = getattr(parent, field)
        node: ast.AST = value if index is None else value[index]
        for kind, changed in changes(node):
            replace(parent, field, index, changed)
            source = ast.unparse(ast.fix_missing_locations(tree))
            replace(parent, field, index, node)
            before, after = (" ".join(ast.unparse(x).split())[:80] for x in (node, changed))
            change = f"{kind}: {before} -> {after}"
            seen[change] = seen.get(change, 0) + 1
            if seen[change] > 1:
                change += f" ({seen[change]})"
            found.append(Mutant(file, getattr(node, "lineno", 0), change, source))
    return found


def tests_of(file: str) -> list[str]:
    name = next((name for name in TESTS if file == name or file.startswith(f"{name}/")), None)
    if name is None:
        sys.exit(f"{file}: no tests are named for it in tests/mutants.py; known are {list(TESTS)}")
    return [file, *TESTS[name].split()]


def passes(folder: Path, file: str, timeout: float, *, changed: bool = True) -> bool:
    """Whether the tests of a file pass in a copy of the checkout; a run that hangs does not.

    They run in a fork of this process, which has PyTorch imported.
    """
    process = os.fork()
    if process == 0:
        os.setsid()
        signal.alarm(int(timeout))
        os.chdir(folder)
        os.environ["PYTHONPATH"] = str(folder)
        sys.path[:] = [str(folder), *(p for p in sys.path if Path(p).resolve() != ROOT)]
        sys.modules.pop("tests", None)
        sys.dont_write_bytecode = changed
        nothing = os.open(os.devnull, os.O_RDWR)
        for stream in range(3):
            os.dup2(nothing, stream)
        marks = "not slow and not peers and not timm and not tianshou_1 and not gpu"
        options = [
            "-qx",
            "--assert=plain",
            "-p",
            "no:cacheprovider",
            "-m",
            marks,
            "-k",
            f"not ({LEFT_OUT})",
        ]
        os._exit(pytest.main([*options, *tests_of(file)]))
    code = os.waitpid(process, 0)[1]
    with suppress(ProcessLookupError):
        os.killpg(process, signal.SIGKILL)  # what the tests have spawned
    return code == 0


def checkout(folder: Path) -> Path:
    for name in ("iqn_blocks", "tests", "docs"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", folder)
    return folder


def fingerprint(paths: list[str]) -> str:
    files = [
        f for p in paths for f in ([ROOT / p] if p.endswith(".py") else (ROOT / p).rglob("*.py"))
    ]
    return hashlib.sha256(b"".join(f.read_bytes() for f in sorted(files))).hexdigest()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.mutants")
    parser.add_argument("files", nargs="*", help="package files; all with tests when omitted")
    parser.add_argument("--sample", type=int, help="how many, drawn at random from all")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    files = options.files or [
        str(path.relative_to(ROOT))
        for name in TESTS
        for path in ([ROOT / name] if name.endswith(".py") else sorted((ROOT / name).rglob("*.py")))
    ]
    chosen = [mutant for file in files for mutant in mutants(file)]
    random.Random(options.seed).shuffle(chosen)
    chosen = sorted(chosen[: options.sample], key=lambda mutant: files.index(mutant.file))

    torch.set_num_threads(1)
    RESULTS.mkdir(exist_ok=True)
    survivors: list[Mutant] = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = checkout(Path(temporary))
        for file in dict.fromkeys(mutant.file for mutant in chosen):
            store = RESULTS / f"{file.replace('/', '.')}.json"
            kept = json.loads(store.read_text()) if store.exists() else {}
            source, tests = fingerprint([file]), fingerprint(tests_of(file))
            same = kept.get("source") == source
            killed = set(kept["killed"]) if same else set()
            alive = set(kept["alive"]) if same and kept["tests"] == tests else set()
            mine = [mutant for mutant in chosen if mutant.file == file]
            todo = [m for m in mine if m.key not in killed | alive | EQUIVALENT.keys()]
            timeout = 600.0
            if todo:
                start = time.monotonic()
                if not passes(folder, file, timeout, changed=False):
                    sys.exit(f"{file}: its tests fail as they are: {' '.join(tests_of(file))}")
                timeout = 3 * (time.monotonic() - start) + 20
            for mutant in todo:
                (folder / file).write_text(mutant.source, encoding="utf-8")
                lives = passes(folder, file, timeout)
                shutil.copy2(ROOT / file, folder / file)
                (alive if lives else killed).add(mutant.key)
                print("SURVIVES" if lives else "killed  ", f"{file}:{mutant.line}", mutant.change)
                kept = {"source": source, "tests": tests}
                kept |= {"killed": sorted(killed), "alive": sorted(alive)}
                store.write_text(json.dumps(kept, indent=1))
            survivors += [m for m in mine if m.key in alive]
    print(table(chosen, survivors))
    for mutant in survivors:
        print(f"  survives: {mutant.file}:{mutant.line} {mutant.change}")


def table(chosen: list[Mutant], survivors: list[Mutant]) -> str:
    """Markdown: a line for each file, and one for all."""
    lines = ["| file | tried | equivalent | killed | survive |", "|---|--:|--:|--:|--:|"]
    counts = [
        Counter(m.file for m in mutants)
        for mutants in (chosen, [m for m in chosen if m.key in EQUIVALENT], survivors)
    ]
    for file in (*counts[0], "all"):
        tried, same, alive = (c.total() if file == "all" else c[file] for c in counts)
        lines.append(f"| {file} | {tried} | {same} | {tried - same - alive} | {alive} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
