"""The forward kernel in Triton: one launch, coordinates once per pixel for all channels, no tensor stored but the result."""

from __future__ import annotations

import triton
import triton.language as tl

from stn.ops.gpu.coordinates import divmod, output_pixels, place
from stn.ops.gpu.places import source_pixels
from stn.ops.gpu.taps import ZEROS, blends, columns, find_taps, is_read, weights_along

# Arguments that vary between calls, and whose values do not make the code faster: a new value causes no compilation.
NUMBERS = (
    "looks",
    "channels",
    "group_channels",
    "width",
    "height",
    "depth",
    "across",
    "down",
    "deep",
    "count",
    "dividers",
    "scale",
)


@triton.jit
def program(channels, group_channels, across, down, deep, dividers, BLOCK: tl.constexpr):
    """Return the tile, the number of tiles, the image and its look, the group of channels, its first channel and its end."""
    if BLOCK.flat:
        tiles = tl.cdiv(across * down * deep, BLOCK.across * BLOCK.down * BLOCK.deep)
    else:
        tiles = tl.cdiv(across, BLOCK.across) * tl.cdiv(down, BLOCK.down) * tl.cdiv(deep, BLOCK.deep)
    number, tile = divmod(tl.program_id(0), tiles, dividers[0])
    number, group = divmod(number, tl.cdiv(channels, group_channels), dividers[1])
    start = group * group_channels
    return tile, tiles, number, group, start, tl.minimum(start + group_channels, channels)


@triton.jit
def image_and_look(tensor, strides, at):
    """Return the start of a look (image, look) in a tensor (N, K, ..). 64 bits: a batch may exceed 32-bit offsets."""
    return tensor + at[0].to(tl.int64) * strides[0] + at[1].to(tl.int64) * strides[1]


@triton.jit
def of_channels(tensor, stride, first, BLOCK: tl.constexpr):
    """Return the start of channels first .. first + BLOCK.channels, (1, C). Aligned, loads hold up to 16 bytes."""
    first = tl.cast(first, tl.int64)
    if BLOCK.even:
        first = tl.multiple_of(first, BLOCK.channels)
    return tensor + first * stride + tl.arange(0, BLOCK.channels)[None, :] * stride


@triton.jit
def among_channels(real, first, end, BLOCK: tl.constexpr):
    """Return the mask of pixels and channels that exist, (P, C) or, if all channels do, (P, 1)."""
    if BLOCK.even:
        return real[:, None]
    else:
        return real[:, None] & (tl.arange(0, BLOCK.channels)[None, :] + first < end)


@triton.jit
def padding_value(fill, stride, first, end, REAL: tl.constexpr, BLOCK: tl.constexpr):
    c = tl.arange(0, BLOCK.channels)[None, :] + first
    return tl.load(fill + c.to(tl.int64) * stride, mask=c < end, other=0.0).to(REAL)


@triton.jit(do_not_specialize=NUMBERS)
def sample_kernel(
    image, image_strides, out, out_strides, data, data_strides, knots, scale, fill, fill_stride,
    looks, channels, group_channels, width, height, depth, across, down, deep, count, dividers,
    HOW: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """image (N, C, z, y, x), out (N, K, C, z, y, x), data (N, K, ..): any strides. knots (T, 2) float64, fill (C,)."""
    REAL: tl.constexpr = tl.float64 if image.dtype.element_ty == tl.float64 else tl.float32
    tile, _, look, _, start, end = program(channels, group_channels, across, down, deep, dividers, BLOCK)
    at, size, out_size = divmod(look, looks, dividers[2]), (width, height, depth), (across, down, deep)
    pixel, real = output_pixels(tile, out_size, dividers, BLOCK)
    data = image_and_look(data, data_strides, at)
    first, t, _ = source_pixels(data, data_strides[2:], knots, count, scale, pixel, real, size, out_size, REAL, HOW)
    offsets, insides = find_taps(first, size, image_strides[2:], HOW)
    weights = weights_along(columns(t, HOW), HOW)
    found, reads, weights, rest = blends(offsets, insides, weights, real[:, None], HOW, BLOCK)
    image += at[0].to(tl.int64) * image_strides[0]
    out = image_and_look(out, out_strides, at) + place(pixel, out_strides[3:], HOW)[:, None]
    for c in range(start, end, BLOCK.channels):
        wanted = among_channels(real, c, end, BLOCK)
        source = of_channels(image, image_strides[1], c, BLOCK)
        total = tl.zeros([real.shape[0], BLOCK.channels], REAL)
        if HOW.padding == ZEROS:
            blank = padding_value(fill, fill_stride, c, end, REAL, BLOCK)
            total += tl.where(rest == 0.0, 0.0, rest * blank)  # NaN times 0 is NaN
        for number in tl.static_range(HOW.taps**HOW.ndim):
            read = is_read(found[number], reads[number], wanted, BLOCK)
            total += weights[number] * tl.load(source + found[number], mask=read, other=0.0).to(REAL)
        tl.store(of_channels(out, out_strides[2], c, BLOCK), total.to(out.dtype.element_ty), mask=wanted)
