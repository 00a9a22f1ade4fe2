"""What this library raises and warns with."""

from __future__ import annotations

MAX_MESSAGE = 8192  # bytes of UTF-8


class _Bounded(ValueError):
    """Cuts its message: what it quotes may come from anybody, and be of any length."""

    def __init__(self, message: str) -> None:
        content = message.encode("utf-8", "backslashreplace")
        if len(content) > MAX_MESSAGE:
            start = content[: MAX_MESSAGE - 100].decode("utf-8", "ignore")
            message = f"{start}…\n(cut: {len(content)} bytes in all)"
        super().__init__(message)


class ConfigError(_Bounded):
    """A configuration that no network can be built from.

    Each line of the message is one fault: the dotted path of the key, what was found, what is
    accepted, and the way out.
    """


class UnsupportedTopologyError(ConfigError):
    """A valid configuration whose combination of parts has no network."""


class CheckpointError(_Bounded):
    """A checkpoint that cannot be read, or that does not fit its network."""


class UnusedConfigWarning(UserWarning):
    """Keys set to another value than their default that the routed network does not read."""


class ImportedConfigWarning(UserWarning):
    """What a file of another project leaves open, or is written for something else."""
