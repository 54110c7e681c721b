"""The flow of a velocity that is affine on each simplex of a lattice of boxes, and its adjoint: kernels and their calls.

`ops/flows/simplices.py` has the formula. A task is a part of the points of one image. Each task of the adjoint has its own
sums, which are then added in the order of tasks: the result does not depend on the number of threads.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache, partial
from typing import Any

import numpy as np
from numba import prange
from torch import Tensor

from stn.ops.cpu.compiling import inline, inline_new, loop
from stn.ops.cpu.flow_calls import COST, displacements, gradients
from stn.ops.cpu.point_blocks import BLOCK, PITCH, at, parts_of
from stn.ops.cpu.simplex_backward import adjoint_rows, enter_back, flush, pull_across, pull_within
from stn.ops.cpu.simplex_blocks import begin, listed, margin_row, rows_of, simplex_row, step_across, step_within
from stn.ops.cpu.simplex_tables import fill_tables, pull_tables
from stn.ops.cpu.threads import chunk_count, thread_count
from stn.ops.flows.simplices import Simplices, order_of_axes
from stn.ops.layout import plain

FAR = 1e9  # boxes


def follow(flow: Simplices, nodes: Tensor, xy: Tensor) -> Tensor:
    """Return the displacements (N, P, d) of points xy (N or 1, P, d) under the velocities (N, *nodes, d)."""
    return displacements(nodes, xy, partial(_prepared, flow, nodes, xy), simplex_flow)


def gradient(
    flow: Simplices, grad: Tensor, nodes: Tensor, xy: Tensor, need: Sequence[bool]
) -> tuple[Tensor | None, Tensor | None]:
    """Return the gradients in the velocities and in the points, those that are needed."""
    prepared, shape = partial(_prepared, flow, nodes, xy), (math.prod(nodes.shape[1:]),)
    found, in_xy = gradients(grad, nodes, xy, need, prepared, simplex_adjoint, shape)
    return None if found is None else found.to(nodes.dtype).view(nodes.shape), in_xy


def _prepared(flow: Simplices, nodes: Tensor, xy: Tensor, kernel: Any, *rest: Any) -> tuple[Any, ...]:
    cells = tuple(n - 1 for n in reversed(nodes.shape[1:-1]))
    numbers = plain(nodes).double().flatten(1).contiguous().numpy(), plain(xy).double().contiguous().numpy()
    threads = thread_count(nodes.shape[0] * xy.shape[1] * COST)
    how = cells, orders_of(len(cells)), 1 / flow.steps, flow.steps, parts_of(xy.shape[1])[0], chunk_count(threads)
    return threads, kernel, *numbers, *how, *rest


@lru_cache
def orders_of(d: int) -> Any:
    return np.array([order_of_axes(code, d) for code in range(2 ** (d * (d - 1) // 2))])


# ---- kernels: `compiled` as serial or parallel ----


def simplex_flow(nodes, xy, cells, orders, h, steps, part, chunks, out):
    d, count, images = len(cells), xy.shape[1], len(nodes)
    parts = -(-count // part)
    for chunk in prange(chunks):
        velocity, step, margins, power = new_tables(cells, len(orders))
        points, some, lanes, counts = new_block(d, 1)
        none, known = np.empty((0, 0)), -1
        for task in range(images * parts * chunk // chunks, images * parts * (chunk + 1) // chunks):
            image, first = task // parts, task % parts * part
            if image != known:
                fill_tables(nodes[image], cells, orders, h, velocity, step, margins, power)
                known = image
            tables = velocity.ravel(), step.ravel(), margins
            given = xy[min(image, len(xy) - 1)]
            for start in range(first, min(first + part, count), BLOCK):
                n = min(BLOCK, count - start)
                read(given, start, cells, n, points)
                follow_block(points, cells, n, h, steps, tables, some, lanes, counts, none, none)
                write(points, given, start, cells, n, out, (image * count + start) * d)


def simplex_adjoint(nodes, xy, cells, orders, h, steps, part, chunks, grad, sums, in_points):
    d, count, images = len(cells), xy.shape[1], len(nodes)
    parts = -(-count // part)
    for chunk in prange(chunks):
        velocity, step, margins, power = new_tables(cells, len(orders))
        in_velocity, in_step = np.empty_like(velocity), np.empty_like(step)
        points, some, lanes, counts = new_block(d, steps)
        path, record = np.empty((steps, (d + 1) * PITCH)), np.empty((steps, 4 * (d + 1) * PITCH))
        adjoint, memory, known = np.empty(adjoint_rows(d) * PITCH), np.empty(6 * d), -1
        for task in range(images * parts * chunk // chunks, images * parts * (chunk + 1) // chunks):
            image, first = task // parts, task % parts * part
            if image != known:
                fill_tables(nodes[image], cells, orders, h, velocity, step, margins, power)
                known = image
            in_velocity[:], in_step[:] = 0.0, 0.0
            tables = velocity.ravel(), step.ravel(), margins
            both = in_velocity.ravel(), in_step.ravel()
            for start in range(first, min(first + part, count), BLOCK):
                n = min(BLOCK, count - start)
                read(xy[min(image, len(xy) - 1)], start, cells, n, points)
                follow_block(points, cells, n, h, steps, tables, some, lanes, counts, path, record)
                begin_back(points, grad[image], start, cells, n, tables[1], adjoint)
                pull_block(adjoint, cells, n, h, steps, tables, lanes, counts, path, record, both, memory)
                if len(in_points) > 0:
                    write_back(adjoint, grad[image], start, cells, n, in_points[image])
            pull_tables(cells, orders, h, velocity, in_velocity, in_step, power, sums[image, task % parts])


@inline
def follow_block(points, cells, count, h, steps, tables, some, lanes, counts, path, record):
    """Follow a block. If there is memory for it, the adjoint's, keep its positions and what the second pass has found."""
    d, (velocity, step, margins) = len(cells), tables
    begin(points, cells, count, lanes[0], some, step, margins)
    for k in range(steps):
        if len(path) > 0:
            remember(points, 0, d, count, path[k], 0)
        step_within(points, cells, count)
        if len(path) > 0:
            remember(points, margin_row(d) + 1, 1, count, path[k], d)
            counts[k] = listed(points, margin_row(d) + 1, lanes[k], count)
            step_across(points, cells, lanes[k], counts[k], h, some, velocity, step, margins, record[k])
        else:
            n = listed(points, margin_row(d) + 1, lanes[0], count)
            step_across(points, cells, lanes[0], n, h, some, velocity, step, margins, some[:0])


