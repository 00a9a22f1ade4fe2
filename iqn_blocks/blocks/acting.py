"""Blocks of a network that only acts: the forward of each is one short program.

Acting on one observation, a CPU spends as much time between the operations of a tree of modules as
in the smaller ones of them. A program is a chain of calls that know their weights.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from itertools import chain
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from iqn_blocks.blocks.chain import is_untouched, nobody_watches
from iqn_blocks.blocks.dense import HiddenLayer
from iqn_blocks.blocks.floats import FloatMLP, FloatNormalization
from iqn_blocks.blocks.packed import (
    Step,
    can_pack,
    convolution,
    encoder_layer,
    hidden_layer,
    in_turn,
    residual_block,
)
from iqn_blocks.blocks.pool import HalvingMaxPool
from iqn_blocks.blocks.stems import ConvStem, ImageStem, ImpalaStage, ImpalaStem, ResidualBlock
from iqn_blocks.blocks.transformer import EncoderLayer, SelfAttention
from iqn_blocks.functional import normalize_image


class Acting(nn.Module):
    """Comes before a block's class and gives it a program; after changes of weights :meth:`pack`.

    The block's own forward runs where gradients, autocast, a compiler or whatever else watches
    operations want it, and on devices and in dtypes for which nothing can be packed.
    """

    program: Step | None = None

    def forward(self, x: Tensor) -> Tensor:
        program = self.program
        if program is None or self.training or x.requires_grad or not nobody_watches(x):
            return self.plain(x)
        return program(x)

    def plain(self, x: Tensor) -> Tensor:
        """The block's own forward."""
        out: Tensor = super().forward(x)
        return out

    def pack(self) -> None:
        """Take over what the parameters hold now."""
        weight = next(chain(self.parameters(), self.buffers()))
        self.program = self._write() if can_pack(weight) else None

    def _write(self) -> Step | None:
        """A program for the parameters as they are; None where the block's own forward serves."""
        raise NotImplementedError

    # Packed weights have no storage of their own to move, copy or pickle: they are made again.

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]  # torch leaves it untyped
        self.pack()
        return self

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "program": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)  # type: ignore[no-untyped-call]  # likewise
        self.pack()


