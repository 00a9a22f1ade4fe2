"""The page on the configuration says what the schema says."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from iqn_blocks import ConfigError
from iqn_blocks.config import Config, parse
from tests.config.cases import KEYS

DOCS = Path(__file__).parents[2] / "docs"


def test_the_page_has_every_key_with_its_meaning() -> None:
    for path, key in KEYS.items():
        assert key.meaning, path
        page = "parts.md" if key.inside else "configuration.md"
        lines = (DOCS / page).read_text(encoding="utf-8").splitlines()
        meaning = key.meaning.replace("``", "`")
        rows = [line.split(" | ") for line in lines if line.startswith("| `")]
        found = [row for row in rows if f"`{key.name}`" in row[0] and meaning in row[-1]]
        assert key.kind.accepts in [row[1] for row in found], path


def test_the_error_on_the_page_is_the_one_that_is_raised() -> None:
    text = (DOCS / "configuration.md").read_text(encoding="utf-8")
    example = text.split("except")[0].rpartition("build(")[2].rpartition(")")[0]
    printed = text.split("print(error)\n")[1].split("```")[0]
    with pytest.raises(ConfigError) as error:
        parse(ast.literal_eval(example))
    assert [f"# {line}" for line in str(error.value).splitlines()] == printed.splitlines()


def test_every_block_is_described() -> None:
    assert Config.__doc__
    for name, path in Config.all_keys():
        block = Config
        for part in path.split(".")[:-1]:
            block = block.child(part) or block
        if name in block.model_fields:  # others are parts
            assert block.model_fields[name].description, path
