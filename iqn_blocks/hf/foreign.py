"""What a model's configuration from a stranger may not do: lead elsewhere, or fill the memory."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch

from iqn_blocks.errors import ConfigError
from iqn_blocks.plain import show

# Keys by whose values transformers chooses what to import, to download or to read.
_LEADS_ELSEWHERE = frozenset(
    {
        "auto_map",  # classes in files of Python
        "attribute_map",  # lets another key stand for auto_map
        "quantization_config",  # packages
        "backbone",  # models of the hub and of timm, which in turn reads files and hub ids
        "architecture",  # the same
        "model_args",  # arguments for timm, such as a file to read
        "timm_kwargs",
        "transformers_weights",  # another file of weights
        "configuration_files",  # another configuration
        "fusion_config",  # changes a class of transformers, for later models too
    }
)
_NOTHING: tuple[Any, ...] = (None, {}, [])  # as a name, "" would be asked for
# Keys that say how many modules or entries there are.
_COUNTS = re.compile(r"(^|_)(layers?|depths?|blocks|stages|levels|experts|groups|labels)(_|$)")
_NUMBERED = re.compile(r"\.\d+\.")  # inside one layer of several
FEW = 1000  # modules that are made within a second
MANY = 2**17  # more than any model has labels; a configuration lists each
_SPARE = 2**29  # elements that a model is made with, but a network leaves out: embeddings of words
# What computes with PyTorch alone; any other implementation may be code of the hub.
_PLAIN = (None, "eager", "sdpa", "flex_attention", "grouped_mm", "batched_mm")


def leads_elsewhere(config: object) -> str:
    """The first key that leads transformers to other code or files, at any depth; else ``""``.

    ``config`` is what a file holds, or what transformers has made of it: keys may change names.
    """
    for name, value, outermost in items(config):
        # The loader chooses attention of the whole model, whatever its configuration says.
        chosen = outermost and "attn_implementation" in name
        if (
            (name in _LEADS_ELSEWHERE and value not in _NOTHING and not _is_harmless(name, value))
            or ("implementation" in name and value not in _PLAIN and not chosen)
            or name.startswith("__")  # Python's own attributes, such as __dict__
        ):
            return name
    return ""


def _is_harmless(key: str, value: object) -> bool:
    """Whether it names an architecture inside timm, no place such as ``hf-hub:a/b``, or a size."""
    if key == "model_args":
        return isinstance(value, Mapping) and value.keys() <= {"img_size"}
    return key == "architecture" and isinstance(value, str) and not set(":/\\") & set(value)


def items(config: object) -> Iterator[tuple[str, Any, bool]]:
    """Key and value of every block at any depth, and whether the block is the outermost."""
    pending: list[tuple[Any, bool]] = [(config, True)]
    while pending:
        block, outermost = pending.pop()
        if hasattr(block, "attribute_map"):  # a PretrainedConfig
            block = vars(block)
        if isinstance(block, Mapping):
            yield from ((str(key), value, outermost) for key, value in block.items())
            block = list(block.values())
        if isinstance(block, list | tuple):
            pending += ((value, False) for value in block)


def check_counts(config: object, most: int) -> None:
    """Raise ValueError where making so many modules would take for ever."""
    for name, value, _ in items(config):
        counts = value if isinstance(value, list) else [value]
        if _COUNTS.search(name) and any(type(n) is int and n > most for n in counts):
            raise ValueError(f"{name}: expected at most {most}, found {show(value)}")


def check_sizes(model: torch.nn.Module, sizes: Mapping[str, Sequence[int]]) -> None:
    """Raise ValueError where a model of no memory would not fit tensors of these sizes."""
    for name, _ in model.named_parameters():
        if name not in sizes and _NUMBERED.search(name):
            raise ValueError(f"{name} is not among the {len(sizes)} tensors saved")
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        if name in sizes and tuple(sizes[name]) != tuple(tensor.shape):
            raise ValueError(f"{name} is {tuple(tensor.shape)}, saved is {tuple(sizes[name])}")
    check_total(model, sum(map(math.prod, sizes.values())))


def check_total(model: torch.nn.Module, saved: int) -> None:
    """Raise ValueError where a model of no memory is far larger than what is saved of it."""
    spare = 2 * saved + _SPARE
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        spare -= tensor.numel()
        if spare < 0:
            raise ValueError(f"{name} is {tuple(tensor.shape)}, too large for what is saved")


def refuse_elsewhere(
    config: object, path: str, key: str, trust_remote_code: bool, way_out: str = ""
) -> None:
    """Raise ConfigError for a configuration that leads elsewhere, unless the caller trusts it.

    ``way_out`` is what to do then, by default to set the flag beside ``key``.
    """
    found = "" if trust_remote_code else leads_elsewhere(config)
    if found:
        flag = f"{key.rpartition('.')[0]}.trust_remote_code".lstrip(".")
        raise ConfigError(
            f"{key}: found {path!r}, whose configuration holds {found}, by which it names code or "
            f"files from elsewhere; accepted: a model without; if you trust what it names, "
            f"{way_out or f'set {flag} to true'}"
        )
