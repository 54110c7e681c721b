"""From one level of a pyramid to the next, and back: the weighted sum of up to four pixels along each axis.

The two last axes go in one pass: the four rows that a row of the result reads become one, in a scratch that stays in the
cache, and then its columns do. A first axis of three goes before, with whole planes as rows.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch
from numba import prange
from torch import Tensor

from stn.ops.averaging import Averaging, filled, taps
from stn.ops.cpu.compiling import loop_fused
from stn.ops.cpu.memory import flat, new_image
from stn.ops.cpu.threads import chunk_count, run, thread_count
from stn.ops.cpu.tile import part_of, prefetch
from stn.ops.layout import is_channels_last, plain

PREFETCHED = (
    1 << 14
)  # pixels that are read ahead, once and in memory order: 16x3x512x512 3.6 ms without, 2.5 with, 3.0 with 2^12


class Axis(NamedTuple):
    """Taps of one axis. Those of results first .. last - 1 are alike, each two pixels on from its neighbor's."""

    pixel: Any  # (4, m) uint32
    weight: Any  # (4, m)
    first: int
    last: int


@lru_cache(maxsize=64)
def axis_of(n: int, how: Averaging, back: bool, numpy_real: Any) -> Axis:
    pixel, weight = (t.numpy() for t in taps(n, how, back))
    middle = len(pixel) // 2
    contiguous = np.all(np.diff(pixel) == 1, axis=1)
    alike = contiguous & np.all(weight == weight[middle], axis=1)
    alike &= pixel[:, 0] == pixel[middle, 0] + 2 * (np.arange(len(pixel)) - middle)
    first = last = middle
    while first > 0 and alike[first - 1]:
        first -= 1
    while last < len(pixel) and alike[last]:
        last += 1
    return Axis(pixel.T.astype(np.uint32).copy(), weight.T.astype(numpy_real).copy(), first if last > middle else last, last)


def average_axes(image: Tensor, fine: tuple[int, ...], how: Averaging, back: bool) -> Tensor:
    """(N, C, *fine) to the next level, or `back`."""
    numpy_real = np.float64 if image.dtype == torch.float64 else np.float32
    return along_axes(image, [axis_of(n, how, back, numpy_real) for n in fine])


def axis_of_taps(pixel: Tensor, weight: Tensor, dtype: torch.dtype) -> Axis:
    """Return the axis whose results are sums of any pixels, at most `averaging.MOST`: (m, taps) each."""
    pixel, weight = (taps.T for taps in filled(pixel, weight))
    return Axis(pixel.numpy().astype(np.uint32), weight.to(dtype).numpy().copy(), 0, 0)


def along_axes(image: Tensor, axes: Sequence[Axis]) -> Tensor:
    image, last = plain(image), is_channels_last(image)
    form = torch.channels_last if image.ndim == 4 else torch.channels_last_3d
    image = image.contiguous(memory_format=form if last else torch.contiguous_format)
    numpy_real = np.float64 if image.dtype == torch.float64 else np.float32
    if len(axes) == 3:
        image = average_planes(image, last, axes[0])
    *outer, height, width = image.shape[2:]
    rows, columns = axes[-2:]
    inner = image.shape[1] if last else 1
    out = new_image(image, (*outer, rows.pixel.shape[1], columns.pixel.shape[1]), last)
    planes = math.prod(image.shape) // (height * width * inner)
    threads = thread_count(image.numel())
    scratch = np.empty((chunk_count(threads), width * inner), numpy_real)
    sizes = planes, height, width, inner
    run(threads, average_rows_and_columns, flat(image, last), flat(out, last), *sizes, rows, columns, scratch)
    return out


def average_planes(image: Tensor, last: bool, planes: Axis) -> Tensor:
    """Along the first of three axes."""
    n, c, depth, height, width = image.shape
    out = new_image(image, (planes.pixel.shape[1], height, width), last)
    sizes = (n, depth, height * width * c) if last else (n * c, depth, height * width)
    threads = thread_count(image.numel())
    run(threads, average_rows, flat(image, last), flat(out, last), *sizes, planes, chunk_count(threads))
    return out


