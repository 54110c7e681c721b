"""The taps of a kernel with a table along each axis, for a row of pixels, padding resolved.

The taps in x lie in a window: neighbors of a row of the image, as many as whole vectors have. Near an edge the window ends
there, and each of its pixels has the weights of all taps that padding puts on it. A pixel whose taps fit into no window (in
a narrower image, or across an edge that wraps) stands apart.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from stn.ops.cpu.blocks import narrowed
from stn.ops.cpu.compiling import NDIM, inline, loop
from stn.ops.cpu.lanes import INT32, INT64, LANES, Code, Lanes
from stn.ops.cpu.padding import between, padded
from stn.ops.cpu.taps import BLOCKS, COLUMNS, clear
from stn.ops.cpu.tile import AT_WIDTH, find_points
from stn.ops.padding import ZEROS
from stn.ops.reference import FAR

SUM, SLOPE, ALL, ALL_SLOPE = 0, 3, 6, 9  # rows of `total` for x, with those of y and z behind


class Curve(NamedTuple):
    """A table of weights: `ops/tables.py`."""

    numbers: Any  # flat, (cells + 2, 4, span) float64
    taps: Any
    span: Any  # pixels of a window, a multiple of LANES
    cells: Any
    sums_to_one: Any
    support: Any


class WindowTaps(NamedTuple):
    """The taps of a row of pixels. One a thread. Numbers of axis i and pixel j begin at (i COLUMNS + j) span."""

    start: Any  # (COLUMNS,) uint32, the first pixel of the window
    apart: Any  # (BLOCKS,) int64, bits of the pixels of a block without one
    place: Any  # (3 * COLUMNS * span,) uint32, taps as offsets in the plane or volume; in x of all pixels of a window, if
    # pixels stand apart or channels come last
    weight: Any  # (6 * COLUMNS * span,) float: theirs, 0 outside an image with zeros around it, then their derivatives
    total: Any  # (12 * COLUMNS,) float64, sums: of the former, of their derivatives, of all weights, of all derivatives
    rest: Any  # (4 * COLUMNS,) float, the weight of the fill value, and its derivatives in x, y, z


def window_arrays(real: Any, span: int) -> dict[str, tuple[tuple[int, ...], Any]]:
    """The shape and the dtype of each."""
    return {
        "start": ((COLUMNS,), np.uint32), "apart": ((BLOCKS,), np.int64), "place": ((3 * COLUMNS * span,), np.uint32),
        "weight": ((6 * COLUMNS * span,), real), "total": ((12 * COLUMNS,), np.float64), "rest": ((4 * COLUMNS,), real),
    }  # fmt: skip


@inline
def windows_of_row(curve, slopes, last, sizes, r, at, points, start, apart, place, weight, total, rest):
    """last: channels last, whose code reads the places of a window one by one."""
    find_points(at, r)
    find_windows(
        slopes, last, curve.numbers, curve.taps, curve.span, curve.cells, curve.sums_to_one, curve.support, sizes, points,
        at[AT_WIDTH], start, apart, place, weight, total, rest,
    )  # fmt: skip


@loop
def find_windows(
    slopes, last, numbers, taps, span, cells, unit, support, sizes, points, width, start, apart, place, weight, total,
    rest,
):  # fmt: skip
    pitch, zeros, before, scale, edges = 1, sizes.padding == ZEROS, taps // 2 - 1.0, 1.0 * cells, False
    for b in range(-(-width // LANES)):
        apart[b] = 0
    for i in range(NDIM):
        n = sizes.width if i == 0 else (sizes.height if i == 1 else sizes.depth)
        extent, half = span if i == 0 else taps, 3 * COLUMNS * span
        if zeros and unit:
            set_whole(i, width, total)
        for j in range(width):
            m, x = np.uint64((i * COLUMNS + j) * span), points[i, j]
            low = np.floor(x) - before
            if (low >= 0.0) & (low + extent <= n):
                t, first = x - np.floor(x), np.int64(low)
                row, u = cell_of(t, before, scale, support)
                put_weights(numbers, row * 4 * span, span, u, scale, slopes, weight, m, half)
                if i == 0:
                    start[j] = np.uint32(first)
                if i > 0 or last:
                    put_places(place, np.int64(m), first * pitch, pitch, span)
                if zeros and not unit:
                    put_totals(numbers, taps, span, row, u, scale, slopes, i * COLUMNS + j, total)
                continue
            edges = True
            if store_pixel(
                sizes.padding, sizes.align_corners, slopes, numbers, taps, span, scale, unit, support, x, i, j, 1.0 * n,
                pitch, start, place, weight, total,
            ):  # fmt: skip
                apart[j // LANES] |= 1 << j % LANES
        for j in range(width, -(-width // LANES) * LANES):  # vectors read them
            clear_pixel(start, place, (i * COLUMNS + j) * span, span, i, j)
        pitch *= n
    if edges and zeros:
        find_rest(slopes, width, total, rest)
    else:
        for row in range(4 if slopes else 1):
            clear(rest, row * COLUMNS, row * COLUMNS + width)


@inline
def cell_of(t, before, scale, support):
    """The row of the table for t, and where t lies in its cell; row 0 of NaN."""
    at = t * scale
    cell = np.floor(at) if at == at else 0.0
    row = np.int64(cell) + (1 if t + before > support else 0) + (1 if before + 1.0 - t <= support else 0)
    return row, at - cell


@inline
def put_weights(numbers, at, span, u, scale, slopes, weight, to, half):
    for k in range(0, span, LANES):
        put_cubics(numbers, at + k, span, u, weight, np.int64(to) + k)
        if slopes:
            put_cubic_slopes(numbers, at + k, span, u, scale, weight, np.int64(to) + half + k)


@inline
def put_places(place, to, first, pitch, span):
    for k in range(0, span, LANES):
        put_steps(place, to + k, first + k * pitch, pitch)


@inline
def set_whole(i, width, total):
    """Set the totals of pixels with all taps inside, whose weights add up to 1."""
    for j in range(np.uint64(i * COLUMNS), np.uint64(i * COLUMNS + width)):
        total[np.uint64(SUM * COLUMNS) + j] = total[np.uint64(ALL * COLUMNS) + j] = 1.0
        total[np.uint64(SLOPE * COLUMNS) + j] = total[np.uint64(ALL_SLOPE * COLUMNS) + j] = 0.0


@inline
def clear_pixel(start, place, first, count, i, j):
    if i == 0:
        start[j] = np.uint32(0)
    for k in range(count):
        place[first + k] = np.uint32(0)


@inline
def weight_of(numbers, row, span, k, u):
    a = np.uint64(row * 4 * span + k)
    b, c, d = a + np.uint64(span), a + np.uint64(2 * span), a + np.uint64(3 * span)
    return numbers[a] + u * (numbers[b] + u * (numbers[c] + u * numbers[d]))


@inline
def slope_of(numbers, row, span, k, u, scale):
    a = np.uint64(row * 4 * span + k)
    b, c, d = a + np.uint64(span), a + np.uint64(2 * span), a + np.uint64(3 * span)
    return scale * (numbers[b] + u * (2.0 * numbers[c] + u * (3.0 * numbers[d])))


@inline
def put_totals(numbers, taps, span, row, u, scale, slopes, j, total):
    """Store the totals of a pixel with all taps inside."""
    value = slope = 0.0
    for k in range(taps):
        value += weight_of(numbers, row, span, k, u)
        slope += slope_of(numbers, row, span, k, u, scale) if slopes else 0.0
    total[SUM * COLUMNS + j] = total[ALL * COLUMNS + j] = value
    total[SLOPE * COLUMNS + j] = total[ALL_SLOPE * COLUMNS + j] = slope


@loop
def store_pixel(
    padding, align_corners, slopes, numbers, taps, span, scale, unit, support, x, i, j, n, pitch, start, place, weight, total
):
    """Store a pixel near an edge or outside; return True if its taps are not neighbors."""
    zeros, far, before = padding == ZEROS, np.float64(FAR), taps // 2 - 1.0
    m, half, real = (i * COLUMNS + j) * span, 3 * COLUMNS * span, weight.dtype.type
    base = np.floor(between(x, -far, far) if x == x else 0.0)
    t = between(x, -far, far) - base if x == x else x  # NaN reaches the result through the weights
    moving = 1.0 if (x >= -far) & (x <= far) else (0.0 if x == x else x)
    row, u = cell_of(t, before, scale, support)
    least = most = padded(padding, align_corners, base, n)
    for k in range(taps):
        at = padded(padding, align_corners, base + (k - before), n)
        least, most = (at if at < least else least), (at if at > most else most)
    first = between(least, 0.0, n - span)
    joined = (i == 0) & (n >= span) & (most < first + span)
    for k in range(span):
        place[m + k] = np.uint32(first + k) if joined else np.uint32(0)
        weight[m + k] = weight[m + half + k] = 0
    if i == 0:
        start[j] = np.uint32(first) if joined else np.uint32(0)
    sums, every, slope_sum, every_slope, whole = 0.0, 0.0, 0.0, 0.0, True
    for k in range(taps):
        at = base + (k - before)
        inside = (not zeros) | ((at >= 0.0) & (at < n))
        value = weight_of(numbers, row, span, k, u)
        slope = moving * slope_of(numbers, row, span, k, u, scale) if slopes else 0.0
        at = padded(padding, align_corners, at, n)
        lane = m + (np.int64(at - first) if joined else k)
        place[lane] = np.uint32(at * pitch)
        every, every_slope, whole = every + value, every_slope + slope, whole & inside
        if inside:
            sums, slope_sum = sums + value, slope_sum + slope
            weight[lane] += real(value)
            weight[half + lane] += real(slope)
    if unit & (x == x):
        every, every_slope = 1.0, 0.0
    if whole:
        sums, slope_sum = every, every_slope
    line = i * COLUMNS + j
    total[SUM * COLUMNS + line], total[ALL * COLUMNS + line] = sums, every
    total[SLOPE * COLUMNS + line], total[ALL_SLOPE * COLUMNS + line] = slope_sum, every_slope
    return (i == 0) & (not joined)


@loop
def find_rest(slopes, width, total, rest):
    """The fill value has the weights of the taps outside: those of all taps less those inside."""
    for j in range(width):
        rest[j] = product(total, ALL, ALL, -1, j) - product(total, SUM, SUM, -1, j)
        for axis in range(3 if slopes else 0):
            outside = product(total, ALL, ALL_SLOPE, axis, j) if axis < NDIM else 0.0
            inside = product(total, SUM, SLOPE, axis, j) if axis < NDIM else 0.0
            rest[(1 + axis) * COLUMNS + j] = outside - inside


@inline
def product(total, values, slopes, axis, j):
    found = 1.0
    for i in range(NDIM):
        found *= total[((slopes if i == axis else values) + i) * COLUMNS + j]
    return found


# ---- intrinsics: eight taps of a pixel ----


@intrinsic
def put_steps(typing, place, to, first, pitch):
    """place[to + k] = first + k pitch."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        array, to, first, pitch = arguments
        kind = ir.VectorType(INT32, LANES)
        order, whole = ir.Constant(kind, [*range(LANES)]), ir.Constant(kind, ir.Undefined)
        first, pitch = (
            builder.shuffle_vector(
                builder.insert_element(whole, builder.trunc(number, INT32), INT32(0)), whole, ir.Constant(kind, [0] * LANES)
            )
            for number in (first, pitch)
        )
        data = context.make_array(place)(context, builder, array).data
        at = builder.bitcast(builder.gep(data, [to], source_etype=INT32), kind.as_pointer())
        builder.store(builder.add(first, builder.mul(order, pitch)), at, align=4)
        return context.get_dummy_value()

    return types.void(place, to, first, pitch), generate


