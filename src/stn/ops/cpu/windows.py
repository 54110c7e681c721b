"""Kernels with a table, of any number of taps: forward, and both gradients. As `cubic.py`, which has four taps an axis."""

from __future__ import annotations

from stn.ops.cpu.compiling import merged
from stn.ops.cpu.coordinates_backward import clear_gradient, tiles_of_chunk
from stn.ops.cpu.cubic import begin_tile
from stn.ops.cpu.reductions import reduce_tile
from stn.ops.cpu.tile import AT_HEIGHT, fill_radial_table, part_of, place_tile, tiles_of_a_look
from stn.ops.cpu.window_pixels import blend_window_pixels, scatter_window_pixels, slope_window_pixels
from stn.ops.cpu.window_planes import blend_window_planes, scatter_window_planes, slope_window_planes

# ---- the bodies of kernels, see `kernels.py` ----


@merged
def window_forward_planes(call, memory, chunk):
    window_forward(blend_window_planes, call, memory, chunk)


@merged
def window_forward_pixels(call, memory, chunk):
    window_forward(blend_window_pixels, call, memory, chunk)


@merged
def window_forward(blend_tile, call, memory, chunk):
    tile, grid, sizes = memory.tile, call.grid, call.sizes
    start, end = part_of(chunk, call.chunks, sizes.batch * sizes.looks * tiles_of_a_look(sizes))
    for number in range(start, end):
        begin_tile(grid, sizes, tile, number)
        blend_tile(
            call.ndim, call.curve, call.image, call.out, grid, sizes, call.fill, tile.at, tile.points, tile.table,
            memory.windows,
        )  # fmt: skip


@merged
def window_coordinates_planes(call, memory, chunk):
    window_coordinates(slope_window_planes, call, memory, chunk)


@merged
def window_coordinates_pixels(call, memory, chunk):
    window_coordinates(slope_window_pixels, call, memory, chunk)


@merged
def window_coordinates(slope_tile, call, memory, chunk):
    tile, ndim, grid, sizes = memory.tile, call.ndim, call.grid, call.sizes
    start, end = tiles_of_chunk(grid, sizes, call.sums, chunk, call.chunks)
    for number in range(start, end):
        begin_tile(grid, sizes, tile, number)
        clear_gradient(ndim, tile.at[AT_HEIGHT], tile.gradient)
        slope_tile(
            ndim, call.curve, call.out, call.image, grid, sizes, call.fill, tile.at, tile.points, tile.table,
            tile.gradient, memory.windows,
        )  # fmt: skip
        reduce_tile(grid, ndim, sizes, tile.at, tile.points, tile.table, tile.gradient, call.sums, call.bends)


@merged
def window_image_planes(call, memory, chunk):
    window_image(scatter_window_planes, call, memory, chunk)


@merged
def window_image_pixels(call, memory, chunk):
    window_image(scatter_window_pixels, call, memory, chunk)


@merged
def window_image(scatter_tile, call, memory, chunk):
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
            call.ndim, call.curve, call.out, call.image, grid, sizes, c0, c1, tile.at, tile.points, tile.table,
            memory.windows,
        )  # fmt: skip
