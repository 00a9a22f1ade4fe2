"""Pretrained vision models: a frame as one vector, or as tokens.

``recipe()`` is plain data that rebuilds the model without its weights. Parts that the tokens do not
depend on, such as a pooler, are removed from the model.
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any, Literal

from torch import Tensor, nn

from iqn_blocks._arguments import check_choice
from iqn_blocks.blocks.tokens import as_tokens, projection
from iqn_blocks.errors import ConfigError
from iqn_blocks.hf.loading import plain_config
from iqn_blocks.hf.processor import PixelValues
from iqn_blocks.hf.pruning import label, one_row, probe

if TYPE_CHECKING:
    from transformers import PreTrainedModel

SummaryToken = Literal["auto", "first", "mean"]

CLASS_TOKENS = ("cls_token", "class_token", "class_embedding")  # names of its parameter in models


class HFVision(nn.Module):
    """Tokens of a pretrained vision model: ``(B, C, H, W) -> (B, T, hidden_dim)``.

    The base of :class:`HFVisionVector` and :class:`HFVisionTokens`. Tokens are
    ``last_hidden_state``, or the positions of a feature map ``(B, C', H', W')``. Their summary is
    the ``"first"`` or the ``"mean"`` token. With ``summary_token="auto"`` it is the class token,
    which is the first, or the mean token of a model without one.

    Raises:
        ConfigError: the model takes no ``pixel_values`` of that size, or gives no tokens; ``key``
            is what the message calls it by.
        ValueError: an unknown ``summary_token``.
    """

    def __init__(
        self,
        backbone: PreTrainedModel,
        pixels: PixelValues,
        *,
        summary_token: SummaryToken = "auto",
        key: str = "backbone",
    ) -> None:
        super().__init__()
        check_choice("summary_token", summary_token, SummaryToken)
        self.pixels = pixels
        self.backbone = backbone
        accepted = inspect.signature(backbone.forward).parameters
        size = pixels.spec.size
        resized = _image_size(backbone) != size and "interpolate_pos_encoding" in accepted
        self._extra: dict[str, Any] = {"interpolate_pos_encoding": True} if resized else {}
        zeros = next(backbone.parameters()).new_zeros(1, 3, *size)
        out = probe(backbone, lambda: self._last_hidden_state(zeros), "pixel_values", key)
        if out.ndim not in (3, 4):
            raise ConfigError(
                f"{key}: found {label(backbone)}, whose last_hidden_state has shape "
                f"{tuple(out.shape)}; accepted: tokens (B, T, d) or a map (B, d, H, W); name "
                "another model"
            )
        self.n_tokens, self.hidden_dim = _sequence(out).shape[1:]
        self.has_class_token = out.ndim == 3 and _has_class_token(backbone)
        self.summary_token = summary_token

    def tokens(self, img: Tensor) -> Tensor:
        """All tokens: ``(B, C, H, W) -> (B, T, hidden_dim)``."""
        pixel_values = self.pixels(img, next(self.backbone.parameters()).dtype)
        if pixel_values.shape[0] == 0:
            return _sequence(self._last_hidden_state(one_row(pixel_values)))[:0]
        return _sequence(self._last_hidden_state(pixel_values))

    def summary(self, tokens: Tensor) -> Tensor:
        """The token that ``summary_token`` names: ``(B, T, d) -> (B, d)``."""
        auto = "first" if self.has_class_token else "mean"
        summary = auto if self.summary_token == "auto" else self.summary_token
        return tokens[:, 0] if summary == "first" else tokens.mean(1)

    def recipe(self) -> dict[str, Any]:
        """``config`` and ``processor`` as plain data."""
        processor = self.pixels.spec.to_processor()
        return {"config": plain_config(self.backbone), "processor": processor}

    def _last_hidden_state(self, pixel_values: Tensor) -> Tensor:
        out: Tensor = self.backbone(pixel_values=pixel_values, **self._extra).last_hidden_state
        return out


class HFVisionVector(HFVision):
    """``refinement(projection(dropout(summary)))``: ``(B, C, H, W) -> (B, out_dim)``.

    The projection is left out if the hidden width is ``out_dim``; ``refinement`` is an encoder of
    tokens of that width, and the vector is its only token.
    """

    def __init__(
        self,
        backbone: PreTrainedModel,
        pixels: PixelValues,
        refinement: nn.Module,
        *,
        out_dim: int,
        dropout: float = 0.0,
        summary_token: SummaryToken = "auto",
        key: str = "backbone",
    ) -> None:
        super().__init__(backbone, pixels, summary_token=summary_token, key=key)
        self.n_tokens, self.out_dim = 1, out_dim
        self.dropout = nn.Dropout(dropout)
        self.projection = projection(self.hidden_dim, out_dim)
        self.refinement = refinement

    def forward(self, img: Tensor) -> Tensor:
        vector: Tensor = self.projection(self.dropout(self.summary(self.tokens(img))))
        refined: Tensor = self.refinement(as_tokens(vector))
        return refined[:, 0]


class HFVisionTokens(HFVision):
    """``token_projection(refinement(projection(dropout(tokens))))``: ``(B, C, H, W) -> (B, T, d)``.

    The first projection is to width ``d_model``, the last to ``out_dim``; each is left out if the
    width stays the same. With ``summary_only`` the summary is the only token: ``T = 1``.
    """

    def __init__(
        self,
        backbone: PreTrainedModel,
        pixels: PixelValues,
        refinement: nn.Module,
        *,
        d_model: int,
        out_dim: int,
        summary_only: bool = False,
        dropout: float = 0.0,
        summary_token: SummaryToken = "auto",
        key: str = "backbone",
    ) -> None:
        super().__init__(backbone, pixels, summary_token=summary_token, key=key)
        self.out_dim = out_dim
        self.summary_only = summary_only
        if summary_only:
            self.n_tokens = 1
        self.dropout = nn.Dropout(dropout)
        self.projection = projection(self.hidden_dim, d_model)
        self.refinement = refinement
        self.token_projection = projection(d_model, out_dim)

    def forward(self, img: Tensor) -> Tensor:
        tokens: Tensor = self.projection(self.dropout(self.tokens(img)))
        if self.summary_only:
            tokens = as_tokens(self.summary(tokens))
        out: Tensor = self.token_projection(self.refinement(tokens))
        return out


def _sequence(out: Tensor) -> Tensor:
    """Tokens as they are, a feature map ``(B, d, H, W)`` row by row as ``(B, H·W, d)``."""
    return out.flatten(2).transpose(1, 2) if out.ndim == 4 else out


def _image_size(backbone: Any) -> tuple[int, int] | None:
    size = getattr(backbone.config, "image_size", None)
    if size is None:
        return None
    height, width = size if isinstance(size, list | tuple) else (size, size)
    return height, width


def _has_class_token(backbone: nn.Module) -> bool:
    names = (name.rpartition(".")[2] for name, _ in backbone.named_parameters())
    return any(name in CLASS_TOKENS for name in names)
