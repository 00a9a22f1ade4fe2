"""Imports of the package: one direction, nothing heavy, nothing private of PyTorch."""

from __future__ import annotations

import ast
import subprocess
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import iqn_blocks

ROOT = Path(iqn_blocks.__file__).parent
FILES = {
    ".".join(path.relative_to(ROOT.parent).with_suffix("").parts).removesuffix(".__init__"): path
    for path in ROOT.rglob("*.py")
}
# What PyTorch offers for use under names that look private.
ALLOWED = ("torch._foreach_", "torch.ops.mkldnn._", "nn.modules.module._")


def parents(name: str) -> set[str]:
    """The packages around a module, but for the outermost, which everything is in."""
    parts = name.split(".")
    return {".".join(parts[:n]) for n in range(2, len(parts))}


def imports_of(name: str) -> set[str]:
    """What a module imports anywhere, inside functions and for type checkers alone included."""
    found = set()
    for node in ast.walk(ast.parse(FILES[name].read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name}: a relative import"
            module = str(node.module)
            inside = {f"{module}.{alias.name}" for alias in node.names}
            found |= {one if one in FILES else module for one in inside}
    ours = {module for module in found if module in FILES}
    around = {parent for module in ours for parent in parents(module)}
    return (ours | around) - parents(name) - {name}


def test_imports_go_one_way() -> None:
    graph = {name: imports_of(name) for name in FILES}
    assert len(graph) > 100 and "iqn_blocks.network" in graph["iqn_blocks.assembly"]
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(f"a cycle of imports: {' imports '.join(reversed(error.args[1]))}")


def test_a_cycle_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, text in {
        "a": "def f():\n    from b.c import d\n",
        "b": "import a",
        "b.c": "if TYPE_CHECKING:\n    import a\n",
    }.items():
        (tmp_path / f"{name}.py").write_text(text)
        monkeypatch.setitem(FILES, name, tmp_path / f"{name}.py")
    assert imports_of("a") == {"b.c"}
    assert imports_of("b.c") == {"a"}


def test_the_package_does_not_import_transformers() -> None:
    code = "import sys, iqn_blocks, iqn_blocks.blocks; print('transformers' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "False"


def private_names(text: str) -> list[str]:
    """Names of PyTorch with a part that begins with one underscore."""
    found = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Attribute):
            found.append(ast.unparse(node))
        elif isinstance(node, ast.ImportFrom):
            found += [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
    ours = [name for name in found if name.split(".")[0] in ("torch", "nn", "F")]
    private = [n for n in ours if any(p[:1] == "_" and p[:2] != "__" for p in n.split("."))]
    return [name for name in private if not name.startswith(ALLOWED)]


@pytest.mark.parametrize("name", FILES)
def test_no_private_name_of_pytorch(name: str) -> None:
    assert private_names(FILES[name].read_text(encoding="utf-8")) == []


def test_private_names_are_seen() -> None:
    text = "import torch._dynamo\nfrom torch._C import f\ntorch._x(nn.a._b)\ntorch._foreach_add()"
    assert private_names(text) == ["torch._dynamo", "torch._C.f", "torch._x", "nn.a._b"]