@intrinsic
def put_cubics(typing, numbers, at, span, u, weight, to):
    """weight[to + k] = the polynomial in u whose coefficients begin at numbers[at + k], `span` apart."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        code = Code(context, builder, signature, arguments)
        _, at, span, u, _, to = arguments
        a, b, c, d = coefficients(code, at, span)
        u = code.broadcast(u)
        code.put(narrowed(code, d.times_plus(u, c).times_plus(u, b).times_plus(u, a).value, 4), 4, to)
        return context.get_dummy_value()

    return types.void(numbers, at, span, u, weight, to), generate


@intrinsic
def put_cubic_slopes(typing, numbers, at, span, u, scale, weight, to):
    """The same of its derivative, times `scale`."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        code = Code(context, builder, signature, arguments)
        _, at, span, u, scale, _, to = arguments
        _, b, c, d = coefficients(code, at, span)
        u, scale = code.broadcast(u), code.broadcast(scale)
        two, three = code.broadcast(code.real(2.0)), code.broadcast(code.real(3.0))
        slope = (three * d).times_plus(u, two * c).times_plus(u, b)
        code.put(narrowed(code, (slope * scale).value, 5), 5, to)
        return context.get_dummy_value()

    return types.void(numbers, at, span, u, scale, weight, to), generate


def coefficients(code: Code, at: Any, span: Any) -> list[Lanes]:
    b = code.builder
    return [code.load(0, b.add(at, b.mul(span, INT64(power)))) for power in range(4)]
