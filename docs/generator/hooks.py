"""What the site generator reads otherwise than a Markdown viewer or a terminal: ``mkdocs.yml``."""

from __future__ import annotations

import re
from typing import Any

import griffe

ROLE = re.compile(r":\w+:`~?([^`]+)`")
DOCTEST = re.compile(r"^>>> .*\n(?:.+\n?)*", re.MULTILINE)  # to the next empty line


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Fences without the words that are for the tests: ```` ```python slow ````."""
    return re.sub(r"^```(\w+) [ \w]+$", r"```\1", markdown, flags=re.MULTILINE)


class Docstrings(griffe.Extension):
    """Sphinx roles of docstrings, such as ``:func:`build```, as code; doctests as blocks."""

    def on_instance(self, *, obj: griffe.Object, **_: Any) -> None:
        """Rewrite the docstring of one object."""
        if obj.docstring:
            text = ROLE.sub(r"`\1`", obj.docstring.value)
            obj.docstring.value = DOCTEST.sub(
                lambda found: f"```pycon\n{found[0].rstrip()}\n```\n", text
            )
