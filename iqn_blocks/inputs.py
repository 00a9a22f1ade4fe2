"""What a network accepts as input, checked by shape, dtype and device alone."""

from __future__ import annotations

from typing import NamedTuple, cast

import torch
from torch import Tensor


class InputSpec(NamedTuple):
    """Shapes of the inputs: ``image_shape`` is ``(C, H, W)``, ``None`` for float-only networks.

    An empty one checks nothing.
    """

    image_shape: tuple[int, int, int] | None = None
    n_floats: int = 0
    any_image_size: bool = False

    def check(self, img: Tensor | None, floats: Tensor | None) -> int:
        """The batch size ``B``.

        Raises:
            TypeError: an input is missing or has an unusable dtype.
            ValueError: an input has another shape, or the two differ in batch size or device.
        """
        if self == InputSpec():
            if img is None and floats is None:
                raise TypeError("img, floats: both are None; pass what the encoder takes")
            return len(cast(Tensor, floats if img is None else img))
        if self.image_shape is not None:
            self._check_image(img)
        if self.n_floats:
            self._check_floats(floats)
        elif floats is not None:
            raise ValueError(
                f"floats: this network takes none (float_input_dim is 0), got shape "
                f"{tuple(floats.shape)}; pass None"
            )
        if self.image_shape is None or img is None:
            assert floats is not None
            return floats.shape[0]
        if floats is not None:
            _check_agreement(img, floats)
        return img.shape[0]

    def example(self, batch: int) -> tuple[Tensor | None, Tensor | None]:
        """Random ``img`` in [−1, 1) and ``floats ~ N(0, 1)``, the same ones at each call."""
        if self == InputSpec():
            raise ValueError(
                "example_inputs: this network was made by hand without inputs; pass "
                "inputs=InputSpec(image_shape=(C, H, W), n_floats=F) to IQN"
            )
        generator = torch.Generator().manual_seed(0)
        img = floats = None
        if self.image_shape is not None:
            img = torch.rand((batch, *self.image_shape), generator=generator) * 2 - 1
        if self.n_floats:
            floats = torch.randn((batch, self.n_floats), generator=generator)
        return img, floats

    def _check_image(self, img: Tensor | None) -> None:
        assert self.image_shape is not None
        channels, height, width = self.image_shape
        sides = "H, W" if self.any_image_size else f"{height}, {width}"
        expected = f"shape (B, {channels}, {sides}), floating or uint8"
        if not isinstance(img, Tensor):
            raise TypeError(f"img: expected a tensor of {expected}, got {type(img).__name__}")
        if not (img.is_floating_point() or img.dtype == torch.uint8):
            raise TypeError(f"img: expected a tensor of {expected}, got {img.dtype}")
        fits = img.ndim == 4 and img.shape[1] == channels
        if not fits or (tuple(img.shape[2:]) != (height, width) and not self.any_image_size):
            raise ValueError(f"img: expected {expected}, got shape {tuple(img.shape)}")

    def _check_floats(self, floats: Tensor | None) -> None:
        expected = f"shape (B, {self.n_floats}), floating"
        if not isinstance(floats, Tensor):
            raise TypeError(
                f"floats: expected a tensor of {expected}, got {type(floats).__name__}; floats are "
                f"the second argument, after the image or None"
            )
        if not floats.is_floating_point():
            raise TypeError(f"floats: expected a tensor of {expected}, got {floats.dtype}")
        if floats.ndim != 2 or floats.shape[1] != self.n_floats:
            raise ValueError(f"floats: expected {expected}, got shape {tuple(floats.shape)}")


def _check_agreement(img: Tensor, floats: Tensor) -> None:
    if img.shape[0] != floats.shape[0]:
        raise ValueError(
            f"img and floats: batch sizes differ, {tuple(img.shape)} against {tuple(floats.shape)}"
        )
    if img.device != floats.device:
        raise ValueError(f"img and floats: devices differ, {img.device} against {floats.device}")
