"""Blocks of a network that only acts: the forward of each is one short program.

Acting on one observation, a CPU spends as much time between the operations of a tree of modules as
in the smaller ones of them. A program is a chain of calls that know their weights.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import chain
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from iqn_blocks.blocks.chain import Linear
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

    The block's own forward runs where gradients, autocast or a compiler want it, and on devices and
    in dtypes for which nothing can be packed.
    """

    program: Step | None = None

    def forward(self, x: Tensor) -> Tensor:
        program = self.program
        if (
            program is None
            or self.training
            or x.requires_grad
            or torch.compiler.is_compiling()
            or torch.is_autocast_enabled("cpu")
        ):
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
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        self.pack()


class PairNorm(nn.LayerNorm):
    """The layer normalisations of two equally wide halves: ``(R, H)`` in and out."""

    def forward(self, x: Tensor) -> Tensor:
        halves = x.view(x.shape[0], 2, -1)
        normalized = F.layer_norm(halves, halves.shape[2:], eps=self.eps).view(x.shape)
        return torch.addcmul(self.bias, normalized, self.weight)


class ActingConvStem(Acting, ConvStem):
    """A :class:`ConvStem` that only acts."""

    def _write(self) -> Step:
        activation: nn.Module = self.activation
        slope = None
        if not isinstance(activation, nn.Identity):
            slope = getattr(activation, "negative_slope", 0.0)
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


_ACTING: dict[type[nn.Module], type[Acting]] = {
    ConvStem: ActingConvStem,
    ImpalaStem: ActingImpalaStem,
    HiddenLayer: ActingHiddenLayer,
    FloatNormalization: ActingFloatNormalization,
    FloatMLP: ActingFloatMLP,
    EncoderLayer: ActingEncoderLayer,
}
# What the parts of those may be, so that each program is whole.
_PARTS = {
    *_ACTING,
    *(ImpalaStage, ResidualBlock, HalvingMaxPool, SelfAttention, PairNorm),
    *(nn.Conv2d, nn.Linear, Linear, nn.LayerNorm, nn.ReLU, nn.LeakyReLU, nn.Dropout),
    *(nn.AdaptiveMaxPool2d, nn.Identity, nn.Sequential, nn.ModuleList),
}


def make_acting(root: nn.Module) -> None:
    """Give the blocks inside ``root`` their programs, in place and under the same names.

    A block with a part of the user's own, or with hooks, stays as it is.
    """
    for block in root.children():
        acting = _ACTING.get(type(block))
        if acting is None or not all(map(_is_plain, block.modules())):
            make_acting(block)
        else:
            block.__class__ = acting
        if isinstance(block, Acting):
            block.register_load_state_dict_post_hook(_pack_again)  # type: ignore[no-untyped-call]
            block.pack()


def pack(root: nn.Module) -> None:
    """Let the acting blocks inside ``root`` take over what their parameters hold now."""
    for block in reversed(list(root.modules())):  # a program may hold those of its parts
        if isinstance(block, Acting):
            block.pack()


def _pack_again(block: Acting, _: object) -> None:
    block.pack()


def _is_plain(part: nn.Module) -> bool:
    return type(part) in _PARTS and not (
        part._forward_hooks or part._forward_pre_hooks or _is_unusual(part)
    )


def _is_unusual(part: nn.Module) -> bool:
    """A layer's options that the blocks of this library never set."""
    if isinstance(part, nn.Conv2d):
        plain = part.bias is not None and part.groups == 1 and part.dilation == (1, 1)
        return not plain or part.padding_mode != "zeros"
    return isinstance(part, nn.LayerNorm | nn.Linear) and part.bias is None


def _size_after(conv: nn.Conv2d, size: tuple[int, int]) -> tuple[int, int]:
    height, width = (
        (side - kernel) // stride + 1
        for side, kernel, stride in zip(size, conv.kernel_size, conv.stride, strict=True)
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
