"""Checks of fill values, and of images of integers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from stn._check.errors import fail, shown
from stn._check.tensors import INTEGERS


def averaged(name: str, value: Tensor) -> None:
    """Check that pixels can be averaged: no label maps."""
    if value.dtype in INTEGERS and value.dtype != torch.uint8:
        raise TypeError(f"{name} must have a floating-point dtype, a complex one, or uint8; got {value.dtype}")


def mode_of_labels(name: str, got: object, dtype: torch.dtype) -> None:
    """Raise an error for a mode or an anti-aliasing that averages integers. None, False: it does not."""
    if got is not None and got is not False:
        wanted = "'nearest'" if name == "mode" else "False"
        fail(
            f"{name} must be {wanted} for an image of {dtype}, whose numbers are not averaged (uint8 has all modes, and "
            f"image.float() too); got {shown(got)}"
        )


REAL, NUMPY = (int, float), (np.number, np.ndarray)
NUMBERS = (*REAL, *NUMPY, complex, Tensor, torch.SymInt, torch.SymFloat)  # types of a fill_value


def fill_value(value: Any, image: Tensor, padding_mode: str) -> Tensor:
    """Return a number, or one per channel: () or (C,), on the device of the image, in at least float32.

    For integers other than bytes in their own dtype.
    """
    if image.dtype in INTEGERS and image.dtype != torch.uint8:
        fill = _fill(value, image, torch.float64 if torch.compiler.is_compiling() else integers_held(value, image))
        fill = fill.to(image.dtype)
    elif isinstance(value, REAL):
        dtype = torch.promote_types(image.dtype, torch.float32)
        fill = torch.full((), value, dtype=dtype, device=image.device)  # no copy from the host, which would block
    else:
        fill = _fill(value, image, torch.promote_types(image.dtype, torch.float32))
    if padding_mode != "zeros" and not (isinstance(value, (*REAL, *NUMPY)) and fill.ndim == 0 and value == 0):
        fail(f"fill_value requires padding_mode='zeros'; got padding_mode={padding_mode!r}")
    return fill


def integers_held(value: Any, image: Tensor) -> torch.dtype:
    """Check that the image's dtype holds all numbers of a fill value. Returns a dtype that has each of them."""
    numbers = value.tolist() if isinstance(value, (Tensor, *NUMPY)) else value
    flat = numbers if isinstance(numbers, Sequence) else [numbers]
    low, high = (0, 1) if image.dtype == torch.bool else (torch.iinfo(image.dtype).min, torch.iinfo(image.dtype).max)
    for number in flat:
        if isinstance(number, REAL) and not (math.isfinite(number) and low <= number <= high and number == int(number)):
            fail(f"fill_value must be an integer that the dtype of image, {image.dtype}, holds; got {shown(number)}")
    return torch.int64


def _fill(value: Any, image: Tensor, dtype: torch.dtype) -> Tensor:
    """Convert a fill value that is not a plain real number."""
    expected = f"fill_value must be a number, or C = {image.shape[1]} numbers, one per channel of image"
    several = isinstance(value, Sequence) and not isinstance(value, str)
    if not all(_is_number(number) and not (several and getattr(number, "ndim", False)) for number in _parts(value, several)):
        fail(f"{expected}; got {shown(value)}")
    if not image.is_complex() and any(map(_is_complex, _parts(value, several))):
        fail(f"fill_value must be real, because image is; got {shown(value)}")
    if isinstance(value, Tensor):
        fill = value.to(image.device)
    else:
        make = torch.as_tensor if isinstance(value, NUMPY) else torch.tensor
        fill = make(value, dtype=dtype, device=image.device)
    if fill.ndim > 1 or (fill.ndim == 1 and fill.shape[0] != image.shape[1]):
        fail(f"{expected}; got {tuple(fill.shape)}")
    return fill


def _parts(value: Any, several: bool) -> Sequence[Any]:
    return value if several else (value,)


def _is_number(value: Any) -> bool:
    """Return True for a number or an array of numbers."""
    return isinstance(value, NUMBERS) and not (isinstance(value, np.ndarray) and _kind(value) not in "biufc")


def _is_complex(number: Any) -> bool:
    if isinstance(number, Tensor):
        return number.is_complex()
    return isinstance(number, complex) or (isinstance(number, NUMPY) and _kind(number) == "c")


def _kind(value: Any) -> str:
    """Return the kind of a numpy dtype. torch.compile has none, and converts all values to tensors."""
    return "f" if torch.compiler.is_compiling() else value.dtype.kind
