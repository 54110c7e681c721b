"""The backward kernels in Triton: gradients in the image and in the coordinates, both in one launch.

For a pixel V = sum_t w_t U_t over its taps t, dL/dU_t = w_t G; atomics add it to the image's gradient. The gradient in
coordinate i is g_i = dL/dp_i = moves_i sum_c G_c sum_t (dw_t/dp_i) (U_t - fill).

A matrix maps all points, p_i = M_i . (u, 1) + c_i, so dL/dM_i = sum over pixels of g_i (u, 1). With a divisor
w = M_d . (u, 1), g_i is divided by w, and dL/dM_d = - sum_i g_i (p_i - c_i) / w (u, 1). A radial function U_t adds w_ti U_t
to p_i, so dL/dw_ti = sum g_i U_t.

Each program writes its sums in float64; `add_up` adds them in order. So the gradients of coefficients are the same in every
run.
"""

from __future__ import annotations

import triton
import triton.language as tl

from stn.ops.gpu.coordinates import (
    BASIS,
    FIELD,
    HORIZON,
    PROJECTIVE,
    divisor,
    joined,
    linear,
    place,
    radial,
    rounded,
)
from stn.ops.gpu.forward import NUMBERS, image_and_look, pixels_and_points, program
from stn.ops.gpu.taps import find_taps, slopes_of, tap_inside, tap_offset, tap_weight, weights_along


@triton.jit
def zeros(count: tl.constexpr, shape: tl.constexpr, REAL: tl.constexpr):
    found = ()
    for _ in tl.static_range(count):
        found += (tl.zeros(shape, REAL),)
    return found


@triton.jit
def slope_weights(weights, rests, moves, i: tl.constexpr, HOW: tl.constexpr):
    """Return the weights, with those along axis i replaced by their derivatives."""
    found = ()
    for j in tl.static_range(HOW.ndim):
        found += (slopes_of(rests[j], moves[j], HOW) if i == j else weights[j],)
    return found


@triton.jit
def add_slopes(totals, grad, value, weights, rests, moves, number: tl.constexpr, HOW: tl.constexpr):
    """Add the part of one tap to g_i, (P, C), for each axis i."""
    found = ()
    for i in tl.static_range(HOW.ndim):
        found += (totals[i] + grad * value * tap_weight(slope_weights(weights, rests, moves, i, HOW), number, HOW),)
    return found


@triton.jit
def scatter(image, grad, offsets, insides, weights, wanted, HOW: tl.constexpr):
    """Add the gradient of each tap to the image, except where it is zero, as at three of the four taps of an identity."""
    for number in tl.static_range(HOW.taps**HOW.ndim):
        term = tap_weight(weights, number, HOW) * grad
        inside = wanted & tap_inside(insides, number, HOW) & (term != 0.0)
        tl.atomic_add(image + tap_offset(offsets, number, HOW), term, mask=inside, sem="relaxed")


@triton.jit
def store_sums(sums, part, parts, first, g, u, scale, i: tl.constexpr, NDIM: tl.constexpr):
    """Store sum g (u, 1) of this program, as numbers first .. first + d of its look."""
    for j in tl.static_range(NDIM):
        tl.store(sums + (first + j) * parts + part, tl.sum(g * u[j]) * joined(scale[i][j]))
    tl.store(sums + (first + NDIM) * parts + part, tl.sum(g) * joined(scale[i][NDIM]))


@triton.jit
def store_matrix(sums, part, parts, data, strides, scale, g, u, HOW: tl.constexpr):
    ROW: tl.constexpr = HOW.ndim + 1
    if HOW.rule == PROJECTIVE:
        w = divisor(data, strides, scale, u, HOW.ndim)
        total = tl.zeros_like(w)
        for i in tl.static_range(HOW.ndim):
            term = g[i] / w
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
        value = g[i] if HOW.in_pixels else g[i] * joined(scale[i][HOW.ndim])
        tl.store(at + i * strides[3], rounded(value, out.dtype.element_ty), mask=real)