@inline
def pull_block(adjoint, cells, count, h, steps, tables, lanes, counts, path, record, sums, memory):
    d = len(cells)
    for back in range(steps):
        k = steps - 1 - back
        pull_within(adjoint, path[k], d, count)
        pull_across(adjoint, cells, lanes[k], counts[k], h, record[k], tables[0], tables[1], sums[0], sums[1], memory)
    for i in range(count):
        flush(adjoint, d, i, sums[1])


@inline_new
def new_block(d, steps):
    rows = rows_of(d) * PITCH
    return np.empty(rows), np.empty(rows), np.empty((steps, BLOCK + 1), np.int64), np.empty(steps, np.int64)


@inline_new
def new_tables(cells, codes):
    d, simplices = len(cells), codes
    for n in cells:
        simplices *= n
    width = d * (d + 1)
    return np.empty((simplices, width)), np.empty((simplices, width)), np.empty(simplices), np.empty(3 * d * d + 4 * d)


@loop
def read(xy, start, cells, count, points):
    for a in range(len(cells)):
        for i in range(np.uint64(count)):
            points[at(a, i)] = (xy[np.uint64(start) + i, a] + 1.0) * (cells[a] / 2)


@loop
def write(points, xy, start, cells, count, out, to):
    """The displacement: zero if a point stayed, or is infinite, which it then remains."""
    d = len(cells)
    for i in range(np.uint64(count)):
        for a in range(d):
            before = (xy[np.uint64(start) + i, a] + 1.0) * (cells[a] / 2)
            moved = (points[at(a, i)] - before) * (2 / cells[a])
            out[np.uint64(to) + i * np.uint64(d) + np.uint64(a)] = 0.0 if abs(before) == np.inf else moved


@loop
def remember(points, first, rows, count, found, to):
    """Keep positions, except infinite ones, which are in no simplex: the adjoint multiplies them by zero."""
    for r in range(rows):
        for i in range(np.uint64(count)):
            p = points[at(first + r, i)]
            p = p if p > -FAR else 0.0
            found[at(to + r, i)] = p if p < FAR else 0.0


@loop
def begin_back(points, grad, start, cells, count, steps, adjoint):
    d = len(cells)
    adjoint[:] = 0.0
    for i in range(np.uint64(count)):
        for a in range(d):
            adjoint[at(a, i)] = grad[np.uint64(start) + i, a] * (2 / cells[a])
        enter_back(adjoint, d, i, points[at(simplex_row(d), i)], steps)


@loop
def write_back(adjoint, grad, start, cells, count, found):
    for i in range(np.uint64(count)):
        for a in range(len(cells)):
            k = np.uint64(start) + i
            found[k, a] = adjoint[at(a, i)] * (cells[a] / 2) - grad[k, a]
