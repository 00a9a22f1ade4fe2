"""What a network accepts as input."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, cast

import torch
from torch import Tensor

_FAR_OUTSIDE = 16  # no image scaled by a mean and a deviation gets there, one of 0 … 255 does


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
            given = floats if img is None else img
            if given is None:
                raise TypeError("img, floats: both are None; pass what the encoder takes")
            return given.shape[0]
        if self.image_shape is not None:
            self._check_image(img)
        if self.n_floats:
            self._check_floats(floats)
        elif floats is not None:
            raise ValueError(
                f"floats: this network takes none (float_input_dim is 0), got shape "
                f"{tuple(floats.shape)}; pass None"
            )
        if self.image_shape is None:
            return cast(Tensor, floats).shape[0]  # len() would fix it in an exported graph
        if floats is not None:
            _check_agreement(cast(Tensor, img), floats)
        return cast(Tensor, img).shape[0]

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

    def _check_image(self, img: object) -> None:
        channels, height, width = cast("tuple[int, int, int]", self.image_shape)
        sides = "H, W" if self.any_image_size else f"{height}, {width}"
        expected = f"shape (B, {channels}, {sides}), uint8, or floating in about [-1, 1]"
        img = _tensor("img", img, expected, (torch.uint8,))
        if not (img.ndim == 4 and self._is_frame(img.shape[1:])):
            raise ValueError(
                f"img: expected {expected}, got shape {tuple(img.shape)}{self._way_out(img)}"
            )

    def _is_frame(self, shape: Sequence[int]) -> bool:
        channels, height, width = cast("tuple[int, int, int]", self.image_shape)
        return shape[0] == channels and (self.any_image_size or tuple(shape[1:]) == (height, width))

    def _way_out(self, img: Tensor) -> str:
        """What makes an image of another layout one that is accepted, where that is known."""
        shape = img.shape
        if img.ndim == 4 and self._is_frame((shape[3], *shape[1:3])):
            return "; channels come before the sides: img.permute(0, 3, 1, 2)"
        if img.ndim == 3 and self._is_frame(shape):
            return "; add the axis of the batch: img[None]"
        if img.ndim == 3 and self._is_frame((shape[2], *shape[:2])):
            return "; channels come first, behind the batch: img.permute(2, 0, 1)[None]"
        if img.ndim == 3 and self._is_frame((1, *shape[1:])):
            return "; add the axis of the channels: img[:, None]"
        if img.ndim == 2 and self._is_frame((1, *shape)):
            return "; add the axes of the batch and of the channels: img[None, None]"
        return ""

    def _check_floats(self, floats: object) -> None:
        expected = f"shape (B, {self.n_floats}), floating, in raw units"
        note = "; floats are the second argument, after the image or None"
        floats = _tensor("floats", floats, expected, (), note)
        if floats.ndim != 2 or floats.shape[1] != self.n_floats:
            is_single = tuple(floats.shape) == (self.n_floats,)
            way_out = "; add the axis of the batch: floats[None]" if is_single else ""
            raise ValueError(
                f"floats: expected {expected}, got shape {tuple(floats.shape)}{way_out}"
            )


def check_values(
    img: Tensor | None,
    floats: Tensor | None,
    tau: Tensor | None = None,
    mask: Tensor | None = None,
) -> None:
    """Check the values of tensors whose shapes fit. A GPU must wait for that.

    Raises:
        ValueError: NaN or infinity anywhere; a floating image with values far outside [−1, 1]; τ
            outside [0, 1]; a mask that allows no action at all.
    """
    for name, tensor in (("img", img), ("floats", floats), ("tau", tau)):
        if tensor is not None and not tensor.isfinite().all():
            raise ValueError(
                f"{name}: found NaN or infinity; accepted: finite numbers; look for where they "
                f"come from before they reach the weights"
            )
    if img is not None and img.is_floating_point() and img.numel():
        low, high = img.min().item(), img.max().item()
        if max(-low, high) > _FAR_OUTSIDE:
            raise ValueError(
                f"img: found values from {low:.4g} to {high:.4g}; accepted: floating images that "
                f"are scaled, to about [-1, 1], or uint8 ones; pass img.to(torch.uint8), which the "
                f"network scales itself, or (img - 128) / 128"
            )
    if tau is not None and tau.numel():
        low, high = tau.min().item(), tau.max().item()
        if low < 0 or high > 1:
            raise ValueError(
                f"tau: found values from {low:.4g} to {high:.4g}; accepted: levels from 0 to 1"
            )
    if mask is not None and not mask.any(-1).all():
        rows = (~mask.any(-1)).nonzero().tolist()
        raise ValueError(
            f"mask: found no allowed action in row {rows[0]}; accepted: at least one True in each; "
            f"where all are False argmax gives action 0"
        )


def _tensor(
    name: str, x: object, expected: str, integers: tuple[torch.dtype, ...], note: str = ""
) -> Tensor:
    """``x``, if it is a floating tensor, or one of the dtypes ``integers``; else a TypeError."""
    if not isinstance(x, Tensor):
        kind = type(x).__name__
        way_out = f"; write torch.from_numpy({name})" if kind == "ndarray" else note
        raise TypeError(f"{name}: expected a tensor of {expected}, got {kind}{way_out}")
    if not (x.is_floating_point() or x.dtype in integers):
        way_out = f"{name}.to(torch.uint8)" if integers else f"{name}.float()"
        raise TypeError(
            f"{name}: expected a tensor of {expected}, got {x.dtype}; write {way_out} if its "
            f"values are such"
        )
    return x


def _check_agreement(img: Tensor, floats: Tensor) -> None:
    if img.shape[0] != floats.shape[0]:
        raise ValueError(
            f"img and floats: batch sizes differ, {tuple(img.shape)} against {tuple(floats.shape)}"
        )
    if img.device != floats.device:
        raise ValueError(f"img and floats: devices differ, {img.device} against {floats.device}")


def count_quantiles(tau: Tensor, num_quantiles: int | None, batch: int) -> int:
    """``K`` for a given ``tau``, after checking its shape and dtype."""
    if not tau.is_floating_point():
        raise TypeError(f"tau: expected a floating dtype, got {tau.dtype}")
    if tau.ndim != 2 or tau.shape[1] != 1:
        raise ValueError(f"tau: expected shape (K·B, 1) or (K, 1), got {tuple(tau.shape)}")
    rows = tau.shape[0]
    if num_quantiles is None:
        if rows == batch == 0:
            return 1
        if rows == 0 or batch == 0 or rows % batch:
            raise ValueError(
                f"tau: {rows} rows do not fit a batch of {batch}; give K·B rows, or K rows shared "
                f"by the batch together with num_quantiles=K"
            )
        return rows // batch
    if rows not in (num_quantiles, num_quantiles * batch):
        raise ValueError(
            f"tau: {rows} rows, but num_quantiles = {num_quantiles} and a batch of {batch} need "
            f"{num_quantiles * batch} (per sample) or {num_quantiles} (shared)"
        )
    return num_quantiles


def check_has_values(device: torch.device) -> None:
    """Refuse a network on the meta device where its values are needed.

    Raises:
        ValueError: ``device`` is meta.
    """
    if device.type == "meta":
        raise ValueError(
            "net: found parameters on the meta device, which have no values; load some first, as "
            "with net.to_empty(device='cpu') and net.load_state_dict(…)"
        )
