"""The search for the x that a map takes to y, point by point, for `InverseWarp`."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from stn.grid import lattice
from stn.ops.context import observed
from stn.ops.torch_private import is_transformed

# Chosen on 1,301 fields without folds, 200 points each: random displacements, B-splines and thin plates, many nearly
# folding, swirls, and shears along x of up to two image widths. After 32 steps from one initial point, 2 of the 260,200
# points have an error above 0.01 pixels (of 128); with STUCK = 0 there are 36; after a second initial point there are none.
FIRST_STEPS = 2  # steps of the plain iteration, each a quarter of the cost of a Newton step; 0 to 3 take equal time
STEPS, MORE_STEPS = 8, 24  # Newton steps: for all points, and for the unsolved ones
STUCK = 0.1  # step length below which the next step uses the Jacobian at the rejected point
STARTS = 8  # for fields that fold: 0.4 % of the points remain unsolved, with four 0.8 % in 0.8 times the time
LATTICE = {1: 257, 2: 33, 3: 13}  # points along each axis, over 1.25 times the width of the image
PLAIN_STEPS = 12  # steps of the plain iteration, for the last initial point
TRACED_STEPS = 8  # 0.15 % of those points remain, with 6 steps 0.33 %
SOLVED = 1e-5  # half widths from y, relative beyond the image: 0.005 pixels of 1,000
FLAT = 1e-6  # determinant of a Jacobian below which its inverse is noise in float32


class PointMap(Protocol):
    """The part of a warp that the search uses."""

    batch: tuple[int, ...]
    ndim: int

    def map(self, xy: Tensor) -> Tensor: ...  # (*batch, P, d) -> (*batch, P, d)
    def _linearized(self, xy: Tensor) -> tuple[Tensor, Tensor]: ...  # the same, and its Jacobian (*batch, P, d, d)


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


def solution(warp: PointMap, y: Tensor) -> tuple[Tensor, Tensor]:  # (*batch, P, d) -> as it is, and (*batch, P)
    """Return the x that the map takes to y, with its derivatives, and whether it is one that has derivatives."""
    with torch.no_grad():
        found = (follow if is_traced(y) else search)(warp, y.detach())
    x, jacobian = found.x.detach(), found.jacobian.detach()
    sound = (found.off.detach() <= SOLVED * scale(y.detach())) & (determinant(jacobian).abs() > FLAT)
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


def search(warp: PointMap, y: Tensor) -> Search:  # (*batch, P, d)
    """Search with access to the values: stop at solved points, and restart unsolved ones."""
    now = refine(warp, y, start(warp, y, contract(warp, y, FIRST_STEPS)), STEPS)
    return where_open(y, now, SOLVED, lambda y, now: start_again(warp, y, now))


def follow(warp: PointMap, y: Tensor) -> Search:
    """Search with the same steps for every point, for a traced graph."""
    now = start(warp, y, contract(warp, y, FIRST_STEPS))
    for _ in range(TRACED_STEPS):
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
    """Take more steps, then try other initial points, the nearest first; the last comes from the plain iteration."""
    now = refine(warp, y, now, MORE_STEPS)
    if most_open(y, now, SOLVED) == 0:
        return now
    for x in [*nearest(warp, y), None]:
        x = contract(warp, y, PLAIN_STEPS) if x is None else x
        again = refine(warp, y, start(warp, y, x), MORE_STEPS)
        better = again.off < now.off
        now = Search(*(choose(better, new, old) for new, old in zip(again, now, strict=True)))
        if most_open(y, now, SOLVED) == 0:
            break
    return now


def nearest(warp: PointMap, y: Tensor) -> list[Tensor]:  # STARTS times (*batch, P, d)
    """Return the points of a lattice that `warp` maps nearest to y."""
    xs = 1.25 * lattice((LATTICE[warp.ndim],) * warp.ndim, align_corners=True, dtype=y.dtype, device=y.device)
    xs = xs.flatten(0, -2)
    mapped = warp.map(xs.expand(*warp.batch, *xs.shape))
    piece = max(1, 2**22 // mapped[..., 0].numel())  # distances at once: 32 MB of float64
    near = [torch.cdist(part, mapped).topk(STARTS, dim=-1, largest=False).indices for part in y.split(piece, dim=-2)]
    return [xs[index] for index in torch.cat(near, dim=-2).unbind(dim=-1)]


def newton_step(jacobian: Tensor, rest: Tensor) -> Tensor:
    """Return J^-1 rest, limited in length, because a nearly singular J would give a huge step."""
    step = solve(jacobian, rest)
    most = 1 + rest.norm(dim=-1, keepdim=True)
    return step * (most / torch.maximum(step.norm(dim=-1, keepdim=True), most))


def solve(matrix: Tensor, right: Tensor) -> Tensor:  # (.., d, d), (.., d), d = 1, 2 or 3
    """Solve by Cramer's rule, with a determinant of at least FLAT: ten times as fast as a factorization at this size."""
    size = determinant(matrix)
    size = torch.where(size.abs() < FLAT, torch.where(size < 0, -FLAT, FLAT), size)
    if matrix.shape[-1] == 1:
        return right / size.unsqueeze(-1)
    if matrix.shape[-1] == 2:
        (a, b), (c, d), (p, q) = matrix[..., 0, :].unbind(-1), matrix[..., 1, :].unbind(-1), right.unbind(-1)
        return torch.stack([d * p - b * q, a * q - c * p], dim=-1) / size.unsqueeze(-1)
    a, b, c = matrix.unbind(dim=-1)
    rows = torch.stack([torch.linalg.cross(u, v) for u, v in ((b, c), (c, a), (a, b))], dim=-2)
    return (rows * right.unsqueeze(-2)).sum(dim=-1) / size.unsqueeze(-1)


