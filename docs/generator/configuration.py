"""The page on the configuration: tables from the schema, the text around them from here."""

from __future__ import annotations

import json
from typing import Any

from iqn_blocks.config import Config, Part, thaw
from iqn_blocks.config.block import Block
from iqn_blocks.config.part import PartsOf
from iqn_blocks.config.schema import CNN_KEYS_OF_BTR

ABOVE = """\
# Configuration

<!-- Made from the schema by `make docs`. -->

Every network is described by one mapping: a Python dict, a YAML or JSON file, or a
`iqn_blocks.config.Config`. Two keys are required, all others have defaults.

```python
import iqn_blocks

net = iqn_blocks.build({
    "n_actions": 12,
    "float_input_dim": 4,
    "nn": {"vis": {"image_size": {"width": 64, "height": 64}}},
})
print(net.config)                    # what was built; it can be pasted back
print(net.config.to_dict()["btr"])   # … and as plain data, defaults filled in

from iqn_blocks.config import *      # the names that such a paste needs

assert eval(str(net.config)) == net.config
```

Attributes are named like the keys: `net.config.nn.iqn.embedding_dimension`. A config object never
changes, compares by value and can be hashed. `config.replace(nn={"iqn": {"k": 8}})` is a copy in
which these keys are changed, block by block; a part that is chosen takes the place of the one that
was there. `config.to_yaml()` is the text of a file.

## Presets

A preset is the configuration of a published network. `preset:` at the top level names one; the
other keys are laid over its own, as `replace` lays them.

```python
by_name = iqn_blocks.build({"preset": "btr", "n_actions": 6, "nn": {"iqn": {"k": 16}}})
assert by_name.config == iqn_blocks.presets.btr(6, nn={"iqn": {"k": 16}})
print(iqn_blocks.list_presets())
```

Each is a function of `iqn_blocks.presets`, whose docstring names the source, and a YAML file beside
it with every key that makes the network.

## Files

`iqn_blocks.load_config(path)` reads `.yaml`, `.yml` and `.json`; `build` and `route` take the path
itself. A key that is given twice is an error with its line. YAML is read as data alone, no tag runs
code. YAML 1.1 reads `1e-3` as a string: write `1.0e-3`. A block that is left empty (`training:`) is
as if it were not there; one that is there only on request is asked for with `transformer: {}`.

## Help from an editor

`Config(n_actions=5, float_input_dim=3, nn=Nn(...))` is typed: mypy and pyright check it without a
plugin, see [typed_config.py](examples/typed_config.py). Parts of your own are keywords that a type
checker cannot know; write those as plain data, `Config.model_validate({...})`.

For YAML and JSON files `iqn_blocks/config.schema.json` ships with the package, the JSON Schema that
`Config.model_json_schema()` gives. In a file that starts with

    # yaml-language-server: $schema=<folder of iqn_blocks>/config.schema.json

editors complete keys, show their meaning and mark what is wrong; `iqn-blocks new` writes that line.
Parts that you register yourself are only in the schema of a program that registered them.

## Errors

A value is never converted: `"8"`, `8.0` and `true` are no whole numbers. Scalars and arrays of
numpy, and tuples, are welcome where numbers and lists are; NaN and infinity are not. All faults of
single keys come in one `ConfigError`, or else all faults between keys: each line names the path,
what was found, what is accepted, and the way out.

```python
try:
    iqn_blocks.build({
        "n_actions": "12",
        "float_input_dim": 4,
        "nn": {"iqn": {"embeding_dimension": 64}},
    })
except iqn_blocks.ConfigError as error:
    print(error)
# 2 faults in the configuration:
# - n_actions: found '12' (str); accepted: a whole number from 1 to 65536, or a list of \
these; write it without quotes
# - nn.iqn.embeding_dimension: unknown key; did you mean embedding_dimension?
```

A key that was set to another value than its default, and that the network does not read, gives an
`UnusedConfigWarning` with its path; with `build(cfg, strict=True)` an error. Not so
`nn.vis.freeze`, and the keys for trainers: `nn.training`, `nn.iqn.kappa`,
`nn.decoder.shared_trunk_freeze` and the Munchausen keys.
[Losses](losses.md#from-the-configuration) tells how to pass those on.

## Keys

`{}` stands for a block of defaults.
"""

