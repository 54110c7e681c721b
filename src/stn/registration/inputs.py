"""Prepare the inputs of `register`: a usual range of values, and tensors that autograd accepts."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from stn import _check
from stn.ops import Pyramid
from stn.ops.context import coordinate_dtype
from stn.space import Space, Volume
from stn.transforms import Family, Warp
from stn.transforms.base import Constants, trainable

T = TypeVar("T")

# The range of the largest value of a pair without rescaling. The losses contain fourth powers in float32: at 1/128 a
# photograph has squared variances of 1e-11, near the 1e-12 that avoid a division by zero; at 1e9 they are 1e34.
LEAST, MOST = 1 / 64, 2.0**16


def check_pair(moving: Tensor, fixed: Tensor) -> None:
    if moving.ndim != fixed.ndim or moving.shape[:2] != fixed.shape[:2]:
        expected = f"the batch size, channels and number of dimensions of fixed {tuple(fixed.shape)}"
        _check.fail(f"moving must have {expected}; got {tuple(moving.shape)}")
    _warn_of_a_picture(fixed)
    for name, image in (("moving", moving), ("fixed", fixed)):
        _check.floating(name, image)
        _check.same_device(name, image, fixed)
        if not image.isfinite().all():
            _check.fail(f"{name} must be finite; got {int((~image.isfinite()).sum())} pixels that are not finite")
        flat = image.flatten(1).amin(dim=1) == image.flatten(1).amax(dim=1)
        if flat.all():
            _check.fail(f"{name} must not be constant; all of its pixels are equal")
        if flat.any():
            samples = ", ".join(map(str, flat.nonzero().flatten().tolist()))
            warnings.warn(f"{name} is constant at sample {samples}: all pixels are equal", stacklevel=3)


def _warn_of_a_picture(fixed: Tensor) -> None:
    """Warn of one image (C, H, W), which is read as C signals: few of them, about as long as they have channels."""
    if fixed.ndim == 3 and len(fixed) in (1, 3, 4) and fixed.shape[1] >= 32 and 0.25 <= fixed.shape[1] / fixed.shape[2] <= 4:
        warnings.warn(
            f"fixed of shape {tuple(fixed.shape)} is read as signals (N, C, L). If it is one image (C, H, W), "
            "pass fixed[None] and moving[None]",
            stacklevel=3,
        )


def comparable(moving: Tensor, fixed: Tensor, *, apart: bool) -> tuple[Tensor, Tensor]:
    """Return both in at least float32. A pair with an unusual largest value is mapped to [0, 1], both images alike.

    apart: map each image separately, for a loss that ignores contrast.
    """
    moving, fixed = (image.to(torch.promote_types(image.dtype, torch.float32)) for image in (moving, fixed))
    if apart:
        return on_a_usual_scale(moving)[0], on_a_usual_scale(fixed)[0]
    moving, fixed = on_a_usual_scale(moving, fixed)
    return moving, fixed


def on_a_usual_scale(*images: Tensor) -> Sequence[Tensor]:
    """Rescale each sample separately, because pairs of a batch are independent."""
    precise = coordinate_dtype(images[0].device)
    low = torch.stack([image.flatten(1).amin(dim=1).to(precise) for image in images]).amin(dim=0)
    high = torch.stack([image.flatten(1).amax(dim=1).to(precise) for image in images]).amax(dim=0)
    largest = torch.maximum(-low, high)
    usual = (largest >= LEAST) & (largest <= MOST) | (high == low)
    if usual.all():
        return images
    span, least = torch.where(usual, 1, high - low), torch.where(usual, 0, low)
    shape = (-1, *(1,) * (images[0].ndim - 1))
    return [((image.to(precise) - least.view(shape)) / span.view(shape)).to(image.dtype) for image in images]


def mask_of(name: str, mask: Any, image: Tensor) -> Tensor | None:  # (N, 1, *size)
    """Return the weights of the pixels of `image`, at most 1: a mask of numbers that are not floating point is 0 and 1."""
    if mask is None:
        return None
    values = mask.values if isinstance(mask, Volume) else mask
    if not isinstance(values, Tensor):
        array = np.ascontiguousarray(values)
        if array.dtype.kind not in "biuf":
            raise TypeError(f"{name} must be a tensor or an array of real numbers; got {type(mask).__name__}")
        values = torch.from_numpy(array)
    size = tuple(image.shape[2:])
    values = values[None, None] if tuple(values.shape) == size else values
    if tuple(values.shape) not in ((1, 1, *size), (len(image), 1, *size)):
        expected = f"{size} or {(len(image), 1, *size)}, the size of the image to which it belongs"
        _check.fail(f"{name} must be {expected}; got {tuple(values.shape)}")
    values = values if values.is_floating_point() else values != 0
    values = values.to(image.device, torch.promote_types(image.dtype, torch.float32))
    if not (values.isfinite() & (values >= 0)).all():
        _check.fail(f"{name} must be finite and not negative; got weights from {values.min():.4g} to {values.max():.4g}")
    most = values.flatten(1).amax(dim=1).view(-1, *(1,) * (values.ndim - 1))
    if not (most > 0).all():
        _check.fail(f"{name} must count at least one pixel of each image; all of its weights are 0")
    return (values / most).expand(len(image), *values.shape[1:])


def filled(image: Tensor, mask: Tensor | None) -> Tensor:
    """Return the image, where its weights are 0 continued from the nearest pixels that count.

    What does not count then has no influence on coarser levels and on slopes. It may be NaN.
    """
    if mask is None:
        return image
    keeps = mask > 0
    weight = keeps.to(mask.dtype)
    sums, counts = Pyramid(torch.where(keeps, image, 0).to(mask.dtype)), Pyramid(weight)
    mode = ("linear", "bilinear", "trilinear")[image.ndim - 3]
    last = len(sums) - 1
    found = sums[last] / counts[last].clamp_min(1e-6)
    for k in reversed(range(last)):
        own = sums[k] / counts[k].clamp_min(1e-6)
        found = torch.where(counts[k] > 1e-3, own, F.interpolate(found, sums.sizes[k], mode=mode))
    return torch.where(keeps, image, found.to(image.dtype))


def landmarks_of(pairs: Any, count: int, ndim: int, like: Tensor, spaces: Sequence[Space] = ()) -> tuple[Tensor, Tensor]:
    """Return points of the moving and of the fixed images, normalized: (N, P, d) each. With spaces they are in mm."""
    if not isinstance(pairs, list | tuple) or len(pairs) != 2:
        _check.fail(f"landmarks must be a pair (points of moving, points of fixed); got {type(pairs).__name__}")
    found: list[Tensor] = []
    for name, points in zip(("moving", "fixed"), pairs, strict=True):
        points = torch.as_tensor(points, dtype=torch.float64, device="cpu" if like.device.type == "mps" else like.device)
        if points.ndim not in (2, 3) or points.shape[-1] != ndim or 0 in points.shape or not points.isfinite().all():
            expected = f"finite, (P, {ndim}) or (N, P, {ndim}) with N = {count}"
            _check.fail(f"landmarks of {name} must be {expected}; got {tuple(points.shape)}")
        if spaces:
            points = spaces[len(found)].to_normalized(points)
        found.append(points.to(like).expand(count, *points.shape[-2:]) if points.ndim == 2 else points.to(like))
    if found[0].shape != found[1].shape or len(found[0]) != count:
        shapes = " and ".join(str(tuple(points.shape)) for points in found)
        _check.fail(f"landmarks must be as many of moving as of fixed, for {count} pairs of images; got {shapes}")
    if not spaces:
        _check.normalized("landmarks", torch.cat(found), "see stn.grid.pixel_to_normalized")
    return found[0], found[1]


@contextmanager
def learning() -> Iterator[None]:
    """Make tensors that autograd can save, also in inference mode; no graph leaves the descent."""
    if not torch.is_inference_mode_enabled():
        yield
        return
    with torch.inference_mode(False), torch.no_grad():
        yield


def ordinary(value: T) -> T:
    """Return the value, or a copy if it is or contains an inference tensor."""
    if isinstance(value, Tensor):
        return trainable(value)  # type: ignore[return-value]  # a Tensor is a T here
    return copy.deepcopy(value) if _holds_inference(value) else value


def _holds_inference(value: object) -> bool:
    if isinstance(value, Tensor):
        return value.is_inference()
    if isinstance(value, Warp | Family | Constants):
        value = vars(value)
    if isinstance(value, dict):
        value = list(value.values())
    return isinstance(value, list | tuple) and any(map(_holds_inference, value))
