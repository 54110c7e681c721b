"""Small images in a frame: a copy with FRAME more pixels on each side, zeros or the border continued.

In it every point has its taps, points far away in the frame, so that all blocks are sampled as those inside. An image of
28x28 pixels has hardly any other: 32 digits moved by a tenth take 0.55 times as long as with mixed blocks. The copy costs a
twentieth of that, and stays in the cache.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from stn.ops.cpu.blocks import narrowed
from stn.ops.cpu.compiling import NDIM, inline, loop, merged
from stn.ops.cpu.coordinates_backward import clear_gradient, slope_row, tiles_of_chunk
from stn.ops.cpu.forward import blend_row
from stn.ops.cpu.image_backward import GROUP, scatter_row
from stn.ops.cpu.lanes import INT32, INT64, LANES, Code
from stn.ops.cpu.taps import COLUMNS, STRIDE, clear
from stn.ops.cpu.tile import (
    AT_HEIGHT,
    AT_LOOK,
    AT_WIDTH,
    channel_starts,
    fill_tile,
    find_points,
    look_and_tile,
    part_of,
    place_tile,
    planes_at_once,
    reduce_tile,
    tiles_of_a_look,
)
from stn.ops.padding import ZEROS

FRAME = 2  # a point beyond the frame's inner pixels has both taps in it, and so no slope

# ---- the bodies of kernels, see `kernels.py` ----


@merged
def forward_framed(call, memory, chunk):
    tile, sizes, at = memory.tile, call.sizes, memory.tile.at
    start, end = part_of(chunk, call.chunks, sizes.batch * sizes.looks * tiles_of_a_look(sizes))
    before = -1
    for number in range(start, end):
        look, within = look_and_tile(call.shared, sizes, number)
        place_tile(sizes, look, within, at)
        before = frame_image(call.image, sizes, before, at, tile.frame)
        fill_tile(False, 0, 0, at)
        blend_framed(tile.frame, call.out, sizes, at, tile.offset, tile.fraction)


@merged
def coordinates_framed(call, memory, chunk):
    tile, sizes, at = memory.tile, call.sizes, memory.tile.at
    start, end = tiles_of_chunk(sizes, call.pieces, chunk, call.chunks)
    before = -1
    for number in range(start, end):
        look, within = look_and_tile(call.shared, sizes, number)
        place_tile(sizes, look, within, at)
        before = frame_image(call.image, sizes, before, at, tile.frame)
        fill_tile(True, 0, 0, at)
        clear_gradient(at[AT_HEIGHT], tile.gradient)
        slope_framed(tile.frame, call.out, sizes, at, tile.offset, tile.fraction, tile.gradient)
        reduce_tile(call.reduction, at)


@merged
def image_framed(call, memory, chunk):
    """Add up the gradient in the framed image, and then write what lies in the image or continues its border."""
    tile, sizes, at, groups = memory.tile, call.sizes, memory.tile.at, call.groups
    looks, count = sizes.looks, tiles_of_a_look(sizes)
    start, end = part_of(chunk, call.chunks, sizes.batch * groups)
    for task in range(start, end):
        n, group = task // groups, task % groups
        c0, c1 = sizes.channels * group // groups, sizes.channels * (group + 1) // groups
        clear(tile.frame, 0, (c1 - c0) * strides(sizes)[2])
        for step in range(looks * count):
            place_tile(sizes, n * looks + step // count, step % count, at)
            fill_tile(False, 0, 0, at)
            scatter_framed(call.out, tile.frame, sizes, c0, c1, at, tile.offset, tile.fraction, call.one)
        unframe_image(tile.frame, sizes, n, c0, c1, call.image)


@loop
def scatter_framed(grad, frame, sizes, c0, c1, at, offset, fraction, one):
    w, area, apart = strides(sizes)
    across, spread, start = sizes.across, np.uint64(sizes.across * sizes.down * sizes.deep), c0
    while start < c1:
        left = c1 - start
        count = GROUP if left >= GROUP else (3 if left == 3 and NDIM == 2 else 1)
        _, first = channel_starts(sizes, at, start)
        for r in range(at[AT_HEIGHT]):
            scatter_row(
                count, grad, np.uint64(first + r * across), spread, frame, np.uint64((start - c0) * apart),
                np.uint64(apart), np.uint64(1), w, area, offset, fraction, r * STRIDE, 0, at[AT_WIDTH], one,
            )  # fmt: skip
        start += count


@loop
def blend_framed(frame, out, sizes, at, offset, fraction):
    w, area, apart = strides(sizes)
    across, spread, step = sizes.across, sizes.across * sizes.down * sizes.deep, planes_at_once(sizes)
    for c in range(0, sizes.channels, step):
        (_, first), n = channel_starts(sizes, at, c), min(step, sizes.channels - c)
        plane = np.uint64(c * apart)
        for r in range(at[AT_HEIGHT]):
            to = first + r * across
            blend_row(frame, plane, w, area, offset, fraction, r, 0, at[AT_WIDTH], out, to, n, apart, spread)


@loop
def slope_framed(frame, grad, sizes, at, offset, fraction, gradient):
    w, area, apart = strides(sizes)
    across, spread, step = sizes.across, sizes.across * sizes.down * sizes.deep, planes_at_once(sizes)
    for c in range(0, sizes.channels, step):
        (_, first), n = channel_starts(sizes, at, c), min(step, sizes.channels - c)
        plane = np.uint64(c * apart)
        for r in range(at[AT_HEIGHT]):
            to = first + r * across
            slope_row(
                frame, plane, w, area, offset, fraction, r, 0, at[AT_WIDTH], grad, to, gradient, n, apart, spread
            )  # fmt: skip


# ---- the frame ----


def frame_length(shape: Sequence[int]) -> int:  # (C, *in)
    """Return how many numbers a framed image has."""
    return shape[0] * math.prod(length + 2 * FRAME for length in shape[1:])


@inline
def strides(sizes):
    """How far apart rows, slices and channels of the framed image are."""
    w = sizes.width + 2 * FRAME
    area = w * (sizes.height + 2 * FRAME)
    return w, area, area if NDIM == 2 else area * (sizes.depth + 2 * FRAME)


@inline
def frame_image(image, sizes, before, at, frame):
    """Frame the image of a look, unless it is the one `before`. Returns its number."""
    number = at[AT_LOOK] // sizes.looks
    if number != before:
        area = sizes.width * sizes.height * sizes.depth
        for c in range(sizes.channels):
            frame_channel(
                image, (number * sizes.channels + c) * area, sizes.width, sizes.height, sizes.depth,
                sizes.padding == ZEROS, frame, c * strides(sizes)[2],
            )  # fmt: skip
    return number


@loop
def frame_channel(image, first, w, h, d, zeros, frame, to):
    for row in range(rows_of(h, d)):
        number, outside = nearest_row(row, h, d)
        frame_row(image, first + number * w, w, zeros, zeros & outside, frame, to + row * (w + 2 * FRAME))


@inline
def rows_of(h, d):
    """The number of rows of a framed channel."""
    return (h + 2 * FRAME) * (1 if NDIM == 2 else d + 2 * FRAME)


@inline
def nearest_row(row, h, d):
    """The row of the image that is next to a row of the frame, and whether that one lies outside."""
    k, i = row // (h + 2 * FRAME) - FRAME, row % (h + 2 * FRAME) - FRAME
    y, z = min(max(i, 0), h - 1), 0 if NDIM == 2 else min(max(k, 0), d - 1)
    return z * h + y, (y != i) | (NDIM == 3 and z != k)


@loop
def frame_row(image, first, w, zeros, blank, frame, to):
    nothing, here, width = frame.dtype.type(0), np.uint64(to), np.uint64(w)
    left = nothing if zeros else image[np.uint64(first)]
    right = nothing if zeros else image[np.uint64(first + w - 1)]
    for j in range(np.uint64(FRAME)):
        frame[here + j], frame[here + np.uint64(FRAME) + width + j] = left, right
    for j in range(width):
        frame[here + np.uint64(FRAME) + j] = nothing if blank else image[np.uint64(first) + j]


@inline
def unframe_image(frame, sizes, number, c0, c1, image):
    """Add channels c0 .. c1 - 1 of a framed gradient to that of an image."""
    area = sizes.width * sizes.height * sizes.depth
    for c in range(c0, c1):
        unframe_channel(
            frame, (c - c0) * strides(sizes)[2], sizes.width, sizes.height, sizes.depth, sizes.padding == ZEROS, image,
            (number * sizes.channels + c) * area,
        )  # fmt: skip


@loop
def unframe_channel(frame, at, w, h, d, zeros, image, first):
    for row in range(rows_of(h, d)):
        number, outside = nearest_row(row, h, d)
        if not (zeros and outside):
            unframe_row(frame, at + row * (w + 2 * FRAME), w, zeros, image, first + number * w)


@loop
def unframe_row(frame, at, w, zeros, image, first):
    here, to, width = np.uint64(at), np.uint64(first), np.uint64(w)
    for j in range(width):
        image[to + j] += frame[here + np.uint64(FRAME) + j]
    for j in range(np.uint64(0 if zeros else FRAME)):
        image[to] += frame[here + j]
        image[to + width - np.uint64(1)] += frame[here + np.uint64(FRAME) + width + j]


# ---- places in it, for the kernel that finds a tile's taps ----


@loop
def fill_framed(derivative, sizes, low, high, at, box, points, runs, offset, fraction, near, far, weight, slope):
    """Write offsets and fractions of all pixels of a tile. It takes what `tile.fill_rows` takes."""
    w, area, _ = strides(sizes)
    zeros, lengths = sizes.padding == ZEROS, (1.0 * sizes.width, 1.0 * sizes.height, 1.0 * sizes.depth)
    pitch, apart, width = (1.0, 1.0 * w, 1.0 * area), len(offset), at[AT_WIDTH]
    for r in range(at[AT_HEIGHT]):
        find_points(at, r)
        for j in range(0, width, LANES):
            i = r * STRIDE + j
            if NDIM == 2:
                place_in_plane(points, COLUMNS, j, zeros, lengths, pitch, width - j, offset, fraction, i, apart)
            else:
                place_in_volume(points, COLUMNS, j, zeros, lengths, pitch, width - j, offset, fraction, i, apart)


class Point:
    """The coordinates of LANES points along one axis of n pixels."""

    def __init__(self, code: Code, p: Any, n: Any, margin: Any) -> None:
        b, self.code, self.p = code.builder, code, p
        last = b.fsub(n, ir.Constant(ir.DoubleType(), 1.0))
        self.n, negative = code.broadcast(n).value, ir.Constant(ir.DoubleType(), -0.0)
        self.before = b.fcmp_ordered("<", p, code.broadcast(b.fsub(negative, margin)).value)
        self.behind = b.fcmp_ordered(">", p, code.broadcast(b.fadd(last, margin)).value)
        self.outside = b.or_(self.before, self.behind)

    def place(self, outside: Any) -> tuple[Any, Any]:
        """Return the lower tap and the fraction: in the frame, with fraction 0, where `outside`; of NaN there, with NaN."""
        b = self.code.builder
        corner = self.code.broadcast(ir.Constant(ir.DoubleType(), -1.0 * FRAME)).value
        whole = b.select(outside, b.select(self.behind, self.n, corner), self.code.each("floor", self.p))
        unknown = b.fcmp_unordered("uno", self.p, self.p)
        whole = b.select(unknown, corner, whole)
        inner = b.fsub(self.p, whole)
        fraction = b.select(outside, ir.Constant(inner.type, None), inner)
        return whole, b.select(unknown, self.p, fraction)


def frame_lanes(ndim: int) -> Any:
    """Store offset and fractions, in the framed image, of points j .. of a row as those of pixel i .. of a tile.

    points: rows of `columns` numbers. lengths: of the image. pitch: how far apart points of each axis are in the frame.
    A point outside zeros, on any axis, lies in the frame on all, so that no rounding touches it; one beyond a border only
    on its own. Offsets from `count` on are 0, which a vector may read.
    """

    @intrinsic
    def place_framed(typing, points, columns, j, zeros, lengths, pitch, count, offset, fraction, i, area):
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            code, b = Code(context, builder, signature, arguments), builder
            _, columns, j, zeros, lengths, pitch, count, _, _, i, area = arguments
            zeros = b.trunc(zeros, ir.IntType(1))
            margin = b.uitofp(zeros, ir.DoubleType())
            axes = []
            for axis in range(ndim):
                p = code.load(0, b.add(j, b.mul(columns, INT64(axis)))).value
                axes.append(Point(code, p, b.extract_value(lengths, axis), margin))
            anywhere, places = axes[0].outside, None
            for point in axes[1:]:
                anywhere = b.or_(anywhere, point.outside)
            for axis, point in enumerate(axes):
                whole, t = point.place(b.select(zeros, anywhere, point.outside))
                code.put(narrowed(code, t, 8), 8, b.add(i, b.mul(area, INT64(axis))))
                moved = b.fadd(whole, code.broadcast(ir.Constant(ir.DoubleType(), 1.0 * FRAME)).value)
                at = b.fmul(moved, code.broadcast(b.extract_value(pitch, axis)).value)
                places = at if places is None else b.fadd(places, at)
            offsets, none = b.fptoui(places, code.vector(INT32)), ir.Constant(code.vector(INT32), [0] * LANES)
            code.put(b.select(code.mask(count), offsets, none), 7, i)
            return context.get_dummy_value()

        return types.void(points, columns, j, zeros, lengths, pitch, count, offset, fraction, i, area), generate

    return place_framed


place_in_plane, place_in_volume = frame_lanes(2), frame_lanes(3)
