"""Blocks of points in the flow of a velocity that is a cubic B-spline, forward and adjoint: `spline_flow.py`.

Positions are in intervals of control points: u = (x + 1) (n - 3) / 2, 0 .. n - 3 within the image. The weights of a stage
are found for all points of a block, as vector code; then its velocities, one point after the other (`spline_lanes.py`).
"""

from __future__ import annotations

import numpy as np

from stn.ops.cpu.compiling import inline, loop, loop_fused
from stn.ops.cpu.point_blocks import at, coefficient, next_stage
from stn.ops.cpu.spline_lanes import spline_pull, spline_value

# Rows of a block: d starts of a step, d stages, 4 d velocities of the stages (of the adjoint: d forces, then d gradients in
# each of the stages 1 .. 3), d numbers lambda, the place in the table. In a memory of its own: 4 d weights, 4 d derivatives.


@inline
def adjoint_row(d):
    return 6 * d


@inline
def place_row(d):
    return 7 * d


@inline
def rows_of(d):
    return 7 * d + 1


@inline
def interval_of(u, most):
    """The nearest point within the border, and where its interval begins. NaN remains."""
    u = 0.0 if u < 0.0 else u
    u = most if u > most else u
    first = np.floor(u)
    return u, first if first < most - 1.0 else most - 1.0


@loop_fused
def weigh(points, weights, shape, width, count):
    """The weights of each stage, or of the nearest point of the border, and its place in the table."""
    d = len(shape)
    for i in range(np.uint64(count)):
        place = 0.0
        for k in range(d):
            axis = d - 1 - k
            u, first = interval_of(points[at(d + axis, i)], np.float64(shape[axis] - 3))
            place = place * np.float64(shape[axis]) + first
            t = u - first
            s = 1.0 - t
            low, high = s * s * s * (1.0 / 6.0), t * t * t * (1.0 / 6.0)
            weights[at(4 * axis, i)] = low
            weights[at(4 * axis + 1, i)] = 2.0 / 3.0 - t * t * (1.0 - 0.5 * t)
            weights[at(4 * axis + 2, i)] = 2.0 / 3.0 - s * s * (1.0 - 0.5 * s)
            weights[at(4 * axis + 3, i)] = high
        points[at(place_row(d), i)] = place * width


@loop_fused
def weigh_slopes(points, weights, shape, count):
    d = len(shape)
    for i in range(np.uint64(count)):
        for axis in range(d):
            u, first = interval_of(points[at(d + axis, i)], np.float64(shape[axis] - 3))
            t = u - first
            s = 1.0 - t
            weights[at(4 * (d + axis), i)] = -0.5 * s * s
            weights[at(4 * (d + axis) + 1, i)] = t * (1.5 * t - 2.0)
            weights[at(4 * (d + axis) + 2, i)] = s * (2.0 - 1.5 * s)
            weights[at(4 * (d + axis) + 3, i)] = 0.5 * t * t


@loop
def evaluate(points, weights, table, shape, j, count):
    d = len(shape)
    values = points[np.int64(at((2 + j) * d, 0)) :]
    for i in range(np.uint64(count)):
        spline_value(weights, i, table, np.uint64(np.int64(points[at(place_row(d), i)])), values, shape)


@loop
def follow_block(points, weights, table, shape, width, count, h, steps, stages):
    """stages: (4 * steps, d rows of a block) for the adjoint, or empty."""
    d = len(shape)
    for k in range(steps):
        copy(points, 0, points, d, d, count)
        for j in range(4):
            if len(stages) > 0:
                copy(points, d, stages[4 * k + j], 0, d, count)
            weigh(points, weights, shape, width, count)
            evaluate(points, weights, table, shape, j, count)
            next_stage(points, d, 2 * d, j + 1, h, count)
        copy(points, d, points, 0, d, count)


@loop
def copy(source, first, target, to, rows, count):
    for r in range(rows):
        for i in range(np.uint64(count)):
            target[at(to + r, i)] = source[at(first + r, i)]


# ---- the adjoint ----


@loop
def pull_block(points, weights, table, shape, width, count, h, steps, stages, sums):
    """Go back from lambda after the last step to that before the first. sums: the gradient in the table."""
    d = len(shape)
    forces = points[np.int64(at(2 * d, 0)) :]
    for back in range(4 * steps):
        j, k = 3 - back % 4, 4 * steps - 1 - back
        copy(stages[k], 0, points, d, d, count)
        weigh(points, weights, shape, width, count)
        weigh_slopes(points, weights, shape, count)
        force(points, d, j, h, count)
        for i in range(np.uint64(count)):
            spline_pull(weights, i, table, np.uint64(np.int64(points[at(place_row(d), i)])), sums, forces, shape)
        pull_stage(points, shape, j, count)


@loop_fused
def force(points, d, j, h, count):
    """The gradient in v_j, from those in the result, lambda, and in the later stages."""
    for a in range(d):
        c = h * coefficient(4, j)
        for i in range(np.uint64(count)):
            points[at(2 * d + a, i)] = c * points[at(adjoint_row(d) + a, i)]
        for m in range(j + 1, 4):
            c = h * coefficient(m, j)
            for i in range(np.uint64(count)):
                points[at(2 * d + a, i)] += c * points[at((2 + m) * d + a, i)]


@loop
def pull_stage(points, shape, j, count):
    """Keep the gradient in stage j, which is a part of that in the start of the step: row 0 sums them.

    Beyond the border v is that of the nearest point, whose coordinate there has no gradient.
    """
    d = len(shape)
    for a in range(d):
        most = np.float64(shape[a] - 3)
        to = (2 + j) * d + a
        for i in range(np.uint64(count)):
            u = points[at(d + a, i)]
            slope = points[at(2 * d + a, i)] if u >= 0.0 else 0.0
            slope = slope if u <= most else 0.0
            points[at(to, i)] = slope
            points[at(a, i)] = slope + (points[at(a, i)] if j < 3 else 0.0)
        if j == 0:
            for i in range(np.uint64(count)):
                points[at(adjoint_row(d) + a, i)] += points[at(a, i)]
