"""Conversion of numpy arrays and PIL images to batches of one, and of a result back to the original kind."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from stn import _check
from stn.io.pictures import closed, opened, premultiplied, straight

CHANNELS = (1, 3, 4)  # lengths of a last axis that holds colors
Restore = Callable[[Tensor], Any]  # (1, C, *size) -> the original kind


def to_images(name: str, value: Any) -> tuple[Tensor, Restore]:
    """Return images (N, C, *size) in floating point, and the function back to the kind, axes and dtype of `value`.

    value: a tensor (N, C, H, W) or (N, C, D, H, W), unchanged if it is floating point; an array (H, W), (H, W, C) with
    C = 1, 3 or 4, or a volume (D, H, W); or a PIL image. Integers are divided by the maximum of their dtype, in float64
    if float32 cannot represent all of them; the sign is kept.

    Raises: InputError or TypeError, which name the argument.
    """
    if isinstance(value, Tensor):
        _check.image(name, value)
        _check.averaged(name, value)
        images = value.float() / 255 if value.dtype == torch.uint8 else value
        return images, lambda found: _in_range(found, torch.uint8) if value.dtype == torch.uint8 else found
    pillow = sys.modules.get("PIL.Image")  # a PIL image exists only if PIL is imported
    if pillow is not None and isinstance(value, pillow.Image):
        return _from_picture(name, value)
    if not isinstance(value, np.ndarray):
        _check.fail(f"{name} must be a torch.Tensor, a numpy array or a PIL image; got {type(value).__name__}")
    return _from_array(name, value)


def _from_picture(name: str, picture: Any) -> tuple[Tensor, Restore]:
    """Convert like `stn.io.pictures`, colors times opacity; the way back makes a picture of the same mode, or L, RGB, .."""
    pixels, kind = opened(name, picture)
    images = premultiplied(pixels[None]) if kind.transparent else pixels[None]

    def restore(found: Tensor) -> Any:
        return closed((straight(found) if kind.transparent else found)[0], kind)

    return images, restore


def _from_array(name: str, array: np.ndarray) -> tuple[Tensor, Restore]:
    if array.dtype.kind not in "fuib":
        _check.fail(f"{name} must be an array of real numbers; got one of {array.dtype}")
    if array.ndim not in (2, 3) or 0 in array.shape:
        _check.fail(f"{name} must be (H, W), (H, W, C) with C = 1, 3 or 4, or a volume (D, H, W); got {array.shape}")
    wide = array.dtype.itemsize > (2 if array.dtype.kind in "ui" else 4)  # for any byte order
    pixels = torch.from_numpy(array.astype(np.float64 if wide else np.float32))
    if array.dtype.kind in "ui":
        pixels /= float(np.iinfo(array.dtype).max)
    colors = array.ndim == 3 and array.shape[-1] in CHANNELS
    images = pixels.movedim(-1, 0)[None] if colors else pixels[None, None]

    def restore(found: Tensor) -> np.ndarray:
        found = found.detach().cpu()
        found = found[0].movedim(0, -1) if colors else found[0, 0]
        return _of_dtype(found.contiguous().numpy(), array.dtype)

    return images, restore


def _of_dtype(values: np.ndarray, dtype: np.dtype) -> np.ndarray:
    if dtype.kind == "f":
        return values.astype(dtype)
    if dtype.kind == "b":
        return values.round().clip(0, 1).astype(dtype)
    least, most = np.iinfo(dtype).min, np.iinfo(dtype).max
    numbers = (values.astype(np.float64) * most).round()
    inside = numbers.clip(float(least), np.nextafter(float(most), 0))  # 2^63 and 2^64 exceed their dtype
    return np.where(numbers >= most, np.array(most, dtype), inside.astype(dtype)).astype(dtype)


def _in_range(values: Tensor, dtype: torch.dtype) -> Tensor:
    return (values.clamp(0, 1) * torch.iinfo(dtype).max).round().to(dtype)
