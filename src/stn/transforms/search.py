"""The search for the x that a map takes to y, point by point, for `InverseWarp`."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from stn.ops.context import observed
from stn.ops.torch_private import is_transformed
from stn.transforms.cells import COUNT, Cells, PointMap, cells_around
from stn.transforms.cramer import FLAT, determinant, solve

# Chosen on 1,301 fields without folds, 200 points each: random displacements, B-splines and thin plates, many nearly
# folding, swirls, and shears along x of up to two image widths. After 32 steps from one initial point, 2 of the 260,200
# points have an error above 0.01 pixels (of 128); with STUCK = 0 there are 36; the cells solve these,
# and all points of fields that fold (test_inverse_points.py).
FIRST_STEPS = 2  # steps of the plain iteration, each a quarter of the cost of a Newton step; 0 to 3 take equal time
STEPS, MORE_STEPS = 8, 24  # Newton steps: for all points, and for the unsolved ones
STUCK = 0.1  # step length below which the next step uses the Jacobian at the rejected point
CELL_STEPS = 4  # Newton steps inside a cell
INSIDE = 1e-3  # distance from its border, relative to its length, because a stored field has kinks there
TRACED_STEPS = 8  # 0.15 % of those points remain, with 6 steps 0.33 %
SOLVED = 1e-5  # half widths from y, relative beyond the image: 0.005 pixels of 1,000
GUIDED_STEPS = 3  # traced steps from a guess that is almost a solution, such as the flow backwards


def is_traced(y: Tensor) -> bool:
    """Return True if values cannot be read: in a graph, and under torch.func."""
    return observed(y) or (y.is_cuda and torch.cuda.is_current_stream_capturing())


class Search(NamedTuple):
    """The state of the search for each point, (*batch, P, ..)."""

    x: Tensor  # (.., d)
    rest: Tensor  # y - warp(x): (.., d)
    off: Tensor  # its length: (..)
    jacobian: Tensor  # Jacobian of the next step: (.., d, d)
    length: Tensor  # length of the next step, relative to the Newton step: (..)


def solution(warp: PointMap, y: Tensor, guess: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Return the x that the map takes to y (*batch, P, d), with its derivatives, and whether it is one that has them.

    The search keeps the point nearest to a solution that it met, and begins at `guess` if there is one.
    """
    with torch.no_grad():
        found = (follow if is_traced(y) else search)(warp, y.detach(), guess)
    x, jacobian = found.x.detach(), found.jacobian.detach()
    size = determinant(jacobian).abs()
    sound = (found.off.detach() <= SOLVED * scale(y.detach())) & (size > FLAT) & size.isfinite()
    if is_transformed() or y.requires_grad or warp.map(x[..., :1, :]).requires_grad:
        x = with_derivatives(warp, x, y, jacobian, sound)
    return x, sound


def with_derivatives(warp: PointMap, x: Tensor, y: Tensor, jacobian: Tensor, sound: Tensor) -> Tensor:
    """Return x unchanged, with the derivatives of the implicit function warp(x) = y.

    One step x + J^-1 (y - warp(x)) brings the first derivative, one more the second. J is a constant in both. At
    the solution y - warp(x) is zero, so the derivative of J has no part in the first. In the second step the first
    derivative of y - warp(x) is zero too, so it has none in the second.
    """
    for _ in range(2):
        step = solve(jacobian, torch.where(sound.unsqueeze(-1), y - warp.map(x), 0))
        x = x + (step - step.detach())
    return x


def search(warp: PointMap, y: Tensor, guess: Tensor | None = None) -> Search:  # (*batch, P, d)
    """Search with access to the values: stop at solved points, and restart unsolved ones."""
    now = refine(warp, y, start(warp, y, contract(warp, y, FIRST_STEPS) if guess is None else guess), STEPS)
    if guess is not None:
        return where_open(y, now, SOLVED, lambda y, now: nearer(now, search(warp, y)))
    return where_open(y, now, SOLVED, lambda y, now: start_again(warp, y, now))


def follow(warp: PointMap, y: Tensor, guess: Tensor | None = None) -> Search:
    """Search with the same steps for every point, for a traced graph."""
    now = start(warp, y, contract(warp, y, FIRST_STEPS) if guess is None else guess)
    for _ in range(TRACED_STEPS if guess is None else GUIDED_STEPS):
        now = advance(warp, y, now)
    return now


def contract(warp: PointMap, y: Tensor, steps: int) -> Tensor:
    """Run the plain iteration x <- x + (y - warp(x)), and halve the step where it does not help."""
    x, rest = y, y - warp.map(y)
    off, length = rest.norm(dim=-1), torch.ones_like(rest[..., 0])
    for _ in range(steps):
        trial = x + length.unsqueeze(-1) * rest
        left = y - warp.map(trial)
        further = left.norm(dim=-1)
        better = further < off
        x, rest, off = choose(better, trial, x), choose(better, left, rest), choose(better, further, off)
        length = torch.where(better, length, length / 2)
    return x


