"""The adjoint of `simplex_blocks.py`: from the last step of a block back to its first.

Along a step within a simplex, lambda' = lambda + R^T lambda, and the gradient in R is the sum of lambda (p, 1)^T. It is
summed a point while the point's simplex stays the same, then added to that of the simplex.
"""

from __future__ import annotations

import numpy as np

from stn.ops.cpu.compiling import inline, loop, loop_fused
from stn.ops.cpu.point_blocks import at, coefficient

# Rows of a block: d numbers lambda, the simplex, d (d + 1) numbers of its step, as many sums, d numbers of memory.


@inline
def step_row(d):
    return d + 1


@inline
def sums_row(d):
    return d + 1 + d * (d + 1)


@inline
def adjoint_rows(d):
    return sums_row(d) + d * (d + 1) + d


@loop_fused
def pull_within(adjoint, path, d, count):
    """path: (d + 1, BLOCK), the positions before the step, and whether it was one of the second pass."""
    scratch = sums_row(d) + d * (d + 1)
    for i in range(np.uint64(count)):
        share = 1.0 - path[at(d, i)]
        for b in range(d):
            total = adjoint[at(b, i)]
            for a in range(d):
                total += adjoint[at(step_row(d) + a * (d + 1) + b, i)] * (share * adjoint[at(a, i)])
            adjoint[at(scratch + b, i)] = total
        for a in range(d):
            row, force = sums_row(d) + a * (d + 1), share * adjoint[at(a, i)]
            for b in range(d):
                adjoint[at(row + b, i)] += force * path[at(b, i)]
            adjoint[at(row + d, i)] += force
        for a in range(d):
            adjoint[at(a, i)] = adjoint[at(scratch + a, i)]


@loop
def flush(adjoint, d, i, sums):
    """Add what a point has summed to its simplex."""
    start = np.uint64(np.int64(adjoint[at(d, i)])) * np.uint64(d * (d + 1))
    for e in range(np.uint64(d * (d + 1))):
        row = sums_row(d) + np.int64(e)
        sums[start + e] += adjoint[at(row, i)]
        adjoint[at(row, i)] = 0.0


@loop
def enter_back(adjoint, d, i, simplex, steps):
    """Make a simplex that of a point."""
    adjoint[at(d, i)] = simplex
    start = np.uint64(np.int64(simplex)) * np.uint64(d * (d + 1))
    for e in range(np.uint64(d * (d + 1))):
        adjoint[at(step_row(d) + np.int64(e), i)] = steps[start + e]


@loop
def pull_across(adjoint, cells, lanes, n, h, record, velocity, steps, sums, step_sums, memory):
    """Go back through the four stages. memory: d numbers lambda, d for the gradient in v_j, d for that in each stage."""
    d = len(cells)
    for k in range(np.uint64(n)):
        i = lanes[k]
        flush(adjoint, d, i, step_sums)
        for a in range(d):
            memory[a] = adjoint[at(a, i)]
        for back in range(4):
            j = 3 - back
            for a in range(d):
                total = coefficient(4, j) * memory[a]
                for m in range(j + 1, 4):
                    total += coefficient(m, j) * memory[(2 + m) * d + a]
                memory[d + a] = h * total
            pull_stage(adjoint, cells, i, k, record, j, velocity, sums, memory)
        enter_back(adjoint, d, i, record[at(d, k)], steps)


@loop
def pull_stage(adjoint, cells, i, k, record, j, velocity, sums, memory):
    """Beyond the border v is that of the nearest point, whose coordinate there has no gradient."""
    d, stage = len(cells), j * (len(cells) + 1)
    start = np.int64(record[at(stage + d, k)]) * (d * (d + 1))
    for b in range(d):
        raw, most, total = record[at(stage + b, k)], np.float64(cells[b]), 0.0
        p = raw if raw > 0.0 else 0.0
        p = p if p < most else most
        for a in range(d):
            sums[np.uint64(start + a * (d + 1) + b)] += memory[d + a] * p
            total += memory[d + a] * velocity[np.uint64(start + a * (d + 1) + b)]
        total = total if p == raw else 0.0
        memory[(2 + j) * d + b] = total
        adjoint[at(b, i)] += total
    for a in range(d):
        sums[np.uint64(start + a * (d + 1) + d)] += memory[d + a]
