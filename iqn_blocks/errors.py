"""What this library raises and warns with."""

from __future__ import annotations


class ConfigError(ValueError):
    """A configuration that no network can be built from.

    Each line of the message is one fault: the dotted path of the key, what was found, what is
    accepted, and the way out.
    """


class UnsupportedTopologyError(ConfigError):
    """A valid configuration whose combination of parts has no network."""


class CheckpointError(ValueError):
    """A checkpoint that cannot be read, or that does not fit its network."""


class UnusedConfigWarning(UserWarning):
    """Keys set to another value than their default that the routed network does not read."""


class ImportedConfigWarning(UserWarning):
    """What a file of another project leaves open, or is written for something else."""
