"""Kernels for the CPU, in Numba. Loaded when first used: importing the library compiles nothing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)  # half precision is computed in float32
MODES = ("nearest", "bilinear")
MOST_PIXELS = 2**32  # of one plane: offsets within it have 32 bits


def supports(rule: str, image: Tensor, where: Tensor, settings: tuple[Any, ...]) -> bool:
    mode = settings[1] if rule == "matrix" else settings[0]
    return mode in MODES and image.dtype in DTYPES and math.prod(image.shape[2:]) < MOST_PIXELS


def sample(rule: str, image: Tensor, where: Tensor, fill: Tensor, settings: tuple[Any, ...]) -> Tensor:
    return _call(rule, image, where, settings).forward(fill)


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

    return backward(_call(rule, image, where, settings), grad, where, fill, *need)


def _call(rule: str, image: Tensor, where: Tensor, settings: tuple[Any, ...]) -> Any:
    from stn.ops.cpu.launch import Call, from_field, from_matrix

    in_size = image.shape[2:]
    if rule == "matrix":
        size, mode, padding_mode, align_corners = settings
        numbers = from_matrix(where, in_size, size, padding_mode, align_corners)
    else:
        mode, padding_mode, align_corners, units, relative = settings
        size = where.shape[2:-1]
        numbers = from_field(where, in_size, padding_mode, align_corners, units, relative)
    return Call(image, numbers, where.shape[1], size, mode)
