"""Keys that were set but that the routed network does not read."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from iqn_blocks.config.schema import Config


def unused_keys(config: Config, topology: str) -> list[str]:
    """Dotted paths of keys with another value than their default that ``topology`` never reads."""
    return []
