"""How large a model of a stranger may be, to the last element."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from iqn_blocks.hf.foreign import check_counts, check_total

SPARE = 2**29  # elements, 2 GiB in float32: the word embeddings of a large vocabulary


def hollow(elements: int) -> nn.Module:
    """A layer of so many elements that takes no memory."""
    layer = nn.Module()
    layer.weight = nn.Parameter(torch.empty(elements, device="meta"))
    return layer


def test_a_model_may_have_twice_what_is_saved_and_embeddings_besides() -> None:
    check_total(hollow(SPARE), saved=0)
    check_total(hollow(2 * 10 + SPARE), saved=10)
    for elements, saved in ((SPARE + 1, 0), (2 * 10 + SPARE + 1, 10)):
        with pytest.raises(ValueError, match=rf"^weight is \({elements},\), too large for what"):
            check_total(hollow(elements), saved)


def test_as_many_modules_as_accepted() -> None:
    check_counts({"num_hidden_layers": 7, "depths": [1, 7]}, most=7)
    for name, value in (("num_hidden_layers", 8), ("depths", [1, 8])):
        with pytest.raises(ValueError, match=rf"^{name}: expected at most 7, found .*8"):
            check_counts({"vision_config": {name: value}}, most=7)