@triton.jit(do_not_specialize=NUMBERS + ("numbers",))
def gradient_kernel(
    grad, grad_strides, image, image_strides, data, data_strides, knots, scale, fill, fill_stride,
    grad_image, grad_image_strides, sums, sums_strides, numbers,
    looks, channels, group_channels, width, height, depth, across, down, deep, count,
    NEED_IMAGE: tl.constexpr, NEED_DATA: tl.constexpr, ALIKE: tl.constexpr, HOW: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Arguments as in `sample_kernel`.

    sums: for a field, its gradient; else the sums (N * K, numbers, programs per look) in float64.
    ALIKE: pixels have the same strides in grad_image as in image.
    """
    REAL: tl.constexpr = tl.float64 if image.dtype.element_ty == tl.float64 else tl.float32
    tile, tiles, look, group, start, end = program(channels, group_channels, across, down, deep, BLOCK)
    size, out_size = (width, height, depth), (across, down, deep)
    pixel, real, u, points = pixels_and_points(
        tile, look, data, data_strides, knots, scale, looks, size, out_size, count, HOW, BLOCK
    )
    offsets, insides, rests, moves = find_taps(points, size, image_strides[2:], REAL, HOW)
    targets = offsets
    if not ALIKE:
        targets, _, _, _ = find_taps(points, size, grad_image_strides[2:], REAL, HOW)
    weights = weights_along(rests, HOW)
    image += (look // looks).to(tl.int64) * image_strides[0]
    grad_image += (look // looks).to(tl.int64) * grad_image_strides[0]
    grad = image_and_look(grad, grad_strides, look, looks) + place(pixel, grad_strides[3:], HOW)[:, None]
    totals = zeros(HOW.ndim, [real.shape[0], BLOCK.channels], REAL)
    for first in range(start, end, BLOCK.channels):
        c = first + tl.arange(0, BLOCK.channels)[None, :]
        wanted = real[:, None] & (c < end)
        c = c.to(tl.int64)
        arriving = tl.load(grad + c * grad_strides[2], mask=wanted, other=0.0).to(REAL)
        if NEED_IMAGE:
            scatter(grad_image + c * grad_image_strides[1], arriving, targets, insides, weights, wanted, HOW)
        if NEED_DATA:
            blank = tl.load(fill + c * fill_stride, mask=c < end, other=0.0).to(REAL)
            for number in tl.static_range(HOW.taps**HOW.ndim):
                inside = wanted & tap_inside(insides, number, HOW)
                at = image + c * image_strides[1] + tap_offset(offsets, number, HOW)
                value = tl.load(at, mask=inside, other=0.0).to(REAL)
                value = tl.where(inside, value - blank, 0.0)
                totals = add_slopes(totals, arriving, value, weights, rests, moves, number, HOW)
    if NEED_DATA:
        g = ()
        for i in tl.static_range(HOW.ndim):
            g += (tl.where(real, tl.sum(totals[i], axis=1).to(tl.float64), 0.0),)
        part, parts = group * tiles + tile, tiles * tl.cdiv(channels, group_channels)
        if HOW.rule == FIELD:
            store_field(image_and_look(sums, sums_strides, look, looks), sums_strides[2:], pixel, real, scale, g, HOW)
        else:
            sums += look.to(tl.int64) * numbers * parts
            data = image_and_look(data, data_strides, look, looks)
            store_coefficients(sums, part, parts, data, data_strides[2:], knots, count, scale, g, u, HOW)


@triton.jit(do_not_specialize=("parts",))
def add_up(sums, out, parts, PARTS: tl.constexpr):
    """out[i] = sum of sums[i, :], always in the same order."""
    i, p = tl.program_id(0).to(tl.int64), tl.arange(0, PARTS)
    total = tl.zeros([PARTS], tl.float64)
    for first in range(0, parts, PARTS):
        total += tl.load(sums + i * parts + first + p, mask=first + p < parts, other=0.0)
    tl.store(out + i, rounded(tl.sum(total), out.dtype.element_ty))
