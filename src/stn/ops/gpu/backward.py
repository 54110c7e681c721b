"""The backward kernels in Triton: gradients in the image and in the coordinates, both in one launch.

For a pixel V = sum_t w_t U_t over its taps t, dL/dU_t = w_t G; atomics add it to the image's gradient. The gradient in
coordinate i is g_i = dL/dp_i = moves_i sum_c G_c sum_t (dw_t/dp_i) (U_t - fill).

A matrix maps all points, p_i = M_i . (u, 1) + c_i, so dL/dM_i = sum over pixels of g_i (u, 1). With a divisor
w = M_d . (u, 1), g_i is divided by w, and dL/dM_d = - sum_i g_i (p_i - c_i) / w (u, 1). A radial function U_t adds w_ti U_t
to p_i, so dL/dw_ti = sum g_i U_t.

Each program writes its sums in float64; `add_up` adds them in order. So the gradients of coefficients are the same in every
run. `lattices.py` does the same for control points.
"""

from __future__ import annotations

import triton
import triton.language as tl

from stn.ops.gpu.coordinates import (
    BASIS,
    FIELD,
    HORIZON,
    LATTICE,
    PROJECTIVE,
    centered,
    divisor,
    divmod,
    joined,
    linear,
    output_pixels,
    place,
    radial,
    rounded,
    zeros,
)
from stn.ops.gpu.forward import NUMBERS, among_channels, image_and_look, of_channels, padding_value, program
from stn.ops.gpu.lattices import store_rows
from stn.ops.gpu.places import source_pixels
from stn.ops.gpu.taps import columns, find_taps, is_read, places, slopes_of, tap_weight, weights_along


@triton.jit
def slope_weights(weights, rests, moves, i: tl.constexpr, HOW: tl.constexpr):
    """Return the weights, with those along axis i replaced by their derivatives."""
    found = ()
    for j in tl.static_range(HOW.ndim):
        found += (slopes_of(rests[j], moves[j], HOW) if i == j else weights[j],)
    return found


@triton.jit
def slopes(totals, weights, rests, moves, i: tl.constexpr, HOW: tl.constexpr):
    """Return g_i, (P,), from sum_c G_c (U_t - fill) of each tap, (P, C)."""
    by = slope_weights(weights, rests, moves, i, HOW)
    total = tap_weight(by, 0, HOW) * totals[0]
    for number in tl.static_range(1, HOW.taps**HOW.ndim):
        total += tap_weight(by, number, HOW) * totals[number]
    return tl.sum(total, axis=1)


@triton.jit
def add_taps(totals, grad, source, found, reads, blank, wanted, HOW: tl.constexpr, BLOCK: tl.constexpr):
    """Add G_c (U_t - fill) to the sum of each tap t. found: places of the taps."""
    sums = ()
    for number in tl.static_range(HOW.taps**HOW.ndim):
        read = is_read(found[number], reads[number], wanted, BLOCK)
        value = tl.load(source + found[number], mask=read, other=0.0).to(grad.dtype)
        sums += (totals[number] + grad * tl.where(read, value - blank, 0.0),)
    return sums


@triton.jit
def scatter(image, grad, found, reads, weights, wanted, HOW: tl.constexpr, BLOCK: tl.constexpr):
    """Add the gradient of each tap to the image, except where it is zero, as at three of the four taps of an identity."""
    for number in tl.static_range(HOW.taps**HOW.ndim):
        term = tap_weight(weights, number, HOW) * grad
        read = is_read(found[number], reads[number], wanted, BLOCK) & (term != 0.0)
        tl.atomic_add(image + found[number], term, mask=read, sem="relaxed")


@triton.jit
def store_sums(sums, part, parts, first, g, u, scale, i: tl.constexpr, NDIM: tl.constexpr):
    """Store sum g (u, 1) of this program, as numbers first .. first + d of its look. u is exact in the precision of g."""
    for j in tl.static_range(NDIM):
        tl.store(sums + (first + j) * parts + part, tl.sum(g * u[j].to(g.dtype)).to(tl.float64) * joined(scale[i][j]))
    tl.store(sums + (first + NDIM) * parts + part, tl.sum(g).to(tl.float64) * joined(scale[i][NDIM]))


@triton.jit
def store_matrix(sums, part, parts, data, strides, scale, g, u, HOW: tl.constexpr):
    ROW: tl.constexpr = HOW.ndim + 1
    if HOW.rule == PROJECTIVE:
        w = divisor(data, strides, scale, u, HOW.ndim)
        total = tl.zeros_like(w)
        for i in tl.static_range(HOW.ndim):
            term = g[i].to(tl.float64) / w
            total -= term * (linear(data, strides, scale, u, i, HOW.ndim) / w)
            store_sums(sums, part, parts, i * ROW, term, u, scale, i, HOW.ndim)
        total = tl.where(w == HORIZON, 0.0, total)  # the clamped w does not depend on the matrix
        store_sums(sums, part, parts, HOW.ndim * ROW, total, u, scale, HOW.ndim, HOW.ndim)
    else:
        for i in tl.static_range(HOW.ndim):
            store_sums(sums, part, parts, i * ROW, g[i], u, scale, i, HOW.ndim)


