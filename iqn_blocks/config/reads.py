"""Which keys a network was built from: the builders are watched while they read."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from iqn_blocks.config.block import WATCHED, Block
from iqn_blocks.config.config import Config
from iqn_blocks.config.inputs import Cnn
from iqn_blocks.config.part import Chooser, OptionsOf

# Keys for trainers, and one that is ignored by design where there is no image.
NEVER_REPORTED = (
    "nn.training",
    "nn.iqn.kappa",
    "nn.decoder.shared_trunk_freeze",
    "nn.vis.freeze",
    "btr.use_munchausen",
    "btr.munchausen_",
)

Reads = set[tuple[int, str]]  # a block's identity and one of its keys


@contextmanager
def watch() -> Iterator[Reads]:
    """Collect the keys that are read inside the ``with``, in this thread or task."""
    reads: Reads = set()
    token = WATCHED.set(reads)
    try:
        yield reads
    finally:
        WATCHED.reset(token)


def unread_keys(config: Config, reads: Reads) -> list[str]:
    """Dotted paths of keys that were set to another value than their default, and never read.

    The keys of :data:`NEVER_REPORTED` are left out.
    """
    paths = [path for path, block, key in _set_keys(config) if (id(block), key) not in reads]
    return [_as_set(config, path) for path in paths if not path.startswith(NEVER_REPORTED)]


def _as_set(config: Config, path: str) -> str:
    """The path where a key was set: those of the stem may have come from ``btr``."""
    cnn, (block, _, key) = config.nn.vis.cnn, path.rpartition(".")
    filled = block == "nn.vis.cnn" and cnn is not None and key not in cnn.model_fields_set
    return f"btr.{key}" if filled else path


def _set_keys(block: Block, above: str = "") -> Iterator[tuple[str, Block, str]]:
    """Path, block and name of each key that differs from its default."""
    is_chooser = isinstance(block, Chooser)
    for name, value in block.changed_keys():
        path = f"{above}{name}"
        if isinstance(value, Block):
            # `cnn` is there by default, whatever its field says.
            asked_for = [] if isinstance(value, Cnn) else [(path, block, name)]
            yield from list(_set_keys(value, f"{path}.")) or asked_for
        elif is_chooser and name in block.part_names():
            by_default = any(part.name == name for part in type(block)().parts)
            for option in value or [""] * (not by_default):
                yield f"{path}.{option}".strip("."), block, "parts"
        elif isinstance(kind := type(block).kind(name), OptionsOf):
            for option in value.changed_options(kind.slot):
                yield f"{path}.{option}", block, name
        elif not _is_default_of_stem(path, value):
            yield path, block, name


def _is_default_of_stem(path: str, value: object) -> bool:
    """Whether a conv key of ``btr`` says what the stem's key that it fills says by default."""
    above, _, name = path.partition(".")
    return above == "btr" and name in Cnn.model_fields and value == Cnn.model_fields[name].default
