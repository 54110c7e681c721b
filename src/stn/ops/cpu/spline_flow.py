"""The flow of a velocity that is a cubic B-spline, and its adjoint: kernels and their calls.

`ops/flows/splines.py` has the formula. A task is a part of the points of one image. Each task of the adjoint has its own
sums, which are then added in the order of tasks: the result does not depend on the number of threads.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from numba import prange
from torch import Tensor

from stn.ops.cpu.compiling import inline_new, loop
from stn.ops.cpu.flow_calls import COST, displacements, gradients
from stn.ops.cpu.point_blocks import BLOCK, PITCH, at, parts_of
from stn.ops.cpu.spline_blocks import adjoint_row, follow_block, pull_block, rows_of
from stn.ops.cpu.spline_lanes import width_of
from stn.ops.cpu.threads import chunk_count, thread_count
from stn.ops.flows.splines import Splines
from stn.ops.layout import plain


def follow(flow: Splines, control: Tensor, xy: Tensor) -> Tensor:
    """Return the displacements (N, P, d) of points xy (N or 1, P, d) under the control points (N, *shape, d)."""
    return displacements(control, xy, partial(_prepared, flow, control, xy), spline_flow)


def gradient(
    flow: Splines, grad: Tensor, control: Tensor, xy: Tensor, need: Sequence[bool]
) -> tuple[Tensor | None, Tensor | None]:
    """Return the gradients in the control points and in the points, those that are needed."""
    ndim, prepared = xy.shape[-1], partial(_prepared, flow, control, xy)
    shape = math.prod(control.shape[1:-1]), width_of(ndim)
    found, in_xy = gradients(grad, control, xy, need, prepared, spline_adjoint, shape)
    if found is None:
        return None, in_xy
    lengths = control.new_tensor([(n - 3) / 2 for n in reversed(control.shape[1:-1])], dtype=torch.float64)
    return (found[..., :ndim] * lengths).view(control.shape).to(control.dtype), in_xy


def _prepared(flow: Splines, control: Tensor, xy: Tensor, kernel: Any, *rest: Any) -> tuple[Any, ...]:
    """The control points in a table of (N, T, width) numbers, in intervals of control points.

    As in the reference, one that is not finite makes all points of its image NaN.
    """
    shape = tuple(reversed(control.shape[1:-1]))
    table = np.zeros((len(control), math.prod(shape), width_of(len(shape))))
    lengths = [(n - 3) / 2 for n in shape]
    given = plain(control).double().flatten(1, -2)
    table[..., : len(shape)] = (given + 0 * given.sum(dim=(1, 2), keepdim=True)).numpy() * lengths
    points = plain(xy).double().contiguous().numpy()
    threads = thread_count(len(control) * xy.shape[1] * COST)
    how = shape, 1 / flow.steps, flow.steps, parts_of(xy.shape[1])[0], chunk_count(threads)
    return threads, kernel, table, points, *how, *rest


# ---- kernels: `compiled` as serial or parallel ----


def spline_flow(table, xy, shape, h, steps, part, chunks, out):
    d, count, images, width = len(shape), xy.shape[1], len(table), table.shape[2]
    parts = -(-count // part)
    for chunk in prange(chunks):
        points, weights, none = np.empty(rows_of(d) * PITCH), np.empty(8 * d * PITCH), np.empty((0, 0))
        for task in range(images * parts * chunk // chunks, images * parts * (chunk + 1) // chunks):
            image, first = task // parts, task % parts * part
            given, numbers = xy[min(image, len(xy) - 1)], table[image].ravel()
            for start in range(first, min(first + part, count), BLOCK):
                n = min(BLOCK, count - start)
                read(given, start, shape, n, points)
                follow_block(points, weights, numbers, shape, width, n, h, steps, none)
                write(points, given, start, shape, n, out, (image * count + start) * d)


def spline_adjoint(table, xy, shape, h, steps, part, chunks, grad, sums, in_points):
    d, count, images, width = len(shape), xy.shape[1], len(table), table.shape[2]
    parts = -(-count // part)
    for chunk in prange(chunks):
        points, weights, stages = new_memory(d, steps)
        for task in range(images * parts * chunk // chunks, images * parts * (chunk + 1) // chunks):
            image, first = task // parts, task % parts * part
            given, numbers = xy[min(image, len(xy) - 1)], table[image].ravel()
            found = sums[image, task % parts].ravel()
            for start in range(first, min(first + part, count), BLOCK):
                n = min(BLOCK, count - start)
                read(given, start, shape, n, points)
                follow_block(points, weights, numbers, shape, width, n, h, steps, stages)
                read_grad(grad[image], start, shape, n, points)
                pull_block(points, weights, numbers, shape, width, n, h, steps, stages, found)
                if len(in_points) > 0:
                    write_grad(points, grad[image], start, shape, n, in_points[image])


@inline_new
def new_memory(d, steps):
    return np.empty(rows_of(d) * PITCH), np.empty(8 * d * PITCH), np.empty((4 * steps, d * PITCH))


@loop
def read(xy, start, shape, count, points):
    for a in range(len(shape)):
        for i in range(np.uint64(count)):
            points[at(a, i)] = (xy[np.uint64(start) + i, a] + 1.0) * ((shape[a] - 3) / 2)


@loop
def write(points, xy, start, shape, count, out, to):
    """The displacement: zero if a point stayed, or is infinite, which it then remains."""
    d = len(shape)
    for i in range(np.uint64(count)):
        for a in range(d):
            before = (xy[np.uint64(start) + i, a] + 1.0) * ((shape[a] - 3) / 2)
            moved = (points[at(a, i)] - before) * (2 / (shape[a] - 3))
            out[np.uint64(to) + i * np.uint64(d) + np.uint64(a)] = 0.0 if abs(before) == np.inf else moved


@loop
def read_grad(grad, start, shape, count, points):
    d = len(shape)
    for a in range(d):
        for i in range(np.uint64(count)):
            points[at(adjoint_row(d) + a, i)] = grad[np.uint64(start) + i, a] * (2 / (shape[a] - 3))


@loop
def write_grad(points, grad, start, shape, count, found):
    d = len(shape)
    for i in range(np.uint64(count)):
        for a in range(d):
            k = np.uint64(start) + i
            found[k, a] = points[at(adjoint_row(d) + a, i)] * ((shape[a] - 3) / 2) - grad[k, a]