@triton.jit
def store_basis(sums, part, parts, knots, count, scale, g, u):
    """Store the gradients of the coefficients (T+3, 2), in the order of the coefficients."""
    x, y = u[0] * joined(scale[2][0]), u[1] * joined(scale[2][1])
    g = g[0].to(tl.float64), g[1].to(tl.float64)
    for i in tl.static_range(2):
        h = joined(scale[i][2])
        tl.store(sums + (2 * count + i) * parts + part, h * tl.sum(g[i]))
        tl.store(sums + (2 * count + 2 + i) * parts + part, h * tl.sum(g[i] * x))
        tl.store(sums + (2 * count + 4 + i) * parts + part, h * tl.sum(g[i] * y))
    for t in range(count):
        bend = radial(x, y, knots, t)
        for i in tl.static_range(2):
            tl.store(sums + (2 * t + i) * parts + part, joined(scale[i][2]) * tl.sum(g[i] * bend))


@triton.jit
def store_coefficients(sums, part, parts, data, strides, knots, count, scale, g, u, HOW: tl.constexpr):
    if HOW.rule == BASIS:
        store_basis(sums, part, parts, knots, count, scale, g, u)
    else:
        store_matrix(sums, part, parts, data, strides, scale, g, u, HOW)


@triton.jit
def store_field(out, strides, pixel, real, scale, g, HOW: tl.constexpr):
    at = out + place(pixel, strides, HOW)
    for i in tl.static_range(HOW.ndim):
        value = g[i] if HOW.in_pixels else g[i].to(tl.float64) * joined(scale[i][HOW.ndim])
        tl.store(at + i * strides[3], rounded(value, out.dtype.element_ty), mask=real)


@triton.jit(do_not_specialize=NUMBERS + ("numbers",))
def gradient_kernel(
    grad, grad_strides, image, image_strides, data, data_strides, knots, scale, fill, fill_stride,
    grad_image, grad_image_strides, sums, sums_strides, numbers,
    looks, channels, group_channels, width, height, depth, across, down, deep, count, dividers,
    NEED_IMAGE: tl.constexpr, NEED_DATA: tl.constexpr, ALIKE: tl.constexpr, HOW: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Arguments as in `sample_kernel`.

    sums: for a field, its gradient; for a lattice, those of `store_rows` with windows of `count` control points; else the
    sums (N * K, numbers, programs per look) in float64.
    ALIKE: pixels have the same strides in grad_image as in image.
    """
    REAL: tl.constexpr = tl.float64 if image.dtype.element_ty == tl.float64 else tl.float32
    tile, tiles, look, group, start, end = program(channels, group_channels, across, down, deep, dividers, BLOCK)
    at, size, out_size = divmod(look, looks, dividers[2]), (width, height, depth), (across, down, deep)
    pixel, real = output_pixels(tile, out_size, dividers, BLOCK)
    data = image_and_look(data, data_strides, at)
    first, t, moves = source_pixels(data, data_strides[2:], knots, count, scale, pixel, real, size, out_size, REAL, HOW)
    t, moves = columns(t, HOW), columns(moves, HOW)
    offsets, insides = find_taps(first, size, image_strides[2:], HOW)
    weights, (found, reads) = weights_along(t, HOW), places(offsets, insides, real[:, None], HOW, BLOCK)
    targets = found
    if not ALIKE:
        targets = places(find_taps(first, size, grad_image_strides[2:], HOW)[0], insides, real[:, None], HOW, BLOCK)[0]
    image += at[0].to(tl.int64) * image_strides[0]
    grad_image += at[0].to(tl.int64) * grad_image_strides[0]
    grad = image_and_look(grad, grad_strides, at) + place(pixel, grad_strides[3:], HOW)[:, None]
    totals = zeros(HOW.taps**HOW.ndim, [real.shape[0], BLOCK.channels], REAL)
    for c in range(start, end, BLOCK.channels):
        wanted = among_channels(real, c, end, BLOCK)
        arriving = tl.load(of_channels(grad, grad_strides[2], c, BLOCK), mask=wanted, other=0.0).to(REAL)
        if NEED_IMAGE:
            target = of_channels(grad_image, grad_image_strides[1], c, BLOCK)
            scatter(target, arriving, targets, reads, weights, wanted, HOW, BLOCK)
        if NEED_DATA:
            blank = padding_value(fill, fill_stride, c, end, REAL, BLOCK)
            source = of_channels(image, image_strides[1], c, BLOCK)
            totals = add_taps(totals, arriving, source, found, reads, blank, wanted, HOW, BLOCK)
    if NEED_DATA:
        g = ()
        for i in tl.static_range(HOW.ndim):
            g += (tl.where(real, slopes(totals, weights, t, moves, i, HOW), 0.0),)
        if HOW.rule == FIELD:
            store_field(image_and_look(sums, sums_strides, at), sums_strides[2:], pixel, real, scale, g, HOW)
        elif HOW.rule == LATTICE:
            store_rows(sums, look, tile, scale, g, out_size, count, dividers, HOW, BLOCK)
        else:
            part, parts = group * tiles + tile, tiles * tl.cdiv(channels, group_channels)
            sums += look.to(tl.int64) * numbers * parts
            u = centered(pixel, out_size, HOW.ndim)
            store_coefficients(sums, part, parts, data, data_strides[2:], knots, count, scale, g, u, HOW)


@triton.jit(do_not_specialize=("parts",))
def add_up(sums, out, parts, PARTS: tl.constexpr):
    """out[i] = sum of sums[i, :], always in the same order."""
    i, p = tl.program_id(0).to(tl.int64), tl.arange(0, PARTS)
    total = tl.zeros([PARTS], tl.float64)
    for first in range(0, parts, PARTS):
        total += tl.load(sums + i * parts + first + p, mask=first + p < parts, other=0.0)
    tl.store(out + i, rounded(tl.sum(total), out.dtype.element_ty))