# ---- kernels: source and out flat; `compiled` as serial or parallel ----


def average_rows(source, out, planes, height, width, rows, chunks):
    for chunk in prange(chunks):
        start, end = part_of(chunk, chunks, planes * rows.pixel.shape[1])
        for task in range(start, end):
            plane, r = task // rows.pixel.shape[1], task % rows.pixel.shape[1]
            add_rows(source, plane * height * width, width, rows.pixel, rows.weight, r, out, task * width)


def average_rows_and_columns(source, out, planes, height, width, inner, rows, columns, scratch):
    for chunk in prange(len(scratch)):
        row, across, pitch, prefetched = scratch[chunk], columns.pixel.shape[1], width * inner, 0
        start, end = part_of(chunk, len(scratch), planes * rows.pixel.shape[1])
        for task in range(start, end):
            plane, r = task // rows.pixel.shape[1], task % rows.pixel.shape[1]
            needed = (plane * height + rows.pixel[3, r] + 1) * pitch
            if needed > prefetched:
                first = max(prefetched, (plane * height + rows.pixel[0, r]) * pitch)
                prefetched = min(needed + PREFETCHED, planes * height * pitch)
                row[0] = prefetch(source, first, 0, 0, prefetched - first, 0, 1, 1, 0)
            add_rows(source, plane * height * pitch, pitch, rows.pixel, rows.weight, r, row, 0)
            to = task * across * inner
            if inner > 1:
                add_pixels(row, columns.pixel, columns.weight, inner, out, to)
            else:
                add_listed(row, columns.pixel, columns.weight, 0, columns.first, out, to)
                add_regular(row, columns.pixel, columns.weight, columns.first, columns.last, out, to)
                add_listed(row, columns.pixel, columns.weight, columns.last, across, out, to)


@loop_fused
def add_rows(source, start, pitch, pixel, weight, r, out, to):
    """Row r: the sum of four rows of the plane that starts at `start`."""
    a, b, c, d = weight[0, r], weight[1, r], weight[2, r], weight[3, r]
    i, j = np.uint64(start + pixel[0, r] * pitch), np.uint64(start + pixel[1, r] * pitch)
    k, m = np.uint64(start + pixel[2, r] * pitch), np.uint64(start + pixel[3, r] * pitch)
    for x in range(np.uint64(pitch)):
        out[np.uint64(to) + x] = (a * source[i + x] + b * source[j + x]) + (c * source[k + x] + d * source[m + x])


@loop_fused
def add_listed(row, pixel, weight, first, last, out, to):
    for j in range(np.uint64(first), np.uint64(last)):
        near = weight[0, j] * row[pixel[0, j]] + weight[1, j] * row[pixel[1, j]]
        out[np.uint64(to) + j] = near + (weight[2, j] * row[pixel[2, j]] + weight[3, j] * row[pixel[3, j]])


@loop_fused
def add_regular(row, pixel, weight, first, last, out, to):
    if last <= first:
        return
    a, b, c, d = weight[0, first], weight[1, first], weight[2, first], weight[3, first]
    start, one, two, three = np.uint64(pixel[0, first]), np.uint64(1), np.uint64(2), np.uint64(3)
    for j in range(np.uint64(last - first)):
        i = start + two * j
        near = a * row[i] + b * row[i + one]
        out[np.uint64(to + first) + j] = near + (c * row[i + two] + d * row[i + three])


@loop_fused
def add_pixels(row, pixel, weight, channels, out, to):
    n = np.uint64(channels)
    for j in range(np.uint64(pixel.shape[1])):
        a, b, c, d = weight[0, j], weight[1, j], weight[2, j], weight[3, j]
        i, k, m, q = pixel[0, j] * n, pixel[1, j] * n, pixel[2, j] * n, pixel[3, j] * n
        first = np.uint64(to) + j * n
        for x in range(n):
            out[first + x] = (a * row[i + x] + b * row[k + x]) + (c * row[m + x] + d * row[q + x])