def determinant(matrix: Tensor) -> Tensor:  # (.., d, d), d = 1, 2 or 3 -> (..)
    """Return the determinant by its formula. The one of torch has no second derivative at singular matrices."""
    if matrix.shape[-1] == 1:
        return matrix[..., 0, 0]
    if matrix.shape[-1] == 2:
        return matrix[..., 0, 0] * matrix[..., 1, 1] - matrix[..., 0, 1] * matrix[..., 1, 0]
    a, b, c = matrix.unbind(dim=-2)
    return (a * torch.linalg.cross(b, c)).sum(dim=-1)


def scale(y: Tensor) -> Tensor:  # (.., d) -> (..)
    """Return the unit of distances from y, because rounding grows with the coordinates."""
    return y.norm(dim=-1).clamp_min(1)


# ---- some of the points of each sample ----


def most_open(y: Tensor, now: Search, tolerance: float) -> int:
    """Return the largest number of points per sample with a larger error. NaN does not count."""
    return int((now.off > tolerance * scale(y)).sum(dim=-1).max()) if now.off.numel() else 0


def where_open(y: Tensor, now: Search, tolerance: float, improve: Callable[[Tensor, Search], Search]) -> Search:
    """Improve the points with a larger error; each sample has as many as the sample with the most."""
    count = most_open(y, now, tolerance)
    if count == 0:
        return now
    index = (now.off > tolerance * scale(y)).to(torch.uint8).topk(count, dim=-1).indices  # (*batch, count)
    part = improve(pick(y, index), Search(*(pick(tensor, index) for tensor in now)))
    return Search(*(old.scatter(index.ndim - 1, over(index, old), new) for old, new in zip(now, part, strict=True)))


def pick(tensor: Tensor, index: Tensor) -> Tensor:  # (*batch, P, ..), (*batch, Q) -> (*batch, Q, ..)
    return tensor.gather(index.ndim - 1, over(index, tensor))


def over(index: Tensor, tensor: Tensor) -> Tensor:
    """Expand indices to all values of a point: (*batch, Q) -> (*batch, Q, ..)."""
    rest = tensor.shape[index.ndim :]
    return index.view(*index.shape, *(1,) * len(rest)).expand(*index.shape, *rest)


def choose(condition: Tensor, new: Tensor, old: Tensor) -> Tensor:  # (..), (.., *), (.., *)
    return torch.where(condition.view(*condition.shape, *(1,) * (new.ndim - condition.ndim)), new, old)
