"""Kernels for the CPU, in Numba. Loaded when first used: importing the library compiles nothing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor

from stn.ops.context import observed
from stn.ops.integers import has_labels
from stn.ops.layout import is_channels_last
from stn.ops.rules import Rule
from stn.ops.sampling import Sampling
from stn.ops.tables import readable

DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)  # half precision is computed in float32
TWO_TAPS = 2
MOST_PIXELS = 2**32  # of one plane: offsets within it have 32 bits


def keeps(image: Tensor, sampling: Sampling) -> bool:
    """Return True if the kernels read and write this image of integers as it is."""
    if has_labels(image, sampling):
        return True
    interpolation = sampling.interpolation
    adds_up = image.ndim == 5 and len(interpolation.offsets) > TWO_TAPS  # in the result, plane by plane, if channels last
    if image.dtype != torch.uint8 or interpolation.prefilter:
        return False
    return not (adds_up and is_channels_last(image))


def supports(rule: Rule, image: Tensor, data: Tensor, sampling: Sampling) -> bool:
    interpolation = sampling.interpolation
    if interpolation.probe is not None and (observed(image, data) or not readable(interpolation, image.dtype)):
        return False  # a user's kernel, which a graph cannot name
    known = image.dtype in DTYPES or has_labels(image, sampling)
    return known and math.prod(image.shape[2:]) < MOST_PIXELS


@cache
def loaded() -> Any:
    """`launch.py`, whose import takes Numba's time."""
    from stn.ops.cpu import launch

    return launch


def sample(rule: Rule, image: Tensor, data: Tensor, fill: Tensor, sampling: Sampling) -> Tensor:
    out: Tensor = loaded().sample(rule, image, data, fill, sampling)
    return out


def gradient(
    rule: Rule, grad: Tensor, image: Tensor, data: Tensor, fill: Tensor, sampling: Sampling, need: Sequence[bool]
) -> tuple[Tensor | None, Tensor | None]:
    found: tuple[Tensor | None, Tensor | None] = loaded().gradient(rule, grad, image, data, fill, sampling, need)
    return found
