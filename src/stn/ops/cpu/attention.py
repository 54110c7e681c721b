"""Deformable attention and its gradient: the weighted sum over points of all levels, without what each point reads.

The formula samples each level at all points, 16 times as many numbers as the result has for four levels of four points, and
adds them up afterwards. Here a query adds what its points read to D sums, which stay in the cache.

A task of the forward kernel is a query. A task of the gradient is a head of an image. Only it writes to that head's values,
in the order of the queries: the result does not depend on the number of threads.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numba import prange
from torch import Tensor

from stn.ops.cpu.compiling import inline, loop, loop_fused, loop_sum
from stn.ops.cpu.memory import empty_permuted, flat
from stn.ops.cpu.threads import chunk_count, run, thread_count
from stn.ops.cpu.tile import part_of
from stn.ops.layout import plain

Shape = tuple[int, int, int, int, int, int]  # N, Q, M, L, P, D


def attend(values: Tensor, sizes: Sequence[Sequence[int]], locations: Tensor, weights: Tensor) -> Tensor:
    """Return (N, Q, M * D) in the working precision. Arguments: as `multi_scale_deformable_attention`."""
    inputs = _laid_out(values, locations, weights)
    n, queries, heads, _, _, width = shape = _shape(values, weights)
    out = empty_permuted((n, queries, heads * width), range(3), inputs[0].dtype)
    if out.numel() > 0 and weights.numel() == 0:
        return out.zero_()
    if out.numel() > 0:
        threads = thread_count(weights.numel() * width)
        chunks = chunk_count(threads)
        run(threads, attention_forward, *map(flat, inputs), _table(sizes), flat(out), values.shape[1], shape, chunks)
    return out


def gradient(
    grad: Tensor, values: Tensor, sizes: Sequence[Sequence[int]], locations: Tensor, weights: Tensor, need_values: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients in values, locations and weights; that in values only if it is needed."""
    inputs = _laid_out(values, locations, weights)
    shape, real = _shape(values, weights), inputs[0].dtype
    found = [empty_permuted(tuple(t.shape), range(t.ndim), real) for t in (values, locations, weights)]
    found[0] = found[0].zero_() if need_values else torch.zeros(1, dtype=real, device="cpu")  # not written
    if weights.numel() > 0:
        threads = thread_count(weights.numel() * shape[-1])
        given = flat(plain(grad).to(real).contiguous()), *map(flat, inputs), _table(sizes)
        how = values.shape[1], shape, need_values, chunk_count(threads)
        run(threads, attention_backward, *given, *map(flat, found), *how)
    return found[0].to(values.dtype), found[1].to(locations.dtype), found[2].to(weights.dtype)


def _laid_out(*tensors: Tensor) -> list[Tensor]:
    wide = any(tensor.dtype == torch.float64 for tensor in tensors)
    return [plain(tensor).to(torch.float64 if wide else torch.float32).contiguous() for tensor in tensors]


def _shape(values: Tensor, weights: Tensor) -> Shape:
    n, queries, heads, levels, points = weights.shape
    return n, queries, heads, levels, points, values.shape[3]


def _table(sizes: Sequence[Sequence[int]]) -> Any:
    """Return the first pixel, the height and the width of each level: (L, 3)."""
    areas = np.cumsum([0, *(height * width for height, width in sizes)])
    return np.array([[first, *size] for first, size in zip(areas, sizes, strict=False)], np.int64)


# ---- kernels: all arrays flat; `compiled` as serial or parallel ----


def attention_forward(values, locations, weights, table, out, pixels, shape, chunks):
    n, queries, heads, levels, points, width = shape
    for chunk in prange(chunks):
        start, end = part_of(chunk, chunks, n * queries)
        for task in range(start, end):
            image = task // queries * pixels * heads * width
            for head in range(heads):
                first = (task * heads + head) * levels * points
                to = (task * heads + head) * width
                attend_head(
                    values, locations, weights, table, out, image + head * width, heads * width, first, levels, points, to,
                    width,
                )  # fmt: skip


def attention_backward(
    grad, values, locations, weights, table, in_values, in_locations, in_weights, pixels, shape, need_values, chunks
):
    n, queries, heads, levels, points, width = shape
    for chunk in prange(chunks):
        start, end = part_of(chunk, chunks, n * heads)
        for task in range(start, end):
            image, head = task // heads, task % heads
            base = (image * pixels * heads + head) * width
            for query in range(queries):
                place = (image * queries + query) * heads + head
                pull_head(
                    grad, values, locations, weights, table, in_values, in_locations, in_weights, base, heads * width,
                    place * levels * points, levels, points, place * width, width, need_values,
                )  # fmt: skip


@inline
def position(locations, i, n):
    """The pixel coordinate of a location within [0, 1], by way of [-1, 1] as in the reference, and the pixel below it."""
    at = np.float64((locations[i] + locations[i]) - locations.dtype.type(1)) * (0.5 * n) + (0.5 * n - 0.5)
    return at, np.floor(at)


@loop
def attend_head(values, locations, weights, table, out, base, pitch, first, levels, points, to, width):
    """Write the sum over the points of one head of a query: D numbers from `to` on."""
    for c in range(np.uint64(width)):
        out[np.uint64(to) + c] = 0
    for level in range(levels):
        start, h, w = table[level, 0], table[level, 1], table[level, 2]
        for i in range(first + level * points, first + (level + 1) * points):
            x, left = position(locations, 2 * i, w)
            y, top = position(locations, 2 * i + 1, h)
            if (x > -1) & (x < w) & (y > -1) & (y < h):
                k = base + (start + np.int64(top) * w + np.int64(left)) * pitch
                tx, ty, share = x - left, y - top, np.float64(weights[i])
                if (left >= 0) & (top >= 0) & (left < w - 1) & (top < h - 1) & (tx > 0) & (ty > 0):
                    add_four(values, k, pitch, w * pitch, tx, ty, share, out, to, width)
                else:
                    add_some(values, k, pitch, w * pitch, tx, ty, share, left, top, w, h, out, to, width)
            elif (x != x) | (y != y):
                add_one(values, base, x + y, out, to, width)


