"""Parts that a test registers."""

from __future__ import annotations

import pytest

from iqn_blocks import registry


def forget_later(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is registered from here on is forgotten when the test ends."""
    for slot, parts in registry._PARTS.items():
        monkeypatch.setitem(registry._PARTS, slot, dict(parts))