def start(warp: PointMap, y: Tensor, x: Tensor) -> Search:
    mapped, jacobian = warp._linearized(x)
    rest = y - mapped
    off = rest.norm(dim=-1)
    return Search(x, rest, off, jacobian, torch.ones_like(off))


def advance(warp: PointMap, y: Tensor, now: Search) -> Search:
    """Take a Newton step, and keep it where it reduces the error. A step stuck at a kink uses the Jacobian beyond the
    kink, which leads across if the map does not fold."""
    trial = start(warp, y, now.x + now.length.unsqueeze(-1) * newton_step(now.jacobian, now.rest))
    better = trial.off < now.off
    length = torch.where(better, (2 * now.length).clamp_max(1), now.length / 2)
    jacobian = choose(better | (now.length < STUCK), trial.jacobian, now.jacobian)
    x, rest, off = (choose(better, new, old) for new, old in zip(trial[:3], now[:3], strict=True))
    return Search(x, rest, off, jacobian, length)


def refine(warp: PointMap, y: Tensor, now: Search, steps: int) -> Search:
    """Advance the points that are not solved up to rounding; only these, once they are at most half of all."""
    tolerance = 8 * torch.finfo(y.dtype).eps
    for k in range(steps):
        count = most_open(y, now, tolerance)
        if count == 0:
            break
        if 2 * count <= now.off.shape[-1]:
            return where_open(y, now, tolerance, partial(refine, warp, steps=steps - k))
        now = advance(warp, y, now)
    return now


def start_again(warp: PointMap, y: Tensor, now: Search) -> Search:
    """Take more steps, then begin again in each cell whose image may contain y, the most likely first."""
    now = refine(warp, y, now, MORE_STEPS)
    wanted = now.off > SOLVED * scale(y)
    if not wanted.any():
        return now
    cells = cells_around(warp, y, wanted)
    for k in range(COUNT):
        cell = Cells(cells.low[..., k, :], cells.high[..., k, :])
        now = where_open(y, now, SOLVED, lambda y, now, *cell: begin_in(warp, y, now, Cells(*cell)), *cell)
    return now


def begin_in(warp: PointMap, y: Tensor, now: Search, cell: Cells) -> Search:
    """Take Newton steps that stay inside a cell, where a stored field has no kink, then free ones."""
    margin = INSIDE * (cell.high - cell.low)
    low, high = cell.low + margin, cell.high - margin
    x = (low + high) / 2
    for _ in range(CELL_STEPS):
        mapped, jacobian = warp._linearized(x)
        x = (x + solve(jacobian, y - mapped)).clamp(low, high)
    return nearer(now, refine(warp, y, start(warp, y, x), MORE_STEPS))


def nearer(now: Search, again: Search) -> Search:
    """Return for each point the search that came nearer to a solution."""
    better = (again.off < now.off) | now.off.isnan()
    return Search(*(choose(better, new, old) for new, old in zip(again, now, strict=True)))


def newton_step(jacobian: Tensor, rest: Tensor) -> Tensor:
    """Return J^-1 rest, limited in length, because a nearly singular J would give a huge step."""
    step = solve(jacobian, rest)
    most = 1 + rest.norm(dim=-1, keepdim=True)
    return step * (most / torch.maximum(step.norm(dim=-1, keepdim=True), most))


def scale(y: Tensor) -> Tensor:  # (.., d) -> (..)
    """Return the unit of distances from y, because rounding grows with the coordinates."""
    return y.norm(dim=-1).clamp_min(1)


# ---- some of the points of each sample ----


def most_open(y: Tensor, now: Search, tolerance: float) -> int:
    """Return the largest number of points per sample with a larger error. NaN does not count."""
    return int((now.off > tolerance * scale(y)).sum(dim=-1).max()) if now.off.numel() else 0


def where_open(
    y: Tensor, now: Search, tolerance: float, improve: Callable[..., Search], *others: Tensor
) -> Search:  # improve(y, now, *others), others (*batch, P, ..)
    """Improve the points with a larger error; each sample has as many as the sample with the most."""
    count = most_open(y, now, tolerance)
    if count == 0:
        return now
    index = (now.off > tolerance * scale(y)).to(torch.uint8).topk(count, dim=-1).indices  # (*batch, count)
    part = improve(pick(y, index), Search(*(pick(t, index) for t in now)), *(pick(t, index) for t in others))
    return Search(*(old.scatter(index.ndim - 1, over(index, old), new) for old, new in zip(now, part, strict=True)))


def pick(tensor: Tensor, index: Tensor) -> Tensor:  # (*batch, P, ..), (*batch, Q) -> (*batch, Q, ..)
    return tensor.gather(index.ndim - 1, over(index, tensor))


def over(index: Tensor, tensor: Tensor) -> Tensor:
    """Expand indices to all values of a point: (*batch, Q) -> (*batch, Q, ..)."""
    rest = tensor.shape[index.ndim :]
    return index.view(*index.shape, *(1,) * len(rest)).expand(*index.shape, *rest)


def choose(condition: Tensor, new: Tensor, old: Tensor) -> Tensor:  # (..), (.., *), (.., *)
    return torch.where(condition.view(*condition.shape, *(1,) * (new.ndim - condition.ndim)), new, old)
