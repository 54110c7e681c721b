"""Blocks of points that are followed together, and the tasks that they form: for `simplex_flow.py` and `spline_flow.py`."""

from __future__ import annotations

import numpy as np

from stn.ops.cpu.compiling import inline, loop_fused

BLOCK = 256  # points
PITCH = BLOCK + 8  # numbers of a row: at 256, the numbers of one point compete for few lines of the cache (3-D: 3x slower)
PART = 8 * BLOCK  # points of a task at least
PARTS = 64  # tasks of an image at most


def parts_of(points: int) -> tuple[int, int]:
    """Points of a task, and tasks of an image: whatever the number of threads."""
    part = max(PART, BLOCK * -(-points // (BLOCK * PARTS)))
    return part, -(-points // part)


@inline
def at(row, lane):
    return np.uint64(row) * np.uint64(PITCH) + np.uint64(lane)


@inline
def coefficient(m, j):
    """Kutta's 3/8 rule (`ops/flows/base.py`): stage m begins at p + h sum_j a_mj v_j; stage 4 is the result."""
    if m == 4:
        return 0.375 if j == 1 or j == 2 else 0.125
    if m == j + 1:
        return 1.0 / 3.0 if m == 1 else 1.0
    return -1.0 / 3.0 if m == 2 else (1.0 if j == 0 else -1.0)


@loop_fused
def next_stage(points, d, velocities, m, h, count):
    """Rows of a block: d starts, d stages, and from `velocities` on 4 d velocities, of the stages 0 .. m - 1.

    Each stage is one loop over the points: one for each term took twice as long.
    """
    b, c, e, f = h * coefficient(m, 0), h * coefficient(m, 1), h * coefficient(m, 2), h * coefficient(m, 3)
    for a in range(d):
        first = velocities + a
        if m == 1:
            for i in range(np.uint64(count)):
                points[at(d + a, i)] = points[at(a, i)] + b * points[at(first, i)]
        elif m == 2:
            for i in range(np.uint64(count)):
                v = b * points[at(first, i)] + c * points[at(first + d, i)]
                points[at(d + a, i)] = points[at(a, i)] + v
        elif m == 3:
            for i in range(np.uint64(count)):
                v = b * points[at(first, i)] + c * points[at(first + d, i)] + e * points[at(first + 2 * d, i)]
                points[at(d + a, i)] = points[at(a, i)] + v
        else:
            for i in range(np.uint64(count)):
                v = b * points[at(first, i)] + c * points[at(first + d, i)]
                v += e * points[at(first + 2 * d, i)] + f * points[at(first + 3 * d, i)]
                points[at(d + a, i)] = points[at(a, i)] + v
