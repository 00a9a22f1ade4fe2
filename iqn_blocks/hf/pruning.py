"""One run of a pretrained model before it is used, after which its unused parts are removed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from iqn_blocks.errors import ConfigError
from iqn_blocks.hf.loading import SUCH_AS, Input


class PassThrough(nn.Module):
    """Takes the place of a module whose result is not used: gives its first argument back."""

    def forward(self, x: Any, *_: Any, **__: Any) -> Any:
        return x


def probe(model: nn.Module, run: Callable[[], Tensor], takes: Input, key: str) -> Tensor:
    """The result of ``run``; parts of ``model`` that it does not depend on are removed.

    Raises:
        ConfigError: ``run`` fails; ``takes`` is the input that it uses, ``key`` the model's name in
            the message.
    """
    training = model.training
    model.eval()
    try:
        with torch.enable_grad(), next(model.parameters()).device:
            out = run()
    except Exception as error:  # a foreign model fails in its own ways
        raise ConfigError(
            f"{key}: found {label(model)}, which does not run on {takes} alone "
            f"({type(error).__name__}: {error}); accepted: a model such as {SUCH_AS[takes]}; name "
            "another model"
        ) from error
    if torch.get_default_device().type != "meta":  # there a network is only planned
        drop_unused(model, out)
    model.train(training)
    return out


def label(model: nn.Module) -> str:
    """Path and class of a model, for messages."""
    return f"{getattr(model, 'name_or_path', '')!r} ({type(model).__name__})"


def drop_unused(model: nn.Module, out: Tensor) -> None:
    """Remove the parameters that get no gradient from ``out``, a result of ``model``.

    Examples are poolers, mask tokens, norms of pooled outputs, and word embeddings of a model whose
    input is vectors. A module without a used parameter becomes :class:`PassThrough`, a single
    parameter ``None``. Numbered layers stay whole, because an expert may be unused in this call.
    """
    outside = {
        name: parameter
        for name, parameter in model.named_parameters()
        if parameter.requires_grad and not any(part.isdigit() for part in name.split("."))
    }
    if not outside:
        return
    with torch.enable_grad():  # networks may be built under no_grad
        total = out.sum()
    slopes = torch.autograd.grad(total, list(outside.values()), allow_unused=True)
    unused = {name for name, slope in zip(outside, slopes, strict=True) if slope is None}
    used = {name for name, _ in model.named_parameters()} - unused
    for target in {_outermost(name, used) for name in unused}:
        owner, _, leaf = target.rpartition(".")
        setattr(model.get_submodule(owner), leaf, None if target in unused else PassThrough())


def _outermost(name: str, used: set[str]) -> str:
    """The largest module around a parameter in which nothing is used, or the parameter itself."""
    parent = name.rpartition(".")[0]
    if not parent or any(other.startswith(f"{parent}.") for other in used):
        return name
    return _outermost(parent, used)


def one_row(x: Tensor) -> Tensor:
    """One row of zeros in place of a batch without rows, for which transformers' reshapes fail."""
    return x.new_zeros(1, *x.shape[1:])
