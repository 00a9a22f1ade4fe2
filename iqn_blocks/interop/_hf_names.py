"""Names inside Hugging Face backbones, which differ between versions of transformers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from iqn_blocks.interop._naming import Row

_POOLER = "pooler."


def current_names(
    net: nn.Module, rows: Sequence[Row], tensors: Mapping[str, Any]
) -> Mapping[str, Any]:
    """``tensors`` with backbones as the network keeps them.

    Their names become those of the installed transformers. Parts that the network leaves out, such
    as a pooler or word embeddings, are dropped.
    """
    for prefix, backbone in _backbones(net, rows):
        expected = {row.theirs for row in rows if row.theirs.startswith(prefix)}
        inside = {name: value for name, value in tensors.items() if name.startswith(prefix)}
        with torch.device("meta"):
            unpruned = type(backbone)(backbone.config)
        whole = expected | {prefix + name for name in unpruned.state_dict()}
        kept = {n: v for n, v in inside.items() if not n.startswith(prefix + _POOLER)}
        if not kept.keys() <= whole:
            kept = _translated(backbone, prefix, kept)
        outside = {name: value for name, value in tensors.items() if name not in inside}
        tensors = {**outside, **{n: v for n, v in kept.items() if n in expected or n not in whole}}
    return tensors


def _backbones(net: nn.Module, rows: Sequence[Row]) -> Iterator[tuple[str, Any]]:
    """Each Hugging Face model: its prefix in the other system, and the module here."""
    for path, module in net.named_modules():
        if not path.endswith(".backbone"):
            continue
        inside = [row for row in rows if row.ours.startswith(f"{path}.")]
        if inside:
            rest = inside[0].ours.removeprefix(f"{path}.")
            yield inside[0].theirs.removesuffix(rest), module


def _translated(backbone: Any, prefix: str, tensors: Mapping[str, Any]) -> dict[str, Any]:
    """``tensors`` as transformers reads them into such a model, and the misfits as they are."""
    if not tensors or not all(isinstance(value, Tensor) for value in tensors.values()):
        return dict(tensors)
    plain = {name.removeprefix(prefix): value.detach().clone() for name, value in tensors.items()}
    dtypes = [value.dtype for value in plain.values() if value.is_floating_point()]
    with _quiet_transformers():
        model, report = type(backbone).from_pretrained(
            None,
            config=backbone.config,
            state_dict=plain,
            dtype=dtypes[0] if dtypes else torch.float32,
            ignore_mismatched_sizes=True,
            output_loading_info=True,
        )
    misshaped = {name: torch.empty(shape) for name, shape, _ in report["mismatched_keys"]}
    absent = {*report["missing_keys"], *misshaped}
    read = {name: value for name, value in model.state_dict().items() if name not in absent}
    extra = {name: plain.get(name, torch.empty(0)) for name in report["unexpected_keys"]}
    return {f"{prefix}{name}": value for name, value in {**read, **misshaped, **extra}.items()}


@contextmanager
def _quiet_transformers() -> Iterator[None]:
    """Without its progress bar and its report of misfits: the caller reports these itself."""
    from transformers.utils import logging

    verbosity, bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bar:
            logging.enable_progress_bar()  # type: ignore[no-untyped-call]