class PairNorm(nn.LayerNorm):
    """The layer normalisations of two equally wide halves: ``(R, H)`` in and out."""

    def forward(self, x: Tensor) -> Tensor:
        halves = x.view(x.shape[0], 2, x.shape[1] // 2)
        normalized = F.layer_norm(halves, halves.shape[2:], eps=self.eps).view(x.shape)
        return torch.addcmul(self.bias, normalized, self.weight)


class ActingConvStem(Acting, ConvStem):
    """A :class:`ConvStem` that only acts."""

    def _write(self) -> Step:
        slope = getattr(self.activation, "negative_slope", 0.0)
        size, steps = self.image_size, []
        for conv in self.convs:
            assert isinstance(conv, nn.Conv2d)
            size = _size_after(conv, size)
            steps.append(convolution(conv, size, slope))
        return _around(self, steps)


class ActingImpalaStem(Acting, ImpalaStem):
    """An :class:`ImpalaStem` that only acts."""

    def _write(self) -> Step:
        (height, width), steps = self.image_size, list[Step]()
        for stage in self.stages:
            assert isinstance(stage, ImpalaStage)
            steps += [convolution(stage.conv, (height, width)), stage.pool.forward]
            height, width = (height + 1) // 2, (width + 1) // 2
            for block in stage.blocks:
                assert isinstance(block, ResidualBlock)
                steps.append(residual_block(block, (height, width)))
        return _around(self, [*steps, torch.relu_])


class ActingHiddenLayer(Acting, HiddenLayer):
    """A :class:`HiddenLayer` that only acts."""

    def _write(self) -> Step:
        return hidden_layer(self)


class ActingFloatNormalization(Acting, FloatNormalization):
    """A :class:`FloatNormalization` that only acts."""

    def _write(self) -> Step:
        mean, std = self.mean, self.std
        return lambda floats: (floats.to(mean.dtype) - mean) / std


class ActingFloatMLP(Acting, FloatMLP):
    """A :class:`FloatMLP` that only acts."""

    def _write(self) -> Step:
        dtype = next(self.parameters()).dtype
        steps = []
        for layer in self.layers:
            assert isinstance(layer, HiddenLayer)
            steps.append(hidden_layer(layer))
        return in_turn([lambda floats: floats.to(dtype), *steps])


class ActingEncoderLayer(Acting, EncoderLayer):
    """An :class:`EncoderLayer` that only acts."""

    def _write(self) -> Step:
        return encoder_layer(self)


_POOL = nn.Identity, nn.AdaptiveMaxPool2d

# For each block its class for acting, and the parts that it must have, so that a program is whole.
_ACTING: dict[type[nn.Module], tuple[type[Acting], dict[str, tuple[type[nn.Module], ...]]]] = {
    ConvStem: (
        ActingConvStem,
        {
            "pool": _POOL,
            "convs": (nn.ModuleList,),
            "convs.*": (nn.Conv2d,),
            "activation": (nn.LeakyReLU, nn.ReLU),
        },
    ),
    ImpalaStem: (
        ActingImpalaStem,
        {
            "pool": _POOL,
            "stages": (nn.Sequential,),
            "stages.*": (ImpalaStage,),
            "stages.*.conv": (nn.Conv2d,),
            "stages.*.pool": (HalvingMaxPool,),
            "stages.*.blocks": (nn.Sequential,),
            "stages.*.blocks.*": (ResidualBlock,),
            "stages.*.blocks.*.conv1": (nn.Conv2d,),
            "stages.*.blocks.*.conv2": (nn.Conv2d,),
        },
    ),
    HiddenLayer: (
        ActingHiddenLayer,
        {"linear": (nn.Linear,), "norm": (nn.LayerNorm, PairNorm)},
    ),
    FloatNormalization: (ActingFloatNormalization, {}),
    FloatMLP: (
        ActingFloatMLP,
        {
            "layers": (nn.Sequential,),
            "layers.*": (HiddenLayer,),
            "layers.*.linear": (nn.Linear,),
            "layers.*.norm": (nn.LayerNorm,),
        },
    ),
    EncoderLayer: (
        ActingEncoderLayer,
        {
            "self_attn": (SelfAttention,),
            "self_attn.out_proj": (nn.Linear,),
            "linear1": (nn.Linear,),
            "linear2": (nn.Linear,),
            "norm1": (nn.LayerNorm,),
            "norm2": (nn.LayerNorm,),
            "dropout": (nn.Dropout,),
        },
    ),
}


def make_acting(root: nn.Module) -> None:
    """Give the blocks inside ``root`` their programs, in place and under the same names.

    A block with a part of the user's own, or with hooks, stays as it is.
    """
    for block in root.children():
        acting, parts = _ACTING.get(type(block), (None, {}))
        if acting is None or not _has_the_usual(block, parts):
            make_acting(block)
        else:
            block.__class__ = acting
        if isinstance(block, Acting):
            watch: Any = block.register_load_state_dict_post_hook  # torch leaves it untyped
            watch(_pack_again)
            block.pack()


def pack(root: nn.Module) -> None:
    """Let the acting blocks inside ``root`` take over what their parameters hold now."""
    for block in reversed(list(root.modules())):  # a program may hold those of its parts
        if isinstance(block, Acting):
            block.pack()


def _pack_again(block: Acting, _: object) -> None:
    block.pack()


def _has_the_usual(block: nn.Module, parts: dict[str, tuple[type[nn.Module], ...]]) -> bool:
    """Whether a block consists of these parts, none of which is unusual or has hooks."""
    if not is_untouched(block, type(block)):
        return False
    for name, part in block.named_modules():
        kinds = parts.get(re.sub(r"\b\d+\b", "*", name), ())
        if name and not (is_untouched(part, *kinds) and _is_usual(part)):
            return False
    return True


def _is_usual(part: nn.Module) -> bool:
    """Whether a layer has the options that the blocks of this library set."""
    if isinstance(part, nn.Conv2d):
        usual = part.bias is not None and part.groups == 1 and part.dilation == (1, 1)
        return usual and part.padding_mode == "zeros" and not isinstance(part.padding, str)
    return not isinstance(part, nn.LayerNorm | nn.Linear) or part.bias is not None


def _size_after(conv: nn.Conv2d, size: tuple[int, int]) -> tuple[int, int]:
    padding = map(int, conv.padding)
    height, width = (
        (side + 2 * pad - kernel) // stride + 1
        for side, pad, kernel, stride in zip(
            size, padding, conv.kernel_size, conv.stride, strict=True
        )
    )
    return height, width


def _around(stem: ImageStem, steps: Iterable[Step]) -> Step:
    """The program of a stem whose feature maps ``steps`` compute."""
    dtype, scaling = stem.first_conv.weight.dtype, stem.uint8_scaling
    features, pool = in_turn(list(steps)), stem.pool

    def program(img: Tensor) -> Tensor:
        img = normalize_image(img, dtype, scaling)
        img = img.contiguous(memory_format=torch.channels_last)
        return torch.flatten(pool.forward(features(img)), 1)

    return program
