"""Kernels for the CPU, in Numba. Loaded when first used: importing the library compiles nothing."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from stn.ops.pyramid import Averaging

DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)  # half precision is computed in float32
MODES = ("nearest", "bilinear", "bicubic", "catmull_rom", "bspline")
MOST_PIXELS = 2**32  # of one plane: offsets within it have 32 bits


def supports(rule: str, image: Tensor, where: Tensor, settings: tuple[Any, ...]) -> bool:
    mode = settings[0] if rule == "field" else settings[1]
    return mode in MODES and image.dtype in DTYPES and math.prod(image.shape[2:]) < MOST_PIXELS


def sample(rule: str, image: Tensor, where: Tensor, fill: Tensor, settings: tuple[Any, ...]) -> Tensor:
    call, _ = _call(rule, image, where, settings)
    out: Tensor = call.forward(fill)
    return out


def gradient(
    rule: str,
    grad: Tensor,
    image: Tensor,
    where: Tensor,
    fill: Tensor,
    settings: tuple[Any, ...],
    need: Sequence[bool],
) -> tuple[Tensor | None, Tensor | None]:
    from stn.ops.cpu.launch import backward

    call, finish = _call(rule, image, where, settings)
    return backward(call, grad, where, fill, need, finish)


def averages(image: Tensor) -> bool:
    return image.dtype in (torch.float32, torch.float64) and image.numel() > 0


def average(image: Tensor, fine: tuple[int, ...], how: Averaging, back: bool) -> Tensor:
    from stn.ops.cpu.shrink import average_axes

    return average_axes(image, fine, how, back)


def _call(rule: str, image: Tensor, where: Tensor, settings: tuple[Any, ...]) -> tuple[Any, Callable[[Any, Any], Any]]:
    """The call, and how its gradient in the coordinates becomes one in `where`."""
    from stn.ops.cpu import adapt
    from stn.ops.cpu.launch import Call

    in_size = tuple(image.shape[2:])
    if rule == "field":
        mode, padding_mode, align_corners, units, relative = settings
        field = adapt.from_field(where, in_size, align_corners, units, relative)
        return Call(image, field, where.shape[1], where.shape[2:-1], mode, padding_mode, align_corners), lambda f, _: f
    size, mode, padding_mode, align_corners = settings[:4]
    rows = where.shape[-2] if rule == "matrix" else 2
    by = adapt.scale(in_size, tuple(size), rows, align_corners)
    if rule == "matrix":
        call = Call(image, adapt.from_matrix(where, by), where.shape[1], size, mode, padding_mode, align_corners)
        return call, lambda sums, _: adapt.matrix_gradient(sums, by)
    call = Call(image, adapt.from_basis(where, settings[4], by), where.shape[1], size, mode, padding_mode, align_corners)
    return call, lambda sums, bends: adapt.basis_gradient(sums, bends, len(settings[4]), by)
