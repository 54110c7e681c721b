"""The forward kernel in Triton: one launch, coordinates once per pixel for all channels, no tensor stored but the result."""

from __future__ import annotations

import triton
import triton.language as tl

from stn.ops.gpu.coordinates import centered, output_pixels, place, source_points
from stn.ops.gpu.taps import find_taps, tap_inside, tap_offset, tap_weight, weights_along

# Arguments that vary between calls, and whose values do not make the code faster: a new value causes no compilation.
NUMBERS = ("looks", "channels", "group_channels", "width", "height", "depth", "across", "down", "deep", "count")


@triton.jit
def program(channels, group_channels, across, down, deep, BLOCK: tl.constexpr):
    """Return the tile, the number of tiles, the look, the group of channels, its first channel and its end."""
    if BLOCK.flat:
        tiles = tl.cdiv(across * down * deep, BLOCK.across * BLOCK.down * BLOCK.deep)
    else:
        tiles = tl.cdiv(across, BLOCK.across) * tl.cdiv(down, BLOCK.down) * tl.cdiv(deep, BLOCK.deep)
    number, groups = tl.program_id(0), tl.cdiv(channels, group_channels)
    group = number // tiles % groups
    start = group * group_channels
    return number % tiles, tiles, number // (tiles * groups), group, start, tl.minimum(start + group_channels, channels)


@triton.jit
def image_and_look(tensor, strides, look, looks):
    """Return the start of look `look` in a tensor (N, K, ..). 64 bits, because a batch may exceed 32-bit offsets."""
    return tensor + (look // looks).to(tl.int64) * strides[0] + (look % looks).to(tl.int64) * strides[1]


@triton.jit
def pixels_and_points(
    tile, look, data, strides, knots, scale, looks, size, out_size, count, HOW: tl.constexpr, BLOCK: tl.constexpr
):
    """Return the pixels of a tile, a mask of those in the output, their centered coordinates u, and their source points."""
    pixel, real = output_pixels(tile, out_size, BLOCK)
    u = centered(pixel, out_size, HOW.ndim)
    data = image_and_look(data, strides, look, looks)
    return pixel, real, u, source_points(data, strides[2:], knots, count, scale, pixel, real, u, size, HOW)


@triton.jit(do_not_specialize=NUMBERS)
def sample_kernel(
    image, image_strides, out, out_strides, data, data_strides, knots, scale, fill, fill_stride,
    looks, channels, group_channels, width, height, depth, across, down, deep, count,
    HOW: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """image (N, C, z, y, x), out (N, K, C, z, y, x), data (N, K, ..): any strides. knots (T, 2) float64, fill (C,)."""
    REAL: tl.constexpr = tl.float64 if image.dtype.element_ty == tl.float64 else tl.float32
    tile, _, look, _, start, end = program(channels, group_channels, across, down, deep, BLOCK)
    size, out_size = (width, height, depth), (across, down, deep)
    pixel, real, _, points = pixels_and_points(
        tile, look, data, data_strides, knots, scale, looks, size, out_size, count, HOW, BLOCK
    )
    offsets, insides, rests, _ = find_taps(points, size, image_strides[2:], REAL, HOW)
    weights = weights_along(rests, HOW)
    image += (look // looks).to(tl.int64) * image_strides[0]
    out = image_and_look(out, out_strides, look, looks) + place(pixel, out_strides[3:], HOW)[:, None]
    for first in range(start, end, BLOCK.channels):
        c = first + tl.arange(0, BLOCK.channels)[None, :]
        wanted = real[:, None] & (c < end)
        c = c.to(tl.int64)
        blank = tl.load(fill + c * fill_stride, mask=c < end, other=0.0).to(REAL)
        total = tl.zeros(wanted.shape, REAL)
        for number in tl.static_range(HOW.taps**HOW.ndim):
            inside = wanted & tap_inside(insides, number, HOW)
            at = image + c * image_strides[1] + tap_offset(offsets, number, HOW)
            value = tl.load(at, mask=inside, other=0.0).to(REAL)
            weight = tap_weight(weights, number, HOW)
            total += tl.where(weight == 0, 0.0, weight * tl.where(inside, value, blank))  # NaN times 0 is NaN
        tl.store(out + c * out_strides[2], total.to(out.dtype.element_ty), mask=wanted)
