"""The catalogue of parts: tables from the registry, the text around them from here."""

from __future__ import annotations

import inspect
import json
import re
import sys
from typing import Any, get_args

from iqn_blocks.plain import thaw
from iqn_blocks.registry import Slot, find_part, list_parts, options_of

ABOVE = """\
# Parts

<!-- Made from the registry by `make docs`. -->

A network is put together from parts, and each part fills a slot. A slot is one key of the
configuration. It holds the part's name, and under it the part's own options:

```yaml
nn:
  vis: {impala: {width: 1, layer_norm: true}}
  iqn: {mixer: film}  # a bare name is the name with its defaults
  decoder: {advantage: {simba: {n_blocks: 1}}}
```

`iqn_blocks.list_parts(slot)` lists the parts that a slot has. A wrong option is a `ConfigError`
with its path, what is accepted, and the nearest name.

## The slots

A part is a class, or a function that returns a module. A slot calls it with the arguments in the
table, by position; the options follow by name. `B` is the batch, `K` the number of quantiles, and
`R` the rows `K·B`; the other letters are [explained here](architecture.md#symbols).

| slot | key | called with | the module maps | and has |
|---|---|---|---|---|
| `topology` | `nn.topology` | the `Config` | `(img, floats) -> s (B, D)` | `state_dim`, the \
width `D` |
| `stem` | `nn.vis` | channels, `(H, W)` | scaled images `(B, C, H, W) -> (B, out_dim)` | \
`out_dim`; `n_tokens` if it gives tokens `(B, n_tokens, out_dim)` |
| `floats` | `nn.float` | `F` | normalised floats `(B, F) -> (B, out_dim)` | `out_dim` |
| `trunk` | `nn.encoder.fusion_encoder` | `T`, `d` | tokens `(B, T, d) -> (B, d)` | |
| `core` | `nn.core` | `D` | `(s (B, D), memory (B, M), reset (B,) or None) -> (s, memory)` | \
`state_dim`, the new width; `memory_dim`, the width `M`; `initial_memory(B)` |
| `mixer` | `nn.iqn.mixer` | `D` | `(s (B, D), φ, K) -> x (R, out_dim)`; `φ` is `(R, P)`, or \
`(K, P)` if the batch shares its levels | `phi_dim`, the width `P`; `out_dim` |
| `head` | `nn.decoder.advantage`, `nn.decoder.value` | width, output shape | \
`x (R, width) -> (R, *shape)` | `out_shape`, that shape; `n_levels` if it is a \
[function of τ](blocks/heads.md#quantiles-that-never-cross) |

Images and floats come in the dtype that `FloatNormalization` and `ImageNormalization` give them: an
image in that of the parameters, floats in float32 or wider, so that a part over floats casts them.

Some options have a key of the network's own, which fills them where nobody sets them. A head gets
`activation`, `layer_norm`, `noisy`, `noisy_readout`, `sigma0` and `hidden_dim` in this way, a stem
or trunk `activation`, and the float branch of a classic network `activation` and `layer_norm`.

## Your own part in one file

Write the module, name it, and put it into its slot. The options are the keyword arguments of its
constructor. Their types and bounds come from the annotations, such as `iqn_blocks.kinds.Size`, a
whole number from 1; their meaning comes from the docstring.

```python
import torch
from torch import nn

import iqn_blocks
from iqn_blocks.kinds import Size


@iqn_blocks.register("pooled", slot="stem")
class PooledStem(nn.Module):
    \"""One convolution and the mean over positions: `(B, C, H, W) -> (B, width)`.

    Args:
        width: channels of the convolution.
    \"""

    def __init__(self, in_channels: int, image_size: tuple[int, int], *, width: Size = 32):
        super().__init__()
        self.conv = nn.Conv2d(in_channels, width, 3, padding=1)
        self.out_dim = width

    def forward(self, img):
        return torch.relu(self.conv(img)).mean((2, 3))


net = iqn_blocks.build({
    "n_actions": 3,
    "float_input_dim": 2,
    "nn": {"vis": {"pooled": {"width": 8}, "image_size": {"width": 20, "height": 20}}},
})
assert net.q_values(*net.example_inputs(5)).shape == (5, 3)

try:
    iqn_blocks.build({
        "n_actions": 3,
        "float_input_dim": 2,
        "nn": {"vis": {"pooled": {"widht": 8}}},
    })
except iqn_blocks.ConfigError as error:
    assert str(error) == "nn.vis.pooled.widht: unknown option; did you mean width?"
```

That is all: saving, loading and compiling it need no further line. A checkpoint names the part, so
import the file that registers it before you load the checkpoint. A constructor that refuses an
argument raises a `ValueError` whose text begins with the argument's name and a colon; `build` puts
the path in front of it.
"""


def markdown(docstring: str) -> str:
    """The first paragraph of a docstring in Markdown."""
    text = " ".join(docstring.split("\n\n")[0].split())
    text = re.sub(r":\w+:`[~.\w]*?(\w+)`", r"`\1`", text)
    return text.replace("``", "`").replace("|", "\\|")


def overview() -> str:
    """One row for each part: its slot, its name, and what it is in one line."""
    rows = ["| slot | part | what it is |", "|---|---|---|"]
    for slot in get_args(Slot):
        for name in _ours(slot):
            text = inspect.getdoc(find_part(slot, name)) or ""
            line = markdown(text.partition("\n")[0])
            rows.append(f"| [`{slot}`](#parts-of-the-slot-{slot}) | `{name}` | {line} |")
    return "## All parts\n\n" + "\n".join(rows) + "\n"


def options(slot: Slot, name: str) -> str:
    """One row for each option of a part, or nothing."""
    settable = {k: o for k, o in options_of(find_part(slot, name), slot).items() if o.kind}
    rows = ["| option | accepted | default | meaning |", "|---|---|---|---|"]
    for key, option in settable.items():
        assert option.kind is not None
        default = "required" if option.is_required else f"`{json.dumps(thaw(option.default))}`"
        meaning = option.meaning.replace("``", "`")
        rows.append(f"| `{key}` | {option.kind.accepts} | {default} | {meaning} |")
    return "\n" + "\n".join(rows) + "\n" if settable else ""


def _is_ours(part: Any) -> bool:
    """Whether the library brings it; whoever makes the page may have registered others."""
    home = sys.modules[part.__module__]
    return home.__name__.startswith("iqn_blocks.") and getattr(home, part.__name__, None) is part


def _ours(slot: Slot) -> list[str]:
    return [name for name in list_parts(slot) if _is_ours(find_part(slot, name))]


def page() -> str:
    """The whole page."""
    sections = [ABOVE, overview()]
    for slot in get_args(Slot):
        sections.append(f"## Parts of the slot `{slot}`\n")
        for name in _ours(slot):
            text = markdown(inspect.getdoc(find_part(slot, name)) or "")
            sections.append(f"### `{name}`\n\n{text}\n{options(slot, name)}")
    return "\n".join(sections)
