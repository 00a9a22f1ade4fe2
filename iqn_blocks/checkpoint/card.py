"""The model card of a network on the hub."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from iqn_blocks._version import VERSION
from iqn_blocks.config import Config
from iqn_blocks.describe import describe
from iqn_blocks.network import IQN, config_of

_LONGEST_LIST = 8  # numbers; longer ones are in config.json

_CARD = """\
---
library_name: iqn-blocks
tags:
- iqn-blocks
- implicit-quantile-network
- distributional-reinforcement-learning
- reinforcement-learning
---

# {title}

An implicit quantile network ([arXiv:1806.06923](https://arxiv.org/abs/1806.06923)) with
{total:,} parameters ({frozen:,} of them frozen), built and saved by `iqn-blocks` {version}.

## Load it

```python
import iqn_blocks

net = iqn_blocks.from_pretrained({repo_id}).eval()
img, floats = net.example_inputs(batch=2)
q, tau = net(img, floats, num_quantiles={quantiles})
actions = net.q_values(img, floats).argmax(-1)
```

## Inputs and outputs

`B` is the batch, `K` the number of quantiles; rows of `q` are quantile-major.

| name | shape | meaning |
|---|---|---|
{shapes}

## Stages

```text
{stages}
```

## Configuration

| key | value |
|---|---|
{keys}
"""


def model_card(net: IQN, repo_id: str) -> str:
    """The text of ``README.md``: how to load, shapes, parameters by stage, configuration."""
    config = config_of(net)
    title, quoted = repo_id.rpartition("/")[2], json.dumps(repo_id)
    return _CARD.format(
        title=title if re.fullmatch(r"[\w.-]+", title) else _code(quoted),
        repo_id=quoted,
        version=VERSION,
        total=net.num_parameters(),
        frozen=net.num_parameters() - net.num_parameters(trainable=True),
        quantiles=config.nn.iqn.n,
        shapes="\n".join(_shape_rows(net, config)),
        stages=describe(net),
        keys="\n".join(
            f"| {_code(json.dumps(key, ensure_ascii=False)[1:-1])} | {_cell(value)} |"
            for key, value in _flat(config.to_dict())
        ),
    )


def _shape_rows(net: IQN, config: Config) -> Iterator[str]:
    img, floats = net.example_inputs(1)
    if img is not None:
        channels, height, width = img.shape[1:]
        is_signed = config.nn.vis.uint8_scaling == "signed"
        scaling = "(x − 128) / 128" if is_signed else "x / 255"
        yield (
            f"| `img` | (B, {channels}, {height}, {width}) | uint8, normalised inside as "
            f"{scaling}, or floating and already normalised |"
        )
    if floats is not None:
        yield f"| `floats` | (B, {floats.shape[1]}) | raw units, normalised inside |"
    shape = f"{net.n_actions}" if net.n_offsets == 1 else f"{net.n_offsets}, {net.n_actions}"
    yield f"| `q` | (K·B, {shape}) | quantile values of the actions |"
    yield "| `tau` | (K·B, 1) | τ of each row |"


def _flat(data: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in data.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{above}{key}.")
        else:
            yield f"{above}{key}", value


def _cell(value: object) -> str:
    if isinstance(value, list) and len(value) > _LONGEST_LIST:
        return f"{len(value)} values, see `config.json`"
    return _code(json.dumps(value, ensure_ascii=False))


def _code(text: str) -> str:
    """JSON as code in a cell of a table; it has no line breaks."""
    return "`" + text.replace("`", "'").replace("|", "\\|") + "`"
