"""Blocks of points in the flow of a velocity that is affine on each simplex of a lattice of boxes: `simplex_flow.py`.

A block takes each Runge-Kutta step in two passes. Within one simplex a step is one affine map: the first pass, vector code,
takes this step for all points. The second pass takes the points whose four stages may lie in several simplices (1.3 steps
of the 8 of a point, theta of a standard deviation of 0.2), gathers them, and evaluates one stage after the other.

Positions are in boxes, 0 .. n along an axis of n boxes. `cells`: a tuple (x, y[, z]), whose length is known when compiling.
The memory of a block is an array of rows of a number for each point.
"""

from __future__ import annotations

import numpy as np

from stn.ops.cpu.compiling import inline, loop, loop_fused
from stn.ops.cpu.point_blocks import at, next_stage

# Rows of the points of a block, in this order: d positions, d next positions (later d stages), d boxes, the simplex, a sign
# for each pair of axes, d (d + 1) numbers of the simplex's step, its margin, and whether the point needs the second pass.
# Of the gathered points of the second pass: d starts, d stages, d boxes, the simplex, the signs, d (d + 1) numbers of the
# simplex's velocity, 4 d velocities of the stages.


@inline
def simplex_row(d):
    return 3 * d


@inline
def numbers_row(d):
    return 3 * d + 1 + d * (d - 1) // 2


@inline
def margin_row(d):
    return numbers_row(d) + d * (d + 1)


@inline
def rows_of(d):
    return margin_row(d) + 4 * d


# ---- the first pass ----


@loop_fused
def step_within(points, cells, count):
    d = len(cells)
    first, margin = numbers_row(d), margin_row(d)
    for i in range(np.uint64(count)):
        least = 1.0
        for a in range(d):
            row = first + a * (d + 1)
            moved = points[at(row + d, i)]
            for b in range(d):
                moved += points[at(row + b, i)] * points[at(b, i)]
            before, after = points[at(a, i)] - points[at(2 * d + a, i)], points[at(a, i)] + moved - points[at(2 * d + a, i)]
            points[at(d + a, i)] = points[at(a, i)] + moved
            least = before if before < least else least  # `after` is NaN if a point is infinite, and then no less
            least = 1.0 - before if 1.0 - before < least else least
            least = after if after < least else least
            least = 1.0 - after if 1.0 - after < least else least
        pair = 0
        for a in range(d):
            for b in range(a + 1, d):
                sign = points[at(3 * d + 1 + pair, i)]
                boxes = points[at(2 * d + a, i)] - points[at(2 * d + b, i)]
                before = sign * (points[at(a, i)] - points[at(b, i)] - boxes)
                after = sign * (points[at(d + a, i)] - points[at(d + b, i)] - boxes)
                least = before if before < least else least
                least = after if after < least else least
                pair += 1
        within = least >= points[at(margin, i)]
        for a in range(d):
            points[at(a, i)] = points[at(d + a, i)] if within else points[at(a, i)]
        points[at(margin + 1, i)] = 0.0 if within else 1.0


# ---- the second pass ----


@loop
def listed(points, row, lanes, count):
    """The points that need it."""
    n = 0
    for i in range(np.uint64(count)):
        lanes[np.uint64(n)] = i
        n += np.int64(points[at(row, i)])
    return n


@loop
def gathered(points, lanes, n, d, some):
    for k in range(np.uint64(n)):
        for a in range(d):
            p = points[at(a, lanes[k])]
            some[at(a, k)] = p
            some[at(d + a, k)] = p


@loop
def locate(some, cells, n):
    """The simplex around each stage, or around the nearest point of the border of all boxes, which replaces the stage."""
    d = len(cells)
    for k in range(np.uint64(n)):
        place = 0.0
        for i in range(d):
            axis = d - 1 - i
            most = np.float64(cells[axis])
            p = some[at(d + axis, k)]
            p = p if p > 0.0 else 0.0
            p = p if p < most else most
            box = np.floor(p)
            box = box if box < most - 1.0 else most - 1.0
            some[at(d + axis, k)] = p
            some[at(2 * d + axis, k)] = box
            place = place * most + box
        code, bit, pair = 0.0, 1.0, 0
        for a in range(d):
            for b in range(a + 1, d):
                f = some[at(d + a, k)] - some[at(2 * d + a, k)]
                g = some[at(d + b, k)] - some[at(2 * d + b, k)]
                code += bit if f >= g else 0.0
                some[at(3 * d + 1 + pair, k)] = 1.0 if f >= g else -1.0
                bit *= 2.0
                pair += 1
        some[at(simplex_row(d), k)] = place * bit + code


@loop
def fetch(some, numbers, n, d):
    for k in range(np.uint64(n)):
        start = np.uint64(np.int64(some[at(simplex_row(d), k)])) * np.uint64(d * (d + 1))
        for e in range(np.uint64(d * (d + 1))):
            some[at(numbers_row(d) + np.int64(e), k)] = numbers[start + e]


@loop_fused
def evaluate(some, n, d, j):
    """The velocities of stage j."""
    first, velocities = numbers_row(d), margin_row(d) + j * d
    for k in range(np.uint64(n)):
        for a in range(d):
            row = first + a * (d + 1)
            v = some[at(row + d, k)]
            for b in range(d):
                v += some[at(row + b, k)] * some[at(d + b, k)]
            some[at(velocities + a, k)] = v


@loop
def enter(some, lanes, n, d, steps, margins, points):
    """The points at their stages: copied back, with what the first pass needs of their simplices."""
    width = np.uint64(d * (d + 1))
    for k in range(np.uint64(n)):
        i = lanes[k]
        for a in range(d):
            points[at(a, i)] = some[at(a, k)]
        for r in range(2 * d, numbers_row(d)):
            points[at(r, i)] = some[at(r, k)]
        simplex = np.uint64(np.int64(some[at(simplex_row(d), k)]))
        for e in range(width):
            points[at(numbers_row(d) + np.int64(e), i)] = steps[simplex * width + e]
        points[at(margin_row(d), i)] = margins[simplex]


@loop
def finish(some, n, d):
    for a in range(d):
        for k in range(np.uint64(n)):
            some[at(a, k)] = some[at(d + a, k)]


@loop
def begin(points, cells, count, lanes, some, steps, margins):
    """Find the simplices at the positions of a block."""
    for i in range(np.uint64(count)):
        lanes[i] = i
    gathered(points, lanes, count, len(cells), some)
    locate(some, cells, count)
    enter(some, lanes, count, len(cells), steps, margins, points)


@loop
def step_across(points, cells, lanes, n, h, some, velocity, steps, margins, record):
    """A step of the listed points. record: (4, d + 1, BLOCK) numbers for the stages and their simplices, or none."""
    d = len(cells)
    gathered(points, lanes, n, d, some)
    for j in range(4):
        keep(some, n, d, d, 0, record, j * (d + 1))
        locate(some, cells, n)
        keep(some, n, 1, simplex_row(d), d, record, j * (d + 1))
        fetch(some, velocity, n, d)
        evaluate(some, n, d, j)
        next_stage(some, d, margin_row(d), j + 1, h, n)
    finish(some, n, d)
    locate(some, cells, n)
    enter(some, lanes, n, d, steps, margins, points)


@loop
def keep(some, n, rows, first, shift, record, to):
    if len(record) > 0:
        for r in range(rows):
            for k in range(np.uint64(n)):
                record[at(to + shift + r, k)] = some[at(first + r, k)]
