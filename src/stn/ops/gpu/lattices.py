"""Displacements by a lattice of control points in Triton, and the gradient in the control points.

Pixel u of an axis lies at q = s u + (n - 1) / 2 between the n control points, held at the outer ones, in float64. A control
point c moves it with the weight B(q - c), which is zero at a distance of `reach`. So p_i = s_ii u_i + c_i + h_i f_i, with
f = sum_c B(q_x - c_x) B(q_y - c_y) [B(q_z - c_z)] data[c].

The gradient in the data is dL/dF_ci = h_i sum over pixels of g_i B B [B]. Pixels of a row of a tile reach a window of few
control points along x: each program adds up its rows for each of these, and `add_rows` then adds rows for each control
point. Both sum in float64 and in a fixed order, so the gradient is the same in every run.
"""

from __future__ import annotations

import triton
import triton.language as tl

from stn.ops.gpu.coordinates import divmod, joined, middle, place, rounded, to_double, zeros

SIXTH = tl.constexpr(1 / 6)


@triton.jit
def count_of(scale, j: tl.constexpr, HOW: tl.constexpr):
    """Return n, the number of control points along axis j; see `launch.scale_of_lattice`."""
    return joined(scale[HOW.ndim + 2][j]).to(tl.int32)


@triton.jit
def spot(pixel, length, scale, j: tl.constexpr, HOW: tl.constexpr):
    """Return q of pixels of an axis of this length. The fma is explicit, because two kernels have to agree on floor(q)."""
    n = count_of(scale, j, HOW)
    q = tl.fma(pixel.to(tl.float64) - middle(length), joined(scale[HOW.ndim + 1][j]), middle(n))
    return tl.minimum(tl.maximum(q, HOW.reach - 1.0), n.to(tl.float64) - HOW.reach)


@triton.jit
def weight(q, c, HOW: tl.constexpr):
    """Return B(q - c)."""
    t = tl.abs(q - c.to(tl.float64))
    near = tl.maximum(1.0 - t, 0.0)
    if HOW.reach == 2:
        far = tl.maximum(2.0 - t, 0.0)
        return (far * far * far - 4.0 * (near * near * near)) * SIXTH
    else:
        return near


@triton.jit
def first_of(q, n, window, HOW: tl.constexpr):
    """Return the first control point with a weight at q, or an earlier one, so that a window of so many does not pass n."""
    return tl.maximum(tl.minimum(q.to(tl.int32) - (HOW.reach - 1), n - window), 0)


@triton.jit
def weights_around(pixel, out_size, scale, j: tl.constexpr, HOW: tl.constexpr):
    """Return the control points of pixels along axis j, and their weights. A single one is repeated, with the weight 0."""
    TAPS: tl.constexpr = 2 * HOW.reach
    n, q = count_of(scale, j, HOW), spot(pixel[j], out_size[j], scale, j, HOW)
    first = first_of(q, n, TAPS, HOW)
    found, weights = (), ()
    for k in tl.static_range(TAPS):
        found, weights = found + (tl.minimum(first + k, n - 1),), weights + (weight(q, first + k, HOW),)
    return found, weights


@triton.jit
def add_row(moved, data, strides, columns, y, z, by, HOW: tl.constexpr):
    """Add `by` times the displacement that a row of control points gives."""
    for p in tl.static_range(2 * HOW.reach):
        at = data + place((columns[0][p], y, z), strides, HOW)
        share, found = by * columns[1][p], ()
        for i in tl.static_range(HOW.ndim):
            found += (moved[i] + share * to_double(tl.load(at + i * strides[3])),)
        moved = found
    return moved


@triton.jit
def add_slowest(moved, data, strides, columns, rows, first, q, n, k, HOW: tl.constexpr):
    """Add what control points k give, counted from `first` along the slowest axis, on which pixels lie at q."""
    c, by = tl.minimum(first + k, n - 1), weight(q, first + k, HOW)
    if HOW.ndim == 3:
        for p in tl.static_range(2 * HOW.reach):
            moved = add_row(moved, data, strides, columns, rows[0][p], c, by * rows[1][p], HOW)
    else:
        moved = add_row(moved, data, strides, columns, c, c, by, HOW)
    return moved


@triton.jit
def lattice_points(data, strides, scale, pixel, u, size, out_size, HOW: tl.constexpr):
    """Return the source points of pixels (x, y, z). strides: of the control points, z, y, x and their coordinate.

    Cubic lattices take the slowest axis in a loop. Unrolled, a plane of four pixels per thread took 244 registers on sm_80.
    """
    LAST: tl.constexpr = HOW.ndim - 1
    columns, rows = weights_around(pixel, out_size, scale, 0, HOW), weights_around(pixel, out_size, scale, 1, HOW)
    n, q = count_of(scale, LAST, HOW), spot(pixel[LAST], out_size[LAST], scale, LAST, HOW)
    first, moved = first_of(q, n, 2 * HOW.reach, HOW), zeros(HOW.ndim, u[0].shape, tl.float64)
    if HOW.reach == 2:
        for k in range(4):
            moved = add_slowest(moved, data, strides, columns, rows, first, q, n, k, HOW)
    else:
        for k in tl.static_range(2):
            moved = add_slowest(moved, data, strides, columns, rows, first, q, n, k, HOW)
    points = ()
    for i in tl.static_range(HOW.ndim):
        moving = moved[i] * joined(scale[i][HOW.ndim])
        points += (moving + u[i] * joined(scale[i][i]) + middle(size[i]),)
    return points


# ---- the gradient in the control points ----


@triton.jit
def start_of(column, across, window, scale, ACROSS: tl.constexpr, HOW: tl.constexpr):
    """Return the first control point of the window of a column of tiles."""
    q = spot(column * ACROSS, across, scale, 0, HOW)
    return first_of(q, count_of(scale, 0, HOW), window, HOW)


