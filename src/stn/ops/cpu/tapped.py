"""Walks over tiles of kernels with more than two taps an axis: forward, and both gradients.

For each row of a tile, the taps along each axis are found once for all channels. The weight of a tap is the product of its
weights along the axes, so the weight of the fill value, and all derivatives, are products of sums along single axes.
"""

from __future__ import annotations

from stn.ops.cpu.compiling import inline, merged
from stn.ops.cpu.coordinates_backward import clear_gradient, tiles_of_chunk
from stn.ops.cpu.tile import AT_HEIGHT, look_and_tile, part_of, place_tile, reduce_tile, tiles_of_a_look

# ---- curve: the weights of a tap by its distance. taps: memory for a row of pixels ----


@merged
def tapped_forward(blend_tile, curve, taps, call, memory, chunk):
    tile, sizes, at = memory.tile, call.sizes, memory.tile.at
    start, end = part_of(chunk, call.chunks, sizes.batch * sizes.looks * tiles_of_a_look(sizes))
    for number in range(start, end):
        begin_tile(call.shared, sizes, at, number)
        blend_tile(curve, call.image, call.out, sizes, call.fill, at, tile.points, taps)


@merged
def tapped_coordinates(slope_tile, curve, taps, call, memory, chunk):
    tile, sizes, at = memory.tile, call.sizes, memory.tile.at
    start, end = tiles_of_chunk(sizes, call.pieces, chunk, call.chunks)
    for number in range(start, end):
        begin_tile(call.shared, sizes, at, number)
        clear_gradient(at[AT_HEIGHT], tile.gradient)
        slope_tile(curve, call.out, call.image, sizes, call.fill, at, tile.points, tile.gradient, taps)
        reduce_tile(call.reduction, at)


@merged
def tapped_image(scatter_tile, curve, taps, call, memory, chunk):
    """Work is divided by what is written, images and groups of channels: no two threads add to the same pixel."""
    tile, sizes, groups = memory.tile, call.sizes, call.groups
    count = tiles_of_a_look(sizes)
    start, end = part_of(chunk, call.chunks, sizes.batch * groups)
    for step in range((end - start) * sizes.looks * count):
        task = start + step // (sizes.looks * count)
        n, group = task // groups, task % groups
        place_tile(sizes, n * sizes.looks + step // count % sizes.looks, step % count, tile.at)
        c0, c1 = sizes.channels * group // groups, sizes.channels * (group + 1) // groups
        scatter_tile(curve, call.out, call.image, sizes, c0, c1, tile.at, tile.points, taps)


@inline
def begin_tile(shared, sizes, at, number):
    look, within = look_and_tile(shared, sizes, number)
    place_tile(sizes, look, within, at)
