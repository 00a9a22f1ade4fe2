"""Networks in tianshou: an adapter for any version, and a policy for 2.x that sets the noise."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from iqn_blocks.interop.tianshou.model import TianshouModel

if TYPE_CHECKING:
    from iqn_blocks.interop.tianshou.policy import IQNPolicy

__all__ = ["IQNPolicy", "TianshouModel"]


def __getattr__(name: str) -> Any:
    # The adapter works without tianshou 2.x; only the policy imports it.
    if name == "IQNPolicy":
        from iqn_blocks.interop.tianshou.policy import IQNPolicy

        return IQNPolicy
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
