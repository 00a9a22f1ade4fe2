"""Which pages are generated, and from what."""

from __future__ import annotations

import json

from docs.generator import configuration, parts, topologies
from iqn_blocks import Config


def pages() -> dict[str, str]:
    """The text of every generated file by its path."""
    return {
        "docs/configuration.md": configuration.page(),
        "docs/parts.md": parts.page(),
        "iqn_blocks/config.schema.json": schema(),
        **topologies.pages(),
    }


def schema() -> str:
    """The JSON Schema of configuration files, with which editors complete and check them."""
    return json.dumps(Config.model_json_schema(), indent=1, ensure_ascii=False) + "\n"
