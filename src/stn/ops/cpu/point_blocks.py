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
def next_stage(points, d, start, stage, velocities, m, h, count):
    """Rows of a block: d starts, d stages, 4 d velocities, those of the stages 0 .. m - 1."""
    for a in range(d):
        for j in range(m):
            c, first = h * coefficient(m, j), start if j == 0 else stage
            for i in range(np.uint64(count)):
                points[at(stage + a, i)] = points[at(first + a, i)] + c * points[at(velocities + j * d + a, i)]
