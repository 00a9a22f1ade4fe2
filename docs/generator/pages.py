"""Which pages are generated, and from what."""

from __future__ import annotations

from docs.generator import configuration, topologies


def pages() -> dict[str, str]:
    """The text of every generated page by its path."""
    return {"docs/configuration.md": configuration.page(), **topologies.pages()}
