"""The errors that this library raises."""

from __future__ import annotations

import math
from typing import NoReturn

import numpy as np
from torch import Tensor


class InputError(ValueError):
    """An argument, a file or a run folder that the caller gave is not as expected.

    The message states its name, the expected value and the given one.

    Example:
        >>> try:
        ...     stn.affine_sample(torch.rand(8, 3, 32, 32), torch.eye(2))
        ... except stn.InputError as error:
        ...     print(error)
        theta must be (2, 3), (N, 2, 3) or (N, K, 2, 3) with N = 8, the batch size of image, or N = 1; got (2, 2)
    """


def fail(sentence: str) -> NoReturn:
    raise InputError(sentence)


SHORT, FEW = 80, 4  # characters of a quoted value, and numbers of a quoted tensor


def shown(value: object) -> str:
    """Return a value as a message quotes it: on one line, and a tensor or an array of many numbers by its shape."""
    if isinstance(value, Tensor | np.ndarray) and (value.ndim > 1 or math.prod(value.shape) > FEW):
        kind = "a tensor" if isinstance(value, Tensor) else "an array"
        return f"{kind} {tuple(value.shape)} of {value.dtype}"
    if isinstance(value, list | tuple):
        ends = "[]" if isinstance(value, list) else "()"
        parts = [shown(part) for part in value[:9]] + [".."] * (len(value) > 9)
        return _cut(f"{ends[0]}{', '.join(parts)}{',' if ends == '()' and len(value) == 1 else ''}{ends[1]}")
    return _cut(repr(value))


def _cut(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= SHORT else f"{line[:SHORT]} .."


def samples(flags: Tensor) -> str:
    """List the samples whose flag is set, (N,) or (N, K), at most eight of them. This reads values."""
    found = flags.nonzero().tolist()
    places = ", ".join(str(tuple(place)) if len(place) > 1 else str(place[0]) for place in found[:8])
    return places + (f" and {len(found) - 8} more" if len(found) > 8 else "")


AXES = {1: "L", 2: "H, W", 3: "D, H, W"}  # names of the lengths of a size, by its number of dimensions
