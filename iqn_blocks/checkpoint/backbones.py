"""Checks of the Hugging Face models in a checkpoint, before they are built."""

from __future__ import annotations

from iqn_blocks.checkpoint.reading import Checkpoint
from iqn_blocks.config import Config, route, trunk, vision_branch
from iqn_blocks.errors import CheckpointError
from iqn_blocks.hf.foreign import items, leads_elsewhere
from iqn_blocks.hf.models import Recipes

_KEYS = {"vision": {"config", "processor"}, "trunk": {"config"}}


def checked_recipes(checkpoint: Checkpoint, *, built_in: bool, trust_remote_code: bool) -> Recipes:
    """The recipes of a checkpoint, if every model can be rebuilt from them without other code.

    A folder may come from anybody: only the caller decides whether code in it is trusted.

    Raises:
        CheckpointError: a model has no entry, an entry has no model, or one needs code of its own
            that ``trust_remote_code`` does not allow.
    """
    manifest, path = checkpoint.manifest, checkpoint.source
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
    # A user's own encoder loads its models itself, by the configuration.
    own = not built_in and any(
        name == "trust_remote_code" and value is True
        for name, value, _ in items(manifest.config.to_dict())
    )
    given = backbones if built_in else {}
    keys_elsewhere = filter(None, (leads_elsewhere(e["config"]) for e in given.values()))
    elsewhere = next(keys_elsewhere, "trust_remote_code" if own else "")
    if elsewhere and not trust_remote_code:
        raise CheckpointError(
            f"{path}: a Hugging Face model in this network needs code of its own or files, from "
            f"outside this folder (its configuration holds {elsewhere}); if you "
            f"have read that code, pass trust_remote_code=True"
        )
    recipes = {}
    for name, entry in given.items():
        recipes[name] = {**entry, "trust_remote_code": trust_remote_code}
        if not trust_remote_code:  # foreign code may not run on meta, where sizes are compared
            start = f"encoder.{name}.backbone."
            recipes[name]["sizes"] = {
                key.removeprefix(start): tensor.shape
                for key, tensor in checkpoint.tensors.items()
                if key.startswith(start)
            }
    return recipes


def _expected(config: Config) -> dict[str, set[str]]:
    is_multimodal = route(config) == "multimodal"
    pretrained = {
        "vision": vision_branch(config) == "hf_transformer",
        "trunk": is_multimodal and trunk(config) == "hf_embedding",
    }
    return {name: _KEYS[name] for name in pretrained if pretrained[name]}


def _in_words(keys: dict[str, set[str]]) -> str:
    return ", ".join(f"{name} ({', '.join(sorted(k))})" for name, k in keys.items()) or "none"
