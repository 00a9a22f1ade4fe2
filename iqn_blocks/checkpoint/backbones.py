"""What a checkpoint says of the Hugging Face models in its network, checked before it is used."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from iqn_blocks.checkpoint.format import Manifest
from iqn_blocks.config import Config, route, trunk, vision_branch
from iqn_blocks.errors import CheckpointError
from iqn_blocks.hf.loading import items, leads_elsewhere
from iqn_blocks.hf.models import Recipes

_KEYS = {"vision": {"config", "processor"}, "trunk": {"config"}}


def checked_recipes(
    manifest: Manifest,
    tensors: Mapping[str, Tensor],
    path: Path,
    *,
    built_in: bool,
    trust_remote_code: bool,
) -> Recipes:
    """The recipes in ``path``, once every model can be rebuilt from them without other code.

    A folder may come from anybody: what it says of trust does not count, what the caller says does.

    Raises:
        CheckpointError: a model has no entry, an entry has no model, or one needs code of its own
            that ``trust_remote_code`` does not allow.
    """
    backbones = manifest.backbones
    keys = {
        name: {key for key in entry if isinstance(entry[key], dict)}
        for name, entry in backbones.items()
        if isinstance(entry, dict)
    }
    if built_in and (keys != _expected(manifest.config) or len(keys) != len(backbones)):
        raise CheckpointError(
            f"{path}: backbones: expected {_in_words(_expected(manifest.config))}, found "
            f"{_in_words(keys)}"
        )
    # An encoder of the user's own loads models as the configuration says.
    own = not built_in and any(
        name == "trust_remote_code" and value is True
        for name, value, _ in items(manifest.config.to_dict())
    )
    given = backbones if built_in else {}
    found = next(filter(None, (leads_elsewhere(entry["config"]) for entry in given.values())), "")
    if (own or found) and not trust_remote_code:
        raise CheckpointError(
            f"{path}: a Hugging Face model in this network needs code of its own or files, from "
            f"outside this folder (its configuration holds {found or 'trust_remote_code'}); if you "
            f"have read that code, pass trust_remote_code=True"
        )
    recipes = {}
    for name, entry in given.items():
        start = f"encoder.{name}.backbone."
        sizes = {k.removeprefix(start): t.shape for k, t in tensors.items() if k.startswith(start)}
        recipes[name] = {**entry, "trust_remote_code": trust_remote_code}
        if not trust_remote_code:  # such code may not run on meta, where sizes are compared
            recipes[name]["sizes"] = sizes
    return recipes


def _expected(config: Config) -> dict[str, set[str]]:
    is_multimodal = route(config) == "multimodal"
    there = {
        "vision": vision_branch(config) == "hf_transformer",
        "trunk": is_multimodal and trunk(config) == "hf_embedding",
    }
    return {name: _KEYS[name] for name, is_there in there.items() if is_there}


def _in_words(keys: dict[str, set[str]]) -> str:
    return ", ".join(f"{name} ({', '.join(sorted(k))})" for name, k in keys.items()) or "none"
