"""A pretrained sequence model as trunk: tokens in, one vector out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from iqn_blocks.blocks.tokens import projection
from iqn_blocks.errors import ConfigError
from iqn_blocks.hf.loading import plain_config
from iqn_blocks.hf.pruning import label, one_row, probe

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class HFTrunk(nn.Module):
    """The mean of encoded tokens, projected back: ``(B, T, d) -> (B, d)``.

    ``output_projection(mean(backbone(dropout(input_projection(tokens)))))``. The backbone gets its
    input as ``inputs_embeds``, with an attention mask of ones; its word embeddings are removed. The
    output projection is left out if the hidden width is ``d``.

    Raises:
        ConfigError: the model takes no ``inputs_embeds``, or has fewer positions than ``n_tokens``;
            ``key`` is what the message calls it by.
    """

    def __init__(
        self,
        backbone: PreTrainedModel,
        n_tokens: int,
        d_model: int,
        *,
        dropout: float = 0.0,
        key: str = "backbone",
    ) -> None:
        super().__init__()
        positions = _positions(backbone)
        if positions is not None and n_tokens > positions:
            raise ConfigError(
                f"{key}: found {label(backbone)} with {positions} positions, but the network has "
                f"{n_tokens} tokens; accepted: at most {positions}; name a model with "
                "more positions, or reduce the tokens"
            )
        embedding: Any = backbone.get_input_embeddings()
        width = int(embedding.weight.shape[1])
        self.input_projection = nn.Linear(d_model, width)
        self.dropout = nn.Dropout(dropout)
        self.backbone = backbone
        zeros = embedding.weight.new_zeros(1, n_tokens, width)
        hidden = probe(backbone, lambda: self._last_hidden_state(zeros), "inputs_embeds", key)
        self.output_projection = projection(hidden.shape[-1], d_model)

    def forward(self, tokens: Tensor) -> Tensor:
        embeddings: Tensor = self.dropout(self.input_projection(tokens))
        if embeddings.shape[0] == 0:
            hidden = self._last_hidden_state(one_row(embeddings))[:0]
        else:
            hidden = self._last_hidden_state(embeddings)
        out: Tensor = self.output_projection(hidden.mean(1))
        return out

    def recipe(self) -> dict[str, Any]:
        """``config`` as plain data, from which the model is rebuilt without its weights."""
        return {"config": plain_config(self.backbone)}

    def _last_hidden_state(self, embeddings: Tensor) -> Tensor:
        mask = torch.ones(embeddings.shape[:2], dtype=torch.long, device=embeddings.device)
        out: Tensor = self.backbone(inputs_embeds=embeddings, attention_mask=mask).last_hidden_state
        return out


def _positions(backbone: Any) -> int | None:
    """The number of positions of a model; None without a limit."""
    limit = getattr(backbone.config, "max_position_embeddings", None)
    for name, module in backbone.named_modules():
        padding = getattr(module, "padding_idx", None)
        if name.endswith("position_embeddings") and padding is not None:
            limit = module.num_embeddings - padding - 1  # RoBERTa's start at padding_idx + 1
    return limit if limit is not None and limit > 0 else None
