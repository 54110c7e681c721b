"""Tiles: what a kernel needs to know of a patch of the output, once for all channels.

Its rows are blocks of neighboring pixels, each of which lies inside the image, sees nothing of it, or is mixed: `taps.py`.

Offsets are unsigned: signed ones make Numba emit branches for wrap-around.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from stn.ops.cpu.compiling import inline, loop
from stn.ops.cpu.lanes import LANES
from stn.ops.cpu.taps import BLOCKS, COLUMNS, INSIDE, KINDS, MIXED, STRIDE, sort_blocks, store_mixed
from stn.ops.cpu.words import call_at, call_with

# What stands in `Tile.at`: the look, where the tile begins and how large it is, its number within the look, and the
# number of the tile whose radial functions the table has. Then addresses: of the words, of the chunk's memory, and of the
# kernels that find the points of a row, a tile's taps, and those along one axis.
ATS = range(13)
AT_LOOK, AT_X, AT_Y, AT_Z, AT_WIDTH, AT_HEIGHT, AT_NUMBER, AT_TABLE, AT_WORDS, AT_MEMORY, AT_POINTS, AT_TAPS, AT_AXIS = ATS

# Channels of a row that are blended together, so that taps and weights are loaded once for them. At 16x64x7x7: 269 us one
# by one, 125 by 8, 94 by 16. Large planes may begin at the same place of a cache, which has 8 to 12 lines for them.
PLANES, MANY_PLANES, SMALL_PLANE = 8, 16, 4096
NEAR = 3  # blocks between two mixed runs whose taps are found together: fewer and longer loops are faster
FEW = 8  # pixels of the box that is read, to one of the tile
LINE = 64  # bytes


class Sizes(NamedTuple):
    """The sizes of one call, all integers; 2-D has a depth of 1."""

    batch: Any
    looks: Any
    channels: Any
    width: Any  # of the image
    height: Any
    depth: Any
    across: Any  # of the output
    down: Any
    deep: Any
    rows: Any  # of a tile
    padding: Any
    align_corners: Any


class Tile(NamedTuple):
    """One tile: its place, then its pixels, at r * STRIDE + j. Each thread has one and fills it again for each tile."""

    at: Any  # (13,) int64, by the names above
    box: Any  # (4,) int64: first and last + 1 column, first and last + 1 row that its interior pixels read
    points: Any  # (3, COLUMNS) float64, source pixels of a row
    table: Any  # (T, rows * COLUMNS) float64, the radial functions
    runs: Any  # (rows * BLOCKS,) int64, where a run of blocks of one kind begins: its kind, and KINDS times its length
    offset: Any  # (area,) uint32, of pixels in blocks inside
    fraction: Any  # (3 * area,) float, theirs on each axis
    near: Any  # (3 * area,) uint32, of pixels in mixed blocks: the lower tap on each axis, as an offset
    far: Any  # (3 * area,) uint32, the upper tap
    weight: Any  # (7 * area,) float, of the lower and the upper tap in x, in y, in z; then that of the fill value
    slope: Any  # (6 * area,) float, derivatives of the former in x, y, z
    gradient: Any  # (3 * area,) float, the loss's derivative in the source pixel
    prefetched: Any  # (1,) float, the sum of what was prefetched, which keeps the loads from being optimized away
    frame: Any  # float, a small image with its frame: `framed.py`


def tile_arrays(rows: int, knots: int, real: Any, frame: int = 0) -> dict[str, tuple[tuple[int, ...], Any]]:
    """Return the shape and the dtype of each array of a tile."""
    area = rows * STRIDE
    return {
        "at": ((len(ATS),), np.int64), "box": ((4,), np.int64), "points": ((4, COLUMNS), np.float64),
        "table": ((knots, rows * COLUMNS), np.float64), "runs": ((rows * BLOCKS,), np.int64), "offset": ((area,), np.uint32),
        "fraction": ((3 * area,), real), "near": ((3 * area,), np.uint32), "far": ((3 * area,), np.uint32),
        "weight": ((7 * area,), real), "slope": ((6 * area,), real), "gradient": ((3 * area,), real),
        "prefetched": ((1,), real), "frame": ((frame,), real),
    }  # fmt: skip


@inline
def part_of(chunk, chunks, count):
    """Return the first and the last + 1 of the `count` pieces of work that belong to a chunk."""
    return count * chunk // chunks, count * (chunk + 1) // chunks


@inline
def tiles_of_a_look(sizes):
    return -(-sizes.across // COLUMNS) * -(-sizes.down // sizes.rows) * sizes.deep


@loop
def prefetch(image, plane, width, left, right, top, bottom, planes, apart):
    """Read a box once in memory order, a number a cache line: rotated rows alone would wait for memory at every step.

    Forward at 1x64x256x256: 1.8 ns a pixel with it, 4.9 without.
    """
    total, step = image[plane], np.uint64(LINE // image.itemsize)
    for c in range(np.uint64(planes)):
        for y in range(np.uint64(top), np.uint64(bottom)):
            first = plane + c * np.uint64(apart) + y * np.uint64(width)
            for x in range(np.uint64(left), np.uint64(right), step):
                total += image[first + x]
    return total


@inline
def look_and_tile(shared, sizes, number):
    """The tiles of a look follow each other, or if all looks share its table, the looks at a tile."""
    tiles, looks = tiles_of_a_look(sizes), sizes.batch * sizes.looks
    return (number % looks, number // looks) if shared else (number // tiles, number % tiles)


@inline
def place_tile(sizes, look, within, at):
    columns, lines = -(-sizes.across // COLUMNS), -(-sizes.down // sizes.rows)
    at[AT_LOOK], at[AT_NUMBER] = look, within
    at[AT_X], at[AT_Y], at[AT_Z] = (
        within % columns * COLUMNS,
        within // columns % lines * sizes.rows,
        within // (columns * lines),
    )
    at[AT_WIDTH], at[AT_HEIGHT] = min(COLUMNS, sizes.across - at[AT_X]), min(sizes.rows, sizes.down - at[AT_Y])


@inline
def planes_at_once(sizes):
    return MANY_PLANES if sizes.width * sizes.height * sizes.depth <= SMALL_PLANE else PLANES


@inline
def channel_starts(sizes, at, c):
    """NCHW: flat indices of channel c of the image that a tile looks at, and of the tile's first pixel in the output."""
    plane = np.uint64((at[AT_LOOK] // sizes.looks * sizes.channels + c) * sizes.width * sizes.height * sizes.depth)
    first = (((at[AT_LOOK] * sizes.channels + c) * sizes.deep + at[AT_Z]) * sizes.down + at[AT_Y]) * sizes.across + at[AT_X]
    return plane, first


@inline
def pixel_starts(sizes, at):
    """Channels last: the same in pixels."""
    plane = np.uint64(at[AT_LOOK] // sizes.looks * sizes.width * sizes.height * sizes.depth)
    return plane, ((at[AT_LOOK] * sizes.deep + at[AT_Z]) * sizes.down + at[AT_Y]) * sizes.across + at[AT_X]


@inline
def row_start(sizes, at, r):
    """The first pixel of row r of a tile: its flat index in the output, and its centered coordinates."""
    x, y, z = at[AT_X], at[AT_Y] + r, at[AT_Z]
    start = np.uint64((z * sizes.down + y) * sizes.across + x)
    return start, x - (sizes.across - 1) / 2, y - (sizes.down - 1) / 2, z - (sizes.deep - 1) / 2


@inline
def find_points(at, r):
    """Write the points of row r of a tile, by the kernel of its rule."""
    call_at(at[AT_POINTS], at[AT_WORDS], at[AT_MEMORY], r)


@inline
def fill_tile(derivative, low, high, at):
    """Fill in the tile that has been placed. Taps outside low .. high on the slowest axis are left out.

    derivative: also of the taps' weights. The last pixel, x = n - 1, then lies in no block inside, because as the end of
    the pixel before it, with fraction 1, it would have the derivative to the left.
    """
    call_with(at[AT_TAPS], (at[AT_WORDS], at[AT_MEMORY], np.int64(low), np.int64(high), np.int64(derivative)))


@inline
def reduce_tile(reduction, at):
    """Write sums and bends, or the gradient of a field, from the gradient of each pixel of a tile, by the kernel of its rule
    at this address."""
    call_at(reduction, at[AT_WORDS], at[AT_MEMORY], 0)


@loop
def fill_rows(derivative, sizes, low, high, at, box, points, runs, offset, fraction, near, far, weight, slope):
    w, h, d, width = sizes.width, sizes.height, sizes.depth, at[AT_WIDTH]
    other = at[AT_AXIS], at[AT_WORDS], at[AT_MEMORY]
    box[0], box[1], box[2], box[3] = w, 0, h, 0
    for r in range(at[AT_HEIGHT]):
        find_points(at, r)
        first, block = r * STRIDE, r * BLOCKS
        sort_blocks(not derivative, sizes.padding, points, w, h, d, low, high, width, block, runs, first, offset, fraction)
        a = 0
        while a < width:
            what, b = run_from(runs, block, a, width)
            if what == INSIDE:
                widen_box(box, points[0, a], points[1, a], w, h)
                widen_box(box, points[0, b - 1], points[1, b - 1], w, h)
            elif what == MIXED:
                b = next_to_mixed(runs, block, b, width)
                store_mixed(derivative, sizes, points, a, b, low, high, first, near, far, weight, slope, other)
            a = b
    # Reading it beforehand is worth it if most of it is needed.
    if (box[1] - box[0]) * (box[3] - box[2]) > FEW * width * at[AT_HEIGHT]:
        box[0], box[1], box[2], box[3] = 0, 0, 0, 0


@inline
def run_from(runs, block, start, width):
    """The kind of the block at pixel `start` of a row, where a run of that kind begins, and where the run ends."""
    run = runs[block + start // LANES]
    return run % KINDS, min(start + run // KINDS * LANES, width)


@inline
def next_to_mixed(runs, block, end, width):
    """Return the end of a chain of mixed runs that begins with the one that ends at `end`: gaps of at most NEAR blocks."""
    last = after = end
    while after < width and after < last + NEAR * LANES:
        what, after = run_from(runs, block, after, width)
        last = after if what == MIXED else last
    return last


@inline
def misses_band(at, points, i, n, low, high):
    """Return True if no pixel of a tile whose points lie on straight lines can read rows low .. high of axis i."""
    if low == 0 and high == n:
        return False
    find_points(at, 0)
    a, b = points[i, 0], points[i, at[AT_WIDTH] - 1]
    find_points(at, at[AT_HEIGHT] - 1)
    c, d = points[i, 0], points[i, at[AT_WIDTH] - 1]
    least, most = min(min(a, b), min(c, d)), max(max(a, b), max(c, d))
    return (least >= 0) & (most <= n - 1) & ((most + 1 < low - 1) | (least >= high + 1))


@inline
def widen_box(box, x, y, w, h):
    box[0], box[1] = min(box[0], int(x)), max(box[1], min(int(x) + 2, w))
    box[2], box[3] = min(box[2], int(y)), max(box[3], min(int(y) + 2, h))
