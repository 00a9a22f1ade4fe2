"""The site: every page is in its navigation, every link leads somewhere, nothing is fetched."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
import yaml

import iqn_blocks

ROOT = Path(__file__).parents[2]


class _Plain(yaml.SafeLoader):
    """Reads the settings without the Python objects that are named in them."""


_Plain.add_multi_constructor("tag:yaml.org,2002:python/", lambda *_: None)
_Plain.add_constructor("tag:yaml.org,2002:python/", lambda *_: None)


def _entries(nav: Any) -> Iterator[str]:
    if isinstance(nav, str):
        yield nav
    for entry in nav.values() if isinstance(nav, dict) else nav if isinstance(nav, list) else ():
        yield from _entries(entry)


def test_the_navigation_has_every_page_once() -> None:
    settings = yaml.load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"), _Plain)
    docs = ROOT / "docs"
    pages = sorted(str(page.relative_to(docs)) for page in docs.rglob("*.md"))
    assert sorted(_entries(settings["nav"])) == pages


def test_links_of_pages_stay_in_the_docs() -> None:
    """The site has nothing else of the repository; a strict build stops at such a link."""
    docs = ROOT / "docs"
    for page in docs.rglob("*.md"):
        for link in re.findall(r"\]\(([^)#\s]+)", page.read_text(encoding="utf-8")):
            if not urlsplit(link).scheme:
                assert docs in (page.parent / link).resolve().parents, f"{page.name}: {link}"


def test_the_reference_has_every_public_name() -> None:
    pages = "".join(page.read_text(encoding="utf-8") for page in (ROOT / "docs/api").glob("*.md"))
    named = set(re.findall(r"^::: (\S+)", pages, re.MULTILINE))
    for name in iqn_blocks.__all__:
        thing = getattr(iqn_blocks, name)
        home = thing.__name__ if isinstance(thing, ModuleType) else thing.__module__
        inside = {place for place in named if place.startswith(f"{home}.")}  # a package's modules
        places = {f"iqn_blocks.{name}", home, f"{home}.{getattr(thing, '__name__', name)}"}
        assert named & places or (isinstance(thing, ModuleType) and inside), name


class _Page(HTMLParser):
    """What a page names (ids), where it leads (links), and what it loads by itself."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.ids: set[str] = set()
        self.links: set[str] = set()
        self.loaded: set[str] = set()
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self.ids |= {given[name] for name in ("id", "name") if name in given}
        target = given.get("href", given.get("src"))
        if target is not None:
            (self.links if tag == "a" else self.loaded).add(target)


def _broken(site: Path) -> Iterator[str]:
    pages = {path: _Page(path) for path in site.rglob("*.html") if path.name != "404.html"}
    for path, page in pages.items():
        for target in page.links | page.loaded:
            parts = urlsplit(target)
            where = path.relative_to(site)
            if parts.scheme or parts.netloc:
                if target in page.loaded:
                    yield f"{where} loads {target}"
                continue
            found = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            if not found.is_file() and not (found / "index.html").is_file():
                yield f"{where} leads to {target}"
            elif found in pages and unquote(parts.fragment) not in {"", *pages[found].ids}:
                yield f"{where} leads to {target}, which has no such place"


@pytest.mark.slow
def test_the_site_is_made_without_warnings_and_its_links_resolve(tmp_path: Path) -> None:
    run = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)],
        cwd=ROOT,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert len(list(tmp_path.rglob("*.html"))) > 20
    assert list(_broken(tmp_path)) == []
    found = json.loads((tmp_path / "search/search_index.json").read_text(encoding="utf-8"))["docs"]
    assert "api/functions.html#iqn_blocks.risk.cvar" in {entry["location"] for entry in found}


def test_a_broken_link_is_found(tmp_path: Path) -> None:
    (tmp_path / "a.html").write_text(
        '<h1 id="here"></h1><a href="#here"></a><a href="b.html"></a><a href="#there"></a>'
        '<script src="https://example.org/x.js"></script><a href="https://example.org"></a>'
    )
    assert sorted(_broken(tmp_path)) == [
        "a.html leads to #there, which has no such place",
        "a.html leads to b.html",
        "a.html loads https://example.org/x.js",
    ]
