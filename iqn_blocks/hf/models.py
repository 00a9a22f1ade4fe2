"""The models of pretrained parts, from a folder, the hub or a checkpoint, and the trunk slot's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NewType

import torch
from torch import nn

from iqn_blocks.hf.loading import Input, load_model, model_from_config
from iqn_blocks.hf.processor import read_processor
from iqn_blocks.hf.trunk import HFTrunk
from iqn_blocks.hf.vision import HFVision
from iqn_blocks.kinds import Bool, Probability, String
from iqn_blocks.registry import register

# What HF parts are rebuilt from without their weights, by the name of the part in the encoder
# ("vision", "trunk"): {"config": …, "processor": …}, plain data. A reader of files from others adds
# "trust_remote_code", since the file's own does not count, and "sizes" of the tensors in the file.
Recipes = Mapping[str, Mapping[str, Any]]


def recipes(encoder: nn.Module) -> dict[str, dict[str, Any]]:
    """The recipe of every pretrained part of an encoder; ``{}`` for one that has none."""
    return {
        name: part.recipe()
        for name, part in encoder.named_modules()
        if isinstance(part, HFVision | HFTrunk)
    }


class Models:
    """The source of pretrained parts: recipes where they are given, else a folder or a hub id.

    Each model is made once, even if a network is assembled twice. Parameters that the first network
    has frozen are trainable again for the second.
    """

    def __init__(self, recipes: Recipes | None = None) -> None:
        self.recipes = recipes or {}
        self._made: dict[str, Any] = {}

    def get(self, part: str, path: str, takes: Input, *, key: str, trust_remote_code: bool) -> Any:
        """The model of the part ``"vision"`` or ``"trunk"``, on the CPU.

        Raises:
            ConfigError: the model cannot be loaded.
        """
        if part not in self._made:
            recipe = self.recipes.get(part)
            with torch.device("cpu"):
                if recipe is None:
                    model = load_model(path, takes, key=key, trust_remote_code=trust_remote_code)
                else:
                    options = {k: recipe[k] for k in ("trust_remote_code", "sizes") if k in recipe}
                    model = model_from_config(
                        recipe["config"], takes, path=path, key=key, **options
                    )
            self._made[part] = model, [p.requires_grad for p in model.parameters()]
        model, trained = self._made[part]
        for parameter, flag in zip(model.parameters(), trained, strict=True):
            parameter.requires_grad_(flag)
        return model

    def processor(self, path: str, *, key: str) -> Mapping[str, Any]:
        """The processor of the part ``"vision"``."""
        recipe = self.recipes.get("vision")
        return read_processor(path, key=key) if recipe is None else recipe["processor"]


Key = NewType("Key", str)  # a dotted path, for messages; no option of a configuration


@register("hf_embedding", slot="trunk")
def hf_embedding(
    n_tokens: int,
    d_model: int,
    *,
    model_name_or_path: String = "",
    trust_remote_code: Bool = False,
    hidden_dropout_prob: Probability = 0.0,
    models: Models | None = None,
    key: Key = Key("nn.encoder.fusion_encoder"),
) -> HFTrunk:
    """A pretrained sequence model over the tokens: :class:`~iqn_blocks.blocks.HFTrunk`.

    Args:
        n_tokens: tokens ``T``.
        d_model: their width ``d``.
        model_name_or_path: hub id or folder of the Hugging Face encoder.
        trust_remote_code: let the Hugging Face encoder run code that comes with its weights.
        hidden_dropout_prob: probability of the dropout on the encoder's input.
        models: where the model comes from.
        key: what error messages call the path by.

    Raises:
        ConfigError: the model cannot be loaded, or takes fewer tokens.
    """
    model = (models or Models()).get(
        "trunk", model_name_or_path, "inputs_embeds", key=key, trust_remote_code=trust_remote_code
    )
    return HFTrunk(model, n_tokens, d_model, dropout=hidden_dropout_prob, key=key)
