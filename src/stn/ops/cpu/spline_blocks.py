"""Blocks of points in the flow of a velocity that is a cubic B-spline, forward and adjoint: `spline_flow.py`.

Positions are in intervals of control points: u = (x + 1) (n - 3) / 2, 0 .. n - 3 within the image. The weights of a stage
are found for all points of a block, as vector code; then its velocities, one point after the other (`spline_lanes.py`).
"""

from __future__ import annotations

import numpy as np

from stn.ops.cpu.compiling import inline, loop, loop_fused
from stn.ops.cpu.point_blocks import at
from stn.ops.cpu.spline_lanes import spline_pull, spline_value

# Rows of a block, d each: starts of a step, stages, sums of velocities, velocities (or forces of the adjoint), lambda; then
# the place in the table; and in a memory of its own, the weights, 4 d, and their derivatives, 4 d.


@inline
def rows_of(d):
    return 5 * d + 1


@loop_fused
def weigh(points, weights, shape, width, count):
    """The weights of each stage, or of the nearest point of the border, and its place in the table."""
    d = len(shape)
    for i in range(np.uint64(count)):
        place = 0.0
        for k in range(d):
            axis = d - 1 - k
            most = np.float64(shape[axis] - 3)
            u = points[at(d + axis, i)]
            u = 0.0 if u < 0.0 else u  # NaN remains
            u = most if u > most else u
            first = np.floor(u)
            first = first if first < most - 1.0 else most - 1.0
            place = place * np.float64(shape[axis]) + first
            t = u - first
            s = 1.0 - t
            low, high = s * s * s * (1.0 / 6.0), t * t * t * (1.0 / 6.0)
            weights[at(4 * axis, i)] = low
            weights[at(4 * axis + 1, i)] = 2.0 / 3.0 - t * t * (1.0 - 0.5 * t)
            weights[at(4 * axis + 2, i)] = 2.0 / 3.0 - s * s * (1.0 - 0.5 * s)
            weights[at(4 * axis + 3, i)] = high
        points[at(5 * d, i)] = place * width


@loop_fused
def weigh_slopes(points, weights, shape, count):
    d = len(shape)
    for i in range(np.uint64(count)):
        for axis in range(d):
            most = np.float64(shape[axis] - 3)
            u = points[at(d + axis, i)]
            u = 0.0 if u < 0.0 else u  # NaN remains
            u = most if u > most else u
            first = np.floor(u)
            first = first if first < most - 1.0 else most - 1.0
            t = u - first
            s = 1.0 - t
            weights[at(4 * (d + axis), i)] = -0.5 * s * s
            weights[at(4 * (d + axis) + 1, i)] = t * (1.5 * t - 2.0)
            weights[at(4 * (d + axis) + 2, i)] = s * (2.0 - 1.5 * s)
            weights[at(4 * (d + axis) + 3, i)] = 0.5 * t * t


@loop
def evaluate(points, weights, table, shape, count):
    d = len(shape)
    values = points[np.int64(at(3 * d, 0)) :]
    for i in range(np.uint64(count)):
        spline_value(weights, i, table, np.uint64(np.int64(points[at(5 * d, i)])), values, shape)


@loop
def stage(points, d, weight, ahead, count):
    for a in range(d):
        for i in range(np.uint64(count)):
            v = points[at(3 * d + a, i)]
            points[at(2 * d + a, i)] += weight * v
            points[at(d + a, i)] = points[at(a, i)] + ahead * v


@loop
def begin_step(points, d, count):
    for a in range(d):
        for i in range(np.uint64(count)):
            points[at(d + a, i)] = points[at(a, i)]
            points[at(2 * d + a, i)] = 0.0


@loop
def end_step(points, d, count):
    for a in range(d):
        for i in range(np.uint64(count)):
            points[at(a, i)] += points[at(2 * d + a, i)]


@loop
def follow_block(points, weights, table, shape, width, count, h, steps, stages):
    """stages: (4 * steps, d rows of a block) for the adjoint, or empty."""
    d = len(shape)
    for k in range(steps):
        begin_step(points, d, count)
        for j in range(4):
            if len(stages) > 0:
                copy(points, d, stages[4 * k + j], 0, d, count)
            weigh(points, weights, shape, width, count)
            evaluate(points, weights, table, shape, count)
            stage(points, d, h / 6 if j == 0 or j == 3 else h / 3, h / 2 if j < 2 else h, count)
        end_step(points, d, count)


@loop
def copy(source, first, target, to, rows, count):
    for r in range(rows):
        for i in range(np.uint64(count)):
            target[at(to + r, i)] = source[at(first + r, i)]


# ---- the adjoint ----


@loop
def pull_block(points, weights, table, shape, width, count, h, steps, stages, sums):
    """From lambda after the last step to that before the first. sums: the gradient in the table."""
    d = len(shape)
    forces = points[np.int64(at(3 * d, 0)) :]
    for back in range(4 * steps):
        j, k = 3 - back % 4, 4 * steps - 1 - back
        copy(stages[k], 0, points, d, d, count)
        weigh(points, weights, shape, width, count)
        weigh_slopes(points, weights, shape, count)
        begin_pull(points, d, h / 6 if j == 0 or j == 3 else h / 3, 0.0 if j == 3 else (h if j == 2 else h / 2), count)
        for i in range(np.uint64(count)):
            spline_pull(weights, i, table, np.uint64(np.int64(points[at(5 * d, i)])), sums, forces, shape)
        end_pull(points, shape, count, j == 0)


@loop
def begin_pull(points, d, weight, ahead, count):
    """The gradient in v_j: p' = p + sum_j weight_j v_j, and stage j + 1 lies ahead_j v_j from the start of the step."""
    for a in range(d):
        for i in range(np.uint64(count)):
            points[at(3 * d + a, i)] = weight * points[at(4 * d + a, i)] + ahead * points[at(2 * d + a, i)]
            # rows 0 .. d - 1 gather what the stages add to lambda
            points[at(a, i)] = points[at(a, i)] if ahead > 0.0 else 0.0


@loop
def end_pull(points, shape, count, last):
    """Beyond the border v is that of the nearest point, whose coordinate there has no gradient."""
    d = len(shape)
    for a in range(d):
        most = np.float64(shape[a] - 3)
        for i in range(np.uint64(count)):
            u = points[at(d + a, i)]
            slope = points[at(3 * d + a, i)] if u >= 0.0 else 0.0
            slope = slope if u <= most else 0.0
            points[at(2 * d + a, i)] = slope
            points[at(a, i)] += slope
            points[at(4 * d + a, i)] += points[at(a, i)] if last else 0.0
