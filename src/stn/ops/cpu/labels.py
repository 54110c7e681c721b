"""Nearest neighbor of integers, which pass through unchanged: label maps and masks. Forward alone.

An integer of any kind is copied as an unsigned one of its size.
"""

from __future__ import annotations

import numpy as np

from stn.ops.cpu.compiling import loop, merged
from stn.ops.cpu.forward import copy_pixels, copy_row, forward_chunk
from stn.ops.cpu.taps import BLOCKS, INSIDE, MIXED, STRIDE
from stn.ops.cpu.tile import AT_HEIGHT, AT_WIDTH, channel_starts, pixel_starts, run_from

# ---- the bodies of kernels, see `kernels.py` ----


@merged
def label_planes(call, memory, chunk):
    forward_chunk(pick_tile_planes, call, memory, chunk)


@merged
def label_pixels(call, memory, chunk):
    forward_chunk(pick_tile_pixels, call, memory, chunk)


@loop
def pick_tile_planes(image, out, sizes, at, box, runs, offset, fraction, near, far, weight, fill, prefetched):
    for c in range(sizes.channels):
        plane, first = channel_starts(sizes, at, c)
        for r in range(at[AT_HEIGHT]):
            to, start = first + r * sizes.across, 0
            while start < at[AT_WIDTH]:
                what, end = run_from(runs, r * BLOCKS, start, at[AT_WIDTH])
                if what == INSIDE:
                    copy_row(image, plane, offset, r, start, end, out, to, 1, 0, 0)
                elif what == MIXED:
                    pick_row(image, plane, near, weight, r, start, end, out, to, fill[c])
                else:
                    for j in range(np.uint64(to + start), np.uint64(to + end)):
                        out[j] = fill[c]
                start = end


@loop
def pick_row(image, plane, near, weight, r, a, b, out, first, fill):
    """The weight of the only tap is 1, or 0, or NaN: integers have no NaN, so the fill value stands for it."""
    for j in range(np.uint64(a), np.uint64(b)):
        i = np.uint64(r * STRIDE) + j
        value = image[plane + np.uint64(near[i])]
        out[np.uint64(first) + j] = value if weight[i] == 1 else fill


@loop
def pick_tile_pixels(image, out, sizes, at, box, runs, offset, fraction, near, far, weight, fill, prefetched):
    (plane, first), n = pixel_starts(sizes, at), np.uint64(sizes.channels)
    for r in range(at[AT_HEIGHT]):
        to, start = first + r * sizes.across, 0
        while start < at[AT_WIDTH]:
            what, end = run_from(runs, r * BLOCKS, start, at[AT_WIDTH])
            if what == INSIDE:
                copy_pixels(image, plane, offset, r, start, end, out, to, sizes.channels)
            else:
                for j in range(np.uint64(start), np.uint64(end)):
                    i = np.uint64(r * STRIDE) + j
                    seen = what == MIXED and weight[i] == 1
                    k, m = (plane + np.uint64(near[i] if seen else 0)) * n, (np.uint64(to) + j) * n
                    for c in range(n):
                        out[m + c] = image[k + c] if seen else fill[c]
            start = end
