"""Kernels for GPUs, in Triton. Loaded when first used: importing the library imports no Triton.

They serve images on CUDA devices by themselves, wherever Triton is installed, as it is with torch's CUDA builds. Without it,
and for what they do not cover, the reference computes on the device as it does anywhere.
"""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)  # sums of half precision are in float32
MODES = ("nearest", "bilinear", "bicubic", "catmull_rom")  # of volumes the first two: 64 taps take half a minute to compile
MOST_PIXELS = 2**30  # of one plane or volume, so that their numbers have 32 bits, a sign among them
TRITON = importlib.util.find_spec("triton") is not None


def supports(rule: str, image: Tensor, where: Tensor, settings: tuple[Any, ...]) -> bool:
    mode, size = (settings[0], where.shape[2:-1]) if rule == "field" else (settings[1], settings[0])
    if not TRITON or mode not in MODES or image.dtype not in DTYPES:
        return False
    if image.ndim == 5 and mode not in MODES[:2]:
        return False
    return math.prod(image.shape[2:]) < MOST_PIXELS and math.prod(size) < MOST_PIXELS


def sample(rule: str, image: Tensor, where: Tensor, fill: Tensor, settings: tuple[Any, ...]) -> Tensor:
    from stn.ops.gpu.launch import Call

    return Call(rule, image, where, fill, settings).sample()


def gradient(
    rule: str,
    grad: Tensor,
    image: Tensor,
    where: Tensor,
    fill: Tensor,
    settings: tuple[Any, ...],
    need: Sequence[bool],
) -> tuple[Tensor | None, Tensor | None]:
    from stn.ops.gpu.launch import Call

    need_image, need_where = need
    return Call(rule, image, where, fill, settings).gradient(grad, need_image, need_where)


def averages(image: Tensor) -> bool:
    """A pyramid is made by torch's own operators."""
    return False


def average(image: Tensor, fine: tuple[int, ...], how: Any, back: bool) -> Tensor:
    """Part of what every device's kernels have; never called here, since `averages` says no."""
    raise AssertionError("averages() must be asked first")
