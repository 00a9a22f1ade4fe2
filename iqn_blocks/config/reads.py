"""Which keys a network was built from: the builders are watched while they read."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from iqn_blocks.config.block import WATCHED, Block
from iqn_blocks.config.inputs import Cnn
from iqn_blocks.config.part import Chooser, Part
from iqn_blocks.config.schema import Config

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
    for name, field in type(block).model_fields.items():
        path, value = f"{above}{name}", block.__dict__[name]
        default = field.get_default(call_default_factory=True)
        if isinstance(value, Block):
            inside = [] if value == default else list(_set_keys(value, f"{path}."))
            # `cnn` is there by default, whatever its field says.
            asked_for = default is None and not isinstance(value, Cnn)
            yield from inside or ([(path, block, name)] if asked_for else [])
        elif isinstance(value, Part) and isinstance(default, Part):
            for option, own in value.options.items():
                if own != default.options.get(option):
                    yield f"{path}.{option}", block, name
        elif isinstance(block, Chooser) and name == "parts":
            for part in value:
                options = [f"{part.name}.{option}" for option in part.changed_options(block.slot)]
                by_default = part in type(block)().__dict__[name]
                for key in options or [part.name] * (not by_default):
                    yield f"{above}{key}", block, name
        elif field.is_required() or value not in (default, _default_of_stem(path)):
            yield path, block, name


def _default_of_stem(path: str) -> object:
    """The default of the stem's key that a conv key of ``btr`` fills: it changes nothing there."""
    above, _, name = path.partition(".")
    field = Cnn.model_fields.get(name) if above == "btr" else None
    return None if field is None else field.default
