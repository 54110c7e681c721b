"""The flow of a velocity that is affine on each simplex of a lattice of boxes, and its adjoint: kernels and their calls.

`ops/flows/simplices.py` has the formula. A task is a part of the points of one image. Each task of the adjoint has its own
sums, which are then added in the order of tasks: the result does not depend on the number of threads.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numba import prange
from torch import Tensor

from stn.ops.cpu.compiling import inline, loop
from stn.ops.cpu.memory import empty_permuted, flat
from stn.ops.cpu.simplex_backward import adjoint_rows, enter_back, flush, pull_across, pull_within
from stn.ops.cpu.simplex_blocks import BLOCK, at, begin, listed, margin_row, rows_of, simplex_row, step_across, step_within
from stn.ops.cpu.simplex_tables import fill_tables, pull_tables
from stn.ops.cpu.threads import chunk_count, run, thread_count
from stn.ops.flows.simplices import order_of_axes
from stn.ops.layout import plain

PART = 8 * BLOCK  # points of a task at least
PARTS = 64  # tasks of an image at most
COST = 32  # of a point, in pixels of `thread_count`


def flow(maps: Tensor, xy: Tensor, cells: Sequence[int], steps: int) -> Tensor:
    """Displacements (N, P, d) of points xy (N or 1, P, d) under the maps (N, S, d (d+1))."""
    real = torch.float64 if torch.float64 in (maps.dtype, xy.dtype) else torch.float32
    out = empty_permuted((len(maps), *xy.shape[1:]), range(3), real)
    if out.numel() > 0:
        run(*_prepared(maps, xy, cells, simplex_flow, flat(out), 1 / steps, steps))
    return out


def gradient(
    grad: Tensor, maps: Tensor, xy: Tensor, cells: Sequence[int], steps: int, need: Sequence[bool]
) -> tuple[Tensor | None, Tensor | None]:
    """The gradients in the maps and in the points, from that in the displacements, each only if it is needed."""
    if grad.numel() == 0:
        return torch.zeros_like(maps) if need[0] else None, torch.zeros_like(xy) if need[1] else None
    count, simplices, width = maps.shape
    sums = np.zeros((count, parts_of(xy.shape[1])[1], simplices, width))
    in_points = np.empty((count, *xy.shape[1:]) if need[1] else (0, 0, 0))
    given = plain(grad).double().contiguous().numpy()
    run(*_prepared(maps, xy, cells, simplex_adjoint, given, 1 / steps, steps, sums, in_points))
    in_maps = torch.from_numpy(sums.sum(axis=1)).to(maps.dtype) if need[0] else None
    if not need[1]:
        return in_maps, None
    in_xy = torch.from_numpy(in_points).to(xy.dtype)
    return in_maps, in_xy if len(xy) == count else in_xy.sum(dim=0, keepdim=True)


def _prepared(maps: Tensor, xy: Tensor, cells: Sequence[int], kernel: Any, *rest: Any) -> tuple[Any, ...]:
    numbers = plain(maps).double().contiguous().numpy(), plain(xy).double().contiguous().numpy()
    threads = thread_count(len(maps) * xy.shape[1] * COST)
    lengths = tuple(int(n) for n in cells)
    part = parts_of(xy.shape[1])[0]
    return threads, kernel, *numbers, lengths, orders_of(len(lengths)), part, chunk_count(threads), *rest


def parts_of(points: int) -> tuple[int, int]:
    """Points of a task, and tasks of an image."""
    part = max(PART, BLOCK * -(-points // (BLOCK * PARTS)))
    return part, -(-points // part)


@lru_cache
def orders_of(d: int) -> Any:
    return np.array([order_of_axes(code, d) for code in range(2 ** len(list(itertools.combinations(range(d), 2))))])


# ---- kernels: `compiled` as serial or parallel ----


def simplex_flow(maps, xy, cells, orders, part, chunks, out, h, steps):
    d, count = len(cells), xy.shape[1]
    parts = -(-count // part)
    for chunk in prange(chunks):
        velocity, step, margins, power = new_tables(maps.shape[1], d)
        points, some, none = np.empty(rows_of(d) * BLOCK), np.empty(rows_of(d) * BLOCK), np.empty(0)
        lanes = np.empty(BLOCK + 1, np.int64)
        known = -1
        for task in range(len(maps) * parts * chunk // chunks, len(maps) * parts * (chunk + 1) // chunks):
            image, first = task // parts, task % parts * part
            if image != known:
                fill_tables(maps[image], cells, orders, h, velocity, step, margins, power)
                known = image
            for start in range(first, min(first + part, count), BLOCK):
                n = min(BLOCK, count - start)
                read(xy[min(image, len(xy) - 1)], start, cells, n, points)
                begin(points, cells, n, lanes, some, step.ravel(), margins)
                for _ in range(steps):
                    step_within(points, cells, n)
                    few = listed(points, margin_row(d) + 1, lanes, n)
                    step_across(points, cells, lanes, few, h, some, velocity.ravel(), step.ravel(), margins, none)
                write(points, xy[min(image, len(xy) - 1)], start, cells, n, out, (image * count + start) * d)


def simplex_adjoint(maps, xy, cells, orders, part, chunks, grad, h, steps, sums, in_points):
    d, count = len(cells), xy.shape[1]
    parts = -(-count // part)
    for chunk in prange(chunks):
        velocity, step, margins, power = new_tables(maps.shape[1], d)
        in_velocity, in_step = np.empty_like(velocity), np.empty_like(step)
        points, some, memory = np.empty(rows_of(d) * BLOCK), np.empty(rows_of(d) * BLOCK), np.empty(3 * d)
        path, record = np.empty((steps, (d + 1) * BLOCK)), np.empty((steps, 4 * (d + 1) * BLOCK))
        lanes, counts = np.empty((steps, BLOCK + 1), np.int64), np.empty(steps, np.int64)
        adjoint, known = np.empty(adjoint_rows(d) * BLOCK), -1
        for task in range(len(maps) * parts * chunk // chunks, len(maps) * parts * (chunk + 1) // chunks):
            image, first = task // parts, task % parts * part
            if image != known:
                fill_tables(maps[image], cells, orders, h, velocity, step, margins, power)
                known = image
            in_velocity[:], in_step[:] = 0.0, 0.0
            flat_velocity, flat_step, sums_velocity, sums_step = velocity.ravel(), step.ravel(), in_velocity.ravel(), in_step.ravel()
            for start in range(first, min(first + part, count), BLOCK):
                n = min(BLOCK, count - start)
                read(xy[min(image, len(xy) - 1)], start, cells, n, points)
                begin(points, cells, n, lanes[0], some, flat_step, margins)
                for k in range(steps):
                    remember(points, 0, d, n, path[k], 0)
                    step_within(points, cells, n)
                    remember(points, margin_row(d) + 1, 1, n, path[k], d)
                    counts[k] = listed(points, margin_row(d) + 1, lanes[k], n)
                    step_across(points, cells, lanes[k], counts[k], h, some, flat_velocity, flat_step, margins, record[k])
                begin_back(points, grad[image], start, cells, n, flat_step, adjoint)
                for back in range(steps):
                    k = steps - 1 - back
                    pull_within(adjoint, path[k], d, n)
                    pull_across(
                        adjoint, cells, lanes[k], counts[k], h, record[k], flat_velocity, flat_step, sums_velocity, sums_step, memory
                    )
                for i in range(n):
                    flush(adjoint, d, i, sums_step)
                if len(in_points) > 0:
                    write_back(adjoint, grad[image], start, cells, n, in_points[image])
            pull_tables(cells, h, velocity, in_velocity, in_step, power, sums[image, task % parts])


@inline
def new_tables(simplices, d):
    width = d * (d + 1)
    return np.empty((simplices, width)), np.empty((simplices, width)), np.empty(simplices), np.empty(3 * d * d + 4 * d)


@loop
def read(xy, start, cells, count, points):
    for a in range(len(cells)):
        for i in range(np.uint64(count)):
            points[at(a, i)] = (xy[np.uint64(start) + i, a] + 1.0) * (cells[a] / 2)


@loop
def write(points, xy, start, cells, count, out, to):
    """The displacement: zero if no point moved."""
    d = len(cells)
    for i in range(np.uint64(count)):
        for a in range(d):
            before = (xy[np.uint64(start) + i, a] + 1.0) * (cells[a] / 2)
            out[np.uint64(to) + i * np.uint64(d) + np.uint64(a)] = (points[at(a, i)] - before) * (2 / cells[a])


@loop
def remember(points, first, rows, count, found, to):
    for r in range(rows):
        for i in range(np.uint64(count)):
            found[at(to + r, i)] = points[at(first + r, i)]


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
