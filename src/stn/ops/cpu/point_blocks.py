"""Blocks of points that are followed together, and the tasks that they form: for `simplex_flow.py` and `spline_flow.py`."""

from __future__ import annotations

import numpy as np

from stn.ops.cpu.compiling import inline

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