BELOW = """\
## Which network is built

`nn.topology` names it. Without a name:

| `nn.fusion_mode` | image branch | topology |
|---|---|---|
| `vision_transformer`, `post_concat`, `unified` | any | `multimodal` |
| `none` | `nn.vis.transformer` with `use_hf_backbone: true` | `hf_vision` |
| `none` | `nn.vis.cnn`, or `nn.vis.no_image: true` | `classic` |
| `none` | `nn.vis.transformer`, native | none: choose another `fusion_mode`, or `use_hf_backbone` |

## Rules between keys

A rule holds where the network has the parts it is about.

- One part a slot: `nn.vis.cnn`, `nn.vis.transformer` and the named stems exclude each other; so do
  the parts of a decoder slot, and those of `nn.float`.
- `float_inputs_mean` and `float_inputs_std` have `float_input_dim` numbers each.
- `float_input_dim: 0` needs a classic network with an image.
- The image is at least 34 × 34 for the 4-layer CNN, 36 × 36 for the stem `nature`, 3 × 3 for
  `minatar`; the others take any size.
- A stem with the readout `tokens` needs `fusion_mode: unified`, or `post_concat` with
  `post_concat_layout: token_sequence`.
- `patch_size` divides width and height. A Hugging Face vision model takes 1 or 3 channels.
- `n_heads` divides `d_model` in every native transformer; `d_model` of a decoder slot divides the
  state width `D`.
- `unified` with a native vision transformer: `nn.vis.transformer.d_model` equals
  `nn.encoder.transformer.d_model`.
- `fusion_tokens: patch_tokens` in `post_concat` needs `post_concat_layout: token_sequence`.
- `float_token_layout: per_feature` needs `post_concat_layout: token_sequence` and
  `float_token_input: raw`.
- `nn.vis.transformer.use_hf_backbone` needs a `model_name_or_path`.
- A `hf_embedding` trunk needs a path in `nn.encoder.hf_embedding` or `nn.encoder.transformer`, not
  two different ones.
- `nn.encoder.transformer.use_hf_backbone` excludes `fusion_encoder: native_transformer`.
- `nn.topology`, where it names one of the three, names the one that the other keys describe.
- The network has at most 2³¹ parameters, counted before anything is allocated.

What no network has: Hugging Face models in decoder slots, and `decoder.shared_input: pre_tau`.

## Kept for trackmania_rl

Configurations of trackmania_rl, which trains agents for the racing game TrackMania, use some keys
that a new one can do without; [Bring your checkpoint](checkpoints_trackmania.md) reads its files.
`nn.encoder.mlp` has the keys of `nn.float.mlp`, over which it wins. A key of `btr` that is given in
`nn.vis.cnn` too counts as there; with another value the one in `btr` is reported as not read. `w`
and `h` are other names of `width` and `height`, `hidden` of `hidden_dim`, and `layers` of
`n_hidden_layers`.
"""


# Keys that trackmania_rl alone needs: they have a table of their own.
KEPT = {
    *(("btr", key) for key in CNN_KEYS_OF_BTR),
    ("nn", "training"),
    ("nn.decoder", "shared_input"),
    ("nn.decoder", "shared_trunk_freeze"),
    ("nn.encoder", "mlp"),
}
COLUMNS = "| key | accepted | default | meaning |\n|---|---|---|---|"


def blocks(block: type[Block], path: str = "") -> dict[type[Block], list[str]]:
    """Every block with all places where it occurs, from the top down."""
    found = {block: [path]}
    for key in block.model_fields:
        inner = block.child(key)
        if inner is not None:
            for below, places in blocks(inner, f"{path}.{key}".strip(".")).items():
                found.setdefault(below, []).extend(places)
    return found


def default(block: type[Block], key: str) -> str:
    """The default as one writes it in YAML."""
    field = block.model_fields[key]
    if field.is_required():
        return "required"
    # Top-level defaults are known without the keys that are required there.
    value = field.get_default(call_default_factory=True)
    if block is not Config:
        value = getattr(block(), key)
    return "`{}`" if isinstance(value, Block) else f"`{json.dumps(thaw(value), default=_options)}`"


def _options(part: Part) -> dict[str, Any]:
    options: dict[str, Any] = thaw(part.options)
    return options


def row(block: type[Block], key: str, where: str = "") -> str:
    """The row of one key; ``where`` follows its name."""
    field, inner, kind = block.model_fields[key], block.child(key), block.kind(key)
    accepted = "a block" if kind is None else kind.accepts
    if inner is not None and field.annotation is not inner:
        accepted += ", or null"
    if isinstance(kind, PartsOf):
        return f"| a [part](parts.md)'s name | {accepted} | – | {field.description} |"
    return f"| `{key}`{where} | {accepted} | {default(block, key)} | {field.description} |"


def page() -> str:
    """The whole page."""
    sections, kept = [ABOVE], [COLUMNS]
    for block, places in blocks(Config).items():
        own = [place for place in places if tuple(place.rpartition(".")[::2]) not in KEPT]
        title = ", ".join(f"`{place}`" for place in own if place) or "Top level"
        text = (block.__doc__ or "").split("\n\n")[0]
        rows = [row(block, key) for key in block.model_fields if (own[0], key) not in KEPT]
        sections.append("\n".join([f"### {title}\n\n{text}\n", COLUMNS, *rows, ""]))
        keys = [key for key in block.model_fields if (own[0], key) in KEPT]
        kept += [row(block, key, f" in `{own[0]}`") for key in keys]
    return "\n".join([*sections, BELOW, *kept, ""])