@loop_fused
def add_four(values, k, right, down, tx, ty, share, out, to, width):
    real = values.dtype.type
    a, b = real(share * (1 - ty) * (1 - tx)), real(share * (1 - ty) * tx)
    c, d = real(share * ty * (1 - tx)), real(share * ty * tx)
    i, j = np.uint64(k), np.uint64(k + right)
    m, n = np.uint64(k + down), np.uint64(k + down + right)
    for e in range(np.uint64(width)):
        out[np.uint64(to) + e] += (a * values[i + e] + b * values[j + e]) + (c * values[m + e] + d * values[n + e])


@loop
def add_some(values, k, right, down, tx, ty, share, left, top, w, h, out, to, width):
    """The taps inside the map that have a weight: a pixel without one may be infinite."""
    for lower in range(2):
        for further in range(2):
            weight = (ty if lower else 1 - ty) * (tx if further else 1 - tx)
            x, y = left + further, top + lower
            if (x >= 0) & (x < w) & (y >= 0) & (y < h) & (weight != 0):
                add_one(values, k + further * right + lower * down, share * weight, out, to, width)


@loop
def add_one(values, k, weight, out, to, width):
    real = values.dtype.type
    for e in range(np.uint64(width)):
        out[np.uint64(to) + e] += real(weight) * values[np.uint64(k) + e]


@loop
def pull_head(
    grad, values, locations, weights, table, in_values, in_locations, in_weights, base, pitch, first, levels, points, to,
    width, need_values,
):  # fmt: skip
    """Add the gradients of one head of a query. s: dot products of its gradient with the four taps."""
    for level in range(levels):
        start, h, w = table[level, 0], table[level, 1], table[level, 2]
        for i in range(first + level * points, first + (level + 1) * points):
            x, left = position(locations, 2 * i, w)
            y, top = position(locations, 2 * i + 1, h)
            tx, ty, share = x - left, y - top, np.float64(weights[i])
            in_weights[i], in_locations[2 * i], in_locations[2 * i + 1] = 0, 0, 0
            if (x >= -1) & (x < w) & (y >= -1) & (y < h):
                k = base + (start + np.int64(top) * w + np.int64(left)) * pitch
                if (left >= 0) & (top >= 0) & (left < w - 1) & (top < h - 1):
                    s00, s01, s10, s11 = dot_four(values, k, pitch, w * pitch, grad, to, width)
                else:
                    s00 = dot_inside(values, k, left, top, w, h, grad, to, width)
                    s01 = dot_inside(values, k + pitch, left + 1, top, w, h, grad, to, width)
                    s10 = dot_inside(values, k + w * pitch, left, top + 1, w, h, grad, to, width)
                    s11 = dot_inside(values, k + (w + 1) * pitch, left + 1, top + 1, w, h, grad, to, width)
                if need_values:
                    give(in_values, k, pitch, w * pitch, tx, ty, share, left, top, w, h, grad, to, width)
                in_weights[i] = (1 - ty) * (weighed(1 - tx, s00) + weighed(tx, s01)) + ty * (
                    weighed(1 - tx, s10) + weighed(tx, s11)
                )
                in_locations[2 * i] = share * w * ((1 - ty) * (s01 - s00) + ty * (s11 - s10))
                in_locations[2 * i + 1] = share * h * ((1 - tx) * (s10 - s00) + tx * (s11 - s01))
            elif (x != x) | (y != y):
                in_weights[i] = in_locations[2 * i] = in_locations[2 * i + 1] = x + y


@inline
def weighed(weight, value):
    """A pixel without a weight may be infinite."""
    return weight * value if weight != 0 else 0.0


@loop_sum
def dot_four(values, k, right, down, grad, to, width):
    zero = values.dtype.type(0)
    a, b, c, d = zero, zero, zero, zero
    i, j = np.uint64(k), np.uint64(k + right)
    m, n = np.uint64(k + down), np.uint64(k + down + right)
    for e in range(np.uint64(width)):
        g = grad[np.uint64(to) + e]
        a, b, c, d = a + g * values[i + e], b + g * values[j + e], c + g * values[m + e], d + g * values[n + e]
    return np.float64(a), np.float64(b), np.float64(c), np.float64(d)


@loop_sum
def dot_inside(values, k, x, y, w, h, grad, to, width):
    """The dot product with a tap, 0 outside the map."""
    total = values.dtype.type(0)
    if (x >= 0) & (x < w) & (y >= 0) & (y < h):
        for e in range(np.uint64(width)):
            total += grad[np.uint64(to) + e] * values[np.uint64(k) + e]
    return np.float64(total)


@loop
def give(in_values, k, right, down, tx, ty, share, left, top, w, h, grad, to, width):
    for lower in range(2):
        for further in range(2):
            weight = (ty if lower else 1 - ty) * (tx if further else 1 - tx)
            x, y = left + further, top + lower
            if (x >= 0) & (x < w) & (y >= 0) & (y < h) & (weight != 0):
                add_one(grad, to, share * weight, in_values, k + further * right + lower * down, width)