@triton.jit
def store_rows(sums, look, tile, scale, g, out_size, window, dividers, HOW: tl.constexpr, BLOCK: tl.constexpr):
    """Store the sums of this program's rows, sum over x of g_i h_i B(q_x - c_x), in sums (N * K, d, tiles, window, z, y)."""
    ROWS: tl.constexpr = BLOCK.down * BLOCK.deep
    columns = tl.cdiv(out_size[0], BLOCK.across)
    row, column = divmod(tile, columns, dividers[3])
    deep, down = divmod(row, tl.cdiv(out_size[1], BLOCK.down), dividers[4])
    r = tl.arange(0, ROWS)
    y, z = down * BLOCK.down + r % BLOCK.down, deep * BLOCK.deep + r // BLOCK.down
    plane = tl.cast(out_size[1], tl.int64) * out_size[2]
    sums += (look.to(tl.int64) * HOW.ndim * columns + column) * window * plane
    sums += z.to(tl.int64) * out_size[1] + y
    real = (y < out_size[1]) & (z < out_size[2])
    rows = ()
    for i in tl.static_range(HOW.ndim):
        rows += (tl.reshape(g[i].to(tl.float64) * joined(scale[i][HOW.ndim]), (ROWS, BLOCK.across)),)
    q = spot(column * BLOCK.across + tl.arange(0, BLOCK.across), out_size[0], scale, 0, HOW)[None, :]
    first = start_of(column, out_size[0], window, scale, BLOCK.across, HOW)
    for w in range(window):
        by = weight(q, first + w, HOW)
        for i in tl.static_range(HOW.ndim):
            tl.store(sums + (i * columns * window + w) * plane, tl.sum(rows[i] * by, axis=1), mask=real)


@triton.jit
def reach(c, length, scale, j: tl.constexpr, HOW: tl.constexpr):
    """Return a range of pixels of axis j that holds all with a weight of control point c: the first, and their end."""
    n, last = count_of(scale, j, HOW), length.to(tl.float64)
    step = tl.maximum(joined(scale[HOW.ndim + 1][j]), 1e-30)  # 0 for a single control point, which reaches all pixels
    at = c.to(tl.float64)
    low = tl.floor((at - HOW.reach - middle(n)) / step + middle(length))
    high = tl.floor((at + HOW.reach - middle(n)) / step + middle(length)) + 2.0
    low = tl.where(at <= 2 * HOW.reach - 1, 0.0, low)  # pixels beyond the outer control points lie at the outer ones
    high = tl.where(at >= n.to(tl.float64) - 2 * HOW.reach, last, high)
    low, high = tl.minimum(tl.maximum(low, 0.0), last), tl.minimum(tl.maximum(high, 0.0), last)
    return low.to(tl.int32), high.to(tl.int32)


@triton.jit(do_not_specialize=("scale", "across", "down", "deep", "window", "points"))
def add_rows(
    sums, out, scale, across, down, deep, window, points,
    POINTS: tl.constexpr, PARTS: tl.constexpr, ACROSS: tl.constexpr, HOW: tl.constexpr,
):  # fmt: skip
    """Add up rows for POINTS of the control points, whose gradient (N, K, z, y, x, d) is contiguous.

    sums: those of `store_rows`, of which each control point takes PARTS at a time.
    """
    number = (tl.program_id(0) * POINTS + tl.arange(0, POINTS))[:, None]
    exists, c = number < points, tl.minimum(number, points - 1)
    x, c = c % count_of(scale, 0, HOW), c // count_of(scale, 0, HOW)
    y, look = c % count_of(scale, 1, HOW), c // count_of(scale, 1, HOW)
    z, front, back = tl.zeros_like(y), tl.zeros_like(y), tl.zeros_like(y) + 1
    if HOW.ndim == 3:
        z, look = look % count_of(scale, 2, HOW), look // count_of(scale, 2, HOW)
        front, back = reach(z, deep, scale, 2, HOW)
    left, right = reach(x, across, scale, 0, HOW)
    top, bottom = reach(y, down, scale, 1, HOW)
    column, columns = left // ACROSS, tl.cdiv(across, ACROSS)
    high, slices = tl.maximum(bottom - top, 1), tl.maximum(back - front, 1)
    count = tl.where(exists, (tl.cdiv(right, ACROSS) - column) * (back - front) * (bottom - top), 0)
    size = tl.cast(down, tl.int64) * deep * columns * window
    sums += look.to(tl.int64) * HOW.ndim * size
    totals = zeros(HOW.ndim, [POINTS, PARTS], tl.float64)
    for begin in range(0, tl.max(count), PARTS):
        r = begin + tl.arange(0, PARTS)[None, :]
        rest, row = r // high, top + r % high
        tile, slice = column + rest // slices, front + rest % slices
        w = x - start_of(tile, across, window, scale, ACROSS, HOW)
        known = (r < count) & (w >= 0) & (w < window)
        at = ((tile * window + w).to(tl.int64) * deep + slice) * down + row
        by = weight(spot(row, down, scale, 1, HOW), y, HOW)
        if HOW.ndim == 3:
            by *= weight(spot(slice, deep, scale, 2, HOW), z, HOW)
        added = ()
        for i in tl.static_range(HOW.ndim):
            added += (totals[i] + by * tl.load(sums + i * size + at, mask=known, other=0.0),)
        totals = added
    for i in tl.static_range(HOW.ndim):
        total = tl.sum(totals[i], axis=1)[:, None]
        tl.store(out + number.to(tl.int64) * HOW.ndim + i, rounded(total, out.dtype.element_ty), mask=exists)
