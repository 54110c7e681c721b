"""Prepare the inputs of `register`: a usual range of values, and tensors that autograd accepts."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

import torch
from torch import Tensor

from stn import _check
from stn.ops.context import coordinate_dtype
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
