"""Walks over tiles of kernels with more than two taps an axis: forward, and both gradients.

For each row of a tile, the taps along each axis are found once for all channels. The weight of a tap is the product of its
weights along the axes, so the weight of the fill value, and all derivatives, are products of sums along single axes.
"""

from __future__ import annotations

from stn.ops.cpu.compiling import inline, merged
from stn.ops.cpu.coordinates_backward import clear_gradient, tiles_of_chunk
from stn.ops.cpu.reductions import reduce_tile
from stn.ops.cpu.tile import AT_HEIGHT, fill_radial_table, look_and_tile, part_of, place_tile, tiles_of_a_look

# ---- curve: the weights of a tap by its distance. taps: memory for a row of pixels ----


@merged
def tapped_forward(blend_tile, curve, taps, call, memory, chunk):
    tile, grid, sizes = memory.tile, call.grid, call.sizes
    start, end = part_of(chunk, call.chunks, sizes.batch * sizes.looks * tiles_of_a_look(sizes))
    for number in range(start, end):
        begin_tile(grid, sizes, tile, number)
        blend_tile(
            call.ndim, curve, call.image, call.out, grid, sizes, call.fill, tile.at, tile.points, tile.table, taps
        )  # fmt: skip


@merged
def tapped_coordinates(slope_tile, curve, taps, call, memory, chunk):
    tile, ndim, grid, sizes = memory.tile, call.ndim, call.grid, call.sizes
    start, end = tiles_of_chunk(grid, sizes, call.sums, chunk, call.chunks)
    for number in range(start, end):
        begin_tile(grid, sizes, tile, number)
        clear_gradient(ndim, tile.at[AT_HEIGHT], tile.gradient)
        slope_tile(
            ndim, curve, call.out, call.image, grid, sizes, call.fill, tile.at, tile.points, tile.table, tile.gradient, taps
        )  # fmt: skip
        reduce_tile(grid, ndim, sizes, tile.at, tile.points, tile.table, tile.gradient, call.sums, call.bends)


@merged
def tapped_image(scatter_tile, curve, taps, call, memory, chunk):
    """Work is divided by what is written, images and groups of channels: no two threads add to the same pixel."""
    tile, grid, sizes, groups = memory.tile, call.grid, call.sizes, call.groups
    count = tiles_of_a_look(sizes)
    start, end = part_of(chunk, call.chunks, sizes.batch * groups)
    for step in range((end - start) * sizes.looks * count):
        task = start + step // (sizes.looks * count)
        n, group = task // groups, task % groups
        place_tile(sizes, n * sizes.looks + step // count % sizes.looks, step % count, tile.at)
        fill_radial_table(grid, sizes, tile)
        c0, c1 = sizes.channels * group // groups, sizes.channels * (group + 1) // groups
        scatter_tile(
            call.ndim, curve, call.out, call.image, grid, sizes, c0, c1, tile.at, tile.points, tile.table, taps
        )  # fmt: skip


@inline
def begin_tile(grid, sizes, tile, number):
    look, within = look_and_tile(grid, sizes, number)
    place_tile(sizes, look, within, tile.at)
    fill_radial_table(grid, sizes, tile)
