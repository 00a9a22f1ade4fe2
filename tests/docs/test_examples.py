"""The docs as a reader meets them: every example runs, every link leads somewhere."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import iqn_blocks
from docs.generator.pages import pages as generated_pages
from tests.registration import forget_later

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
CONFIGS = sorted((ROOT / "docs" / "configs").glob("*.yaml"))

# A fence opens with ```python, and may name marks for a test that cannot always run: ```python slow
FENCE = re.compile(r"^```python([ \w]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
# Fences with one of these words are programs of their own, which start processes.
LAUNCHERS = {
    "script": [sys.executable],
    "torchrun": [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node=2",
    ],
}
LINK = re.compile(r"\]\(([^)\s]+)\)")


def page_id(page: Path) -> str:
    return str(page.relative_to(ROOT))


def is_program(info: str) -> bool:
    return not LAUNCHERS.keys().isdisjoint(info.split())


def pages_with_examples() -> list[object]:
    """One case a page: its examples share names, as for a reader who pastes them in order."""
    cases = []
    for page in PAGES:
        fences = FENCE.findall(page.read_text(encoding="utf-8"))
        fences = [(info, code) for info, code in fences if not is_program(info)]
        names = {mark for info, _ in fences for mark in info.split()}
        marks = [getattr(pytest.mark, name) for name in sorted(names)]
        if "peers" in names:  # these libraries warn on import, about what they import
            marks.append(pytest.mark.filterwarnings("default"))
        if fences:
            cases.append(pytest.param(page, id=page_id(page), marks=marks))
    return cases


@pytest.mark.parametrize("page", pages_with_examples())
def test_examples_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # What a page registers is forgotten after it.
    forget_later(monkeypatch)
    monkeypatch.chdir(tmp_path)
    for folder in ("docs", "demo"):  # examples read them as from the checkout
        (tmp_path / folder).symlink_to(ROOT / folder)
    text = page.read_text(encoding="utf-8")
    namespace: dict[str, object] = {"__name__": "__main__"}
    for match in FENCE.finditer(text):
        if is_program(match[1]):
            continue
        # Empty lines in front, so that a traceback shows the line of the page.
        above = text.count("\n", 0, match.start(2))
        exec(compile("\n" * above + match[2], str(page), "exec"), namespace)


def programs() -> list[object]:
    cases = []
    for page in PAGES:
        for number, (info, code) in enumerate(FENCE.findall(page.read_text(encoding="utf-8"))):
            words = set(info.split())
            marks = [getattr(pytest.mark, name) for name in sorted(words - LAUNCHERS.keys())]
            for launcher in words & LAUNCHERS.keys():
                case = pytest.param(launcher, code, id=f"{page_id(page)}-{number}", marks=marks)
                cases.append(case)
    return cases


@pytest.mark.parametrize(("launcher", "code"), programs())
def test_programs_run(launcher: str, code: str, tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(code, encoding="utf-8")
    run = subprocess.run(
        [*LAUNCHERS[launcher], "program.py"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    print(run.stdout)


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_links_lead_somewhere(page: Path) -> None:
    targets = [link.split("#")[0] for link in LINK.findall(page.read_text(encoding="utf-8"))]
    local = [target for target in targets if target and "://" not in target]
    assert [target for target in local if not (page.parent / target).exists()] == []


def test_readme_commands_are_make_targets() -> None:
    named = set(re.findall(r"^ *make (\S+)", (ROOT / "README.md").read_text(), re.MULTILINE))
    assert {"demo", "test"} <= named
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert named <= targets


def test_generated_pages_are_up_to_date() -> None:
    for path, text in generated_pages().items():
        assert (ROOT / path).read_text(encoding="utf-8") == text, (
            f"{path} is stale: run `make docs`"
        )


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_shipped_configs_load(path: Path) -> None:
    config = iqn_blocks.load_config(path)
    assert (config.n_actions, config.float_input_dim) == (9, 128)  # the demo's game
    assert iqn_blocks.route(config) in ("classic", "multimodal", "hf_vision")
