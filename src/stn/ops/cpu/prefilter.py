"""Coefficients whose cubic B-spline passes through the pixels, by the recursive filter: Unser, Aldroubi, Eden 1993.

Along each axis c = 6 / (1 / z + 4 + z) image is one recursion forwards and one backwards. The image is first continued as
its padding says, until what lies beyond has died away: so both may begin with zeros, and are each other's transpose.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numba import prange
from torch import Tensor

from stn.ops.cpu.compiling import loop_fused
from stn.ops.cpu.memory import flat, new_image
from stn.ops.cpu.threads import chunk_count, run, thread_count
from stn.ops.cpu.tile import part_of
from stn.ops.padding import Padding
from stn.ops.reference import POLE, prefilter_reach

LANES = 16  # lines that are filtered together: one step of a recursion waits for the one before


@lru_cache(maxsize=64)
def continued(n: int, margin: int, reach: int, padding: Padding, align_corners: bool) -> Any:
    """The pixels of a line with `margin + reach` more at either end; n stands for a zero."""
    index = torch.arange(-margin - reach, n + margin + reach, device="cpu")
    pixel = padding.pixel(index, n, align_corners)
    if padding.fills:
        pixel = torch.where((index >= 0) & (index < n), pixel, n)
    return pixel.numpy()


def coefficients(image: Tensor, last: bool, padding: Padding, fill: Tensor | None, align_corners: bool) -> Tensor:
    """Of (N, C, *in), dense, channels last or not: (N, C, *in + 2 margin). fill: (C,), None of zeros."""
    if fill is None or not padding.fills or not fill.any():
        return filtered(image, last, padding, align_corners, tuple(image.shape[2:]), False)
    fill = fill.view(-1, *(1,) * (image.ndim - 2))
    return coefficients(image - fill, last, padding, None, align_corners).add_(fill)  # constants stay


def filtered(image: Tensor, last: bool, padding: Padding, align_corners: bool, size: tuple[int, ...], back: bool) -> Tensor:
    """Compute coefficients of images of this size; or (`back`) the gradient in the images from that in coefficients."""
    reach, margin = prefilter_reach(padding, image.dtype)
    numpy_real = np.float64 if image.dtype == torch.float64 else np.float32
    threads = thread_count(image.numel())
    for axis, n in enumerate(size):
        pixel, wide = continued(n, margin, reach, padding, align_corners), n + 2 * margin
        before = tuple(image.shape[2:])
        out = new_image(image, (*before[:axis], n if back else wide, *before[axis + 1 :]), last)
        if back:
            out.zero_()
        inner = math.prod(before[axis + 1 :]) * (image.shape[1] if last else 1)
        scratch = np.empty((chunk_count(threads), len(pixel) * LANES), numpy_real)
        rest = image.numel() // before[axis], inner, n, wide, pixel, reach, numpy_real(POLE), back, scratch
        run(threads, filter_lines, flat(image, last), flat(out, last), *rest)
        image = out
    return image


# ---- kernels; `compiled` as serial or parallel ----


def filter_lines(source, out, lines, inner, n, wide, pixel, reach, pole, back, scratch):
    """Each of `lines` lines, whose pixels are `inner` apart: from n pixels to `wide` coefficients, or back."""
    before, after = (wide, n) if back else (n, wide)
    pieces = -(-inner // LANES)
    groups = -(-lines // LANES) if inner == 1 else lines // inner * pieces
    for chunk in prange(len(scratch)):
        row = scratch[chunk]
        start, end = part_of(chunk, len(scratch), groups)
        for group in range(start, end):
            if inner == 1:
                first, place, apart_before, apart_after = group * LANES, 0, before, after
                count = min(LANES, lines - first)
            else:
                first, place, apart_before, apart_after = group // pieces, group % pieces * LANES, 1, 1
                count = min(LANES, inner - place)
            at, to = first * before * inner + place, first * after * inner + place
            if back:
                read_middle(source, at, inner, apart_before, count, reach, wide, row)
            else:
                read_continued(source, at, inner, apart_before, count, pixel, n, row)
            recurse(row, len(pixel), pole)
            if back:
                add_continued(row, pixel, n, out, to, inner, apart_after, count)
            else:
                write_middle(row, reach, wide, out, to, inner, apart_after, count)


@loop_fused
def recurse(row, length, pole):
    """Forwards, then backwards: row is (length, LANES)."""
    lanes, one = np.uint64(LANES), np.uint64(1)
    for i in range(lanes, np.uint64(length) * lanes):
        row[i] += pole * row[i - lanes]
    end = np.uint64(length - 1) * lanes
    for k in range(lanes):
        row[end + k] *= -pole
    for t in range(one, np.uint64(length)):
        i = end - t * lanes
        for k in range(lanes):
            row[i + k] = pole * (row[i + lanes + k] - row[i + k])


GAIN = np.float32(6)


@loop_fused
def read_continued(source, at, step, apart, count, pixel, n, row):
    for t in range(len(pixel)):
        to, i = np.uint64(t * LANES), np.uint64(at + pixel[t] * step)
        if pixel[t] < n:
            for k in range(np.uint64(count)):
                row[to + k] = GAIN * source[i + k * np.uint64(apart)]
        else:
            for k in range(np.uint64(count)):
                row[to + k] = 0


@loop_fused
def read_middle(source, at, step, apart, count, reach, wide, row):
    row[:] = 0
    for t in range(wide):
        to, i = np.uint64((t + reach) * LANES), np.uint64(at + t * step)
        for k in range(np.uint64(count)):
            row[to + k] = GAIN * source[i + k * np.uint64(apart)]


@loop_fused
def write_middle(row, reach, wide, out, to, step, apart, count):
    for t in range(wide):
        i, j = np.uint64((t + reach) * LANES), np.uint64(to + t * step)
        for k in range(np.uint64(count)):
            out[j + k * np.uint64(apart)] = row[i + k]


@loop_fused
def add_continued(row, pixel, n, out, to, step, apart, count):
    for t in range(len(pixel)):
        i, j = np.uint64(t * LANES), np.uint64(to + pixel[t] * step)
        if pixel[t] < n:
            for k in range(np.uint64(count)):
                out[j + k * np.uint64(apart)] += row[i + k]
