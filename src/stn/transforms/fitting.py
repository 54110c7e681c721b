"""Least squares between two sets of points: the map of one kind that minimizes sum_i w_i |map(x_i) - y_i|^2.

Each function returns the map, and for each sample whether the points determine it. All results are differentiable in
x, y and w to second order; where the minimum is found by iteration, by the implicit function theorem.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from stn.grid import half_extent
from stn.ops.context import readable
from stn.transforms.rotations import about_axis

# Squared spread of points, relative to their squared distance from the origin or to the spread along another axis, below
# which they count as equal or collinear. Points in float32 that are collinear but for rounding have 1e-14.
SPREAD = 1e-12
SECOND = 1e-11  # the same for the eigenvalues of the system of a homography; 3 of 4 points on a line: 1e-15 in float32
FOLDED = 1e-9  # determinant of a homography of normalized points below which it maps the plane to a line
STEPS, DAMPING = 30, 1e-3  # Levenberg-Marquardt steps at most, and the first damping
PROGRESS = 1e-10  # share of the error by which a step must reduce it; two Newton steps follow


class Frame(NamedTuple):
    """Pixel coordinates of an image and an output."""

    in_size: tuple[int, ...]
    out_size: tuple[int, ...]
    align_corners: bool

    def shared_scale(self) -> float | None:
        """Return the extent of the output in that of the image, if it is the same along each axis."""
        extents = zip(self.out_size, self.in_size, strict=True)
        ratios = [half_extent(n, self.align_corners) / (half_extent(m, self.align_corners) or 1.0) for n, m in extents]
        return ratios[0] if max(ratios) - min(ratios) < 1e-12 * max(ratios) else None


class Pairs(NamedTuple):
    """Points x and their targets y, with weights w, in at least float32 and mostly float64."""

    x: Tensor  # (*batch, P, d)
    y: Tensor  # (*batch, P, d)
    w: Tensor  # (*batch, P), not negative

    def mean(self) -> tuple[Tensor, Tensor]:
        """Return the weighted means of both sets: (*batch, d)."""
        share = (self.w / self.w.sum(dim=-1, keepdim=True)).unsqueeze(-1)
        return (share * self.x).sum(dim=-2), (share * self.y).sum(dim=-2)

    def centered(self) -> Pairs:
        x, y = self.mean()
        return Pairs(self.x - x.unsqueeze(-2), self.y - y.unsqueeze(-2), self.w)

    def size(self) -> Tensor:
        """Return the weighted sum of squared distances of the points from the origin: (*batch,)."""
        return (self.w * self.x.square().sum(dim=-1)).sum(dim=-1)


def joined(linear: Tensor, pairs: Pairs) -> Tensor:  # (*batch, d, d) -> (*batch, d, d+1)
    """Return the affine matrix (A | t), t = mean of y - A (mean of x), the best for a given A."""
    x, y = pairs.mean()
    return torch.cat([linear, (y - (linear @ x.unsqueeze(-1)).squeeze(-1)).unsqueeze(-1)], dim=-1)


def any_weight(pairs: Pairs) -> Tensor:
    return pairs.w.sum(dim=-1) > 0


def one_scale(pairs: Pairs) -> tuple[Tensor, Tensor]:  # (*batch,)
    """Return s of y = s x + t."""
    centered = pairs.centered()
    size = centered.size()
    return (pairs.w * (centered.x * centered.y).sum(dim=-1)).sum(dim=-1) / size, size > SPREAD * pairs.size()


def scale_of_each_axis(pairs: Pairs) -> tuple[Tensor, Tensor]:  # (*batch, d)
    """Return s of y = diag(s) x + t."""
    x, y, w = pairs.centered()
    size = (w.unsqueeze(-1) * x.square()).sum(dim=-2)
    found = (w.unsqueeze(-1) * x * y).sum(dim=-2) / size
    return found, (size > SPREAD * (pairs.size() + size.sum(dim=-1)).unsqueeze(-1)).all(dim=-1)


def affine(pairs: Pairs) -> tuple[Tensor, Tensor]:  # (*batch, d, d)
    """Return A of y = A x + t: the normal equations A C = B, C = sum w x x', B = sum w y x'."""
    x, y, w = pairs.centered()
    weighted = w.unsqueeze(-1) * x
    c, b = x.mT @ weighted, y.mT @ weighted
    found: Tensor = torch.linalg.solve_ex(c, b.mT)[0].mT
    known, finite = _finite(c.detach())
    spread = torch.linalg.eigvalsh(known)
    some = spread[..., -1] > SPREAD * pairs.size().detach()
    return found, finite & some & (spread[..., 0] > SPREAD * spread[..., -1])


def _finite(matrix: Tensor) -> tuple[Tensor, Tensor]:  # (*batch, n, n)
    """Return a matrix that LAPACK accepts, and whether it is the given one: without NaN and infinity."""
    finite = matrix.isfinite().all(dim=-1).all(dim=-1)
    eye = torch.eye(matrix.shape[-1], dtype=matrix.dtype, device=matrix.device)
    return torch.where(finite[..., None, None], matrix, eye), finite


def turn(pairs: Pairs, *, scaled: bool) -> tuple[Tensor, Tensor]:  # (*batch, d, d)
    """Return s R of y = s R x + t, R a rotation; s = 1 unless `scaled`. Umeyama 1991, without mirroring."""
    x, y, w = pairs.centered()
    h = y.mT @ (w.unsqueeze(-1) * x)  # (*batch, d, d); R maximizes tr(R' H)
    rotation, regular = (_turn_of_plane if h.shape[-1] == 2 else _turn_of_space)(h)
    size = (w * x.square().sum(dim=-1)).sum(dim=-1)
    other = (w * y.square().sum(dim=-1)).sum(dim=-1)
    regular = regular & (size > SPREAD * pairs.size()) & (other > SPREAD * Pairs(pairs.y, pairs.x, w).size())
    if scaled:
        rotation = ((rotation * h).sum(dim=(-2, -1)) / size)[..., None, None] * rotation
    return rotation, regular


def _turn_of_plane(h: Tensor) -> tuple[Tensor, Tensor]:
    """Return (a, b) / |(a, b)| as a rotation: a = tr H and b = H_yx - H_xy are the cosine and the sine times one factor."""
    a, b = h[..., 0, 0] + h[..., 1, 1], h[..., 1, 0] - h[..., 0, 1]
    size = a.square() + b.square()
    regular = size > SPREAD * h.square().sum(dim=(-2, -1))
    length = torch.where(regular, size, 1).sqrt()
    cos, sin = a / length, b / length
    return torch.stack([torch.stack([cos, -sin], dim=-1), torch.stack([sin, cos], dim=-1)], dim=-2), regular


def _turn_of_space(h: Tensor) -> tuple[Tensor, Tensor]:
    """Return the rotation R for which R' H is symmetric with the largest trace.

    Its derivatives come from two steps R exp(k), (tr(S) I - S) k = the vector of S - S' with S = R' H, because those of
    a singular value decomposition do not exist where two singular values are equal.
    """
    with torch.no_grad():
        known, finite = _finite(h.detach())
        u, values, v = torch.linalg.svd(known)
        sign = torch.linalg.det(u @ v)
        last = torch.stack([torch.ones_like(sign), torch.ones_like(sign), sign], dim=-1)
        found = (u * last.unsqueeze(-2)) @ v
        s = found.mT @ known
        s = (s + s.mT) / 2
        eye = torch.eye(3, dtype=h.dtype, device=h.device)
        system = s.diagonal(dim1=-2, dim2=-1).sum(dim=-1)[..., None, None] * eye - s
        regular = finite & (values[..., 1] + sign * values[..., 2] > SPREAD**0.5 * values[..., 0])
        system = torch.where(regular[..., None, None], system, eye)
    for _ in range(2):
        s = found.mT @ h
        skew = s - s.mT
        step = torch.stack([skew[..., 2, 1], skew[..., 0, 2], skew[..., 1, 0]], dim=-1)
        found = found @ about_axis(torch.linalg.solve_ex(system, step.unsqueeze(-1))[0].squeeze(-1))
    return found, regular


# ---- homographies ----


def homography(pairs: Pairs) -> tuple[Tensor, Tensor]:  # (*batch, d+1, d+1)
    """Return the homography with the least squared distances in y: the normalized DLT, then Levenberg-Marquardt.

    Hartley and Zisserman 2004, algorithms 4.1 to 4.3.
    """
    to_x, to_y = normalizer(pairs.x.detach(), pairs.w.detach()), normalizer(pairs.y.detach(), pairs.w.detach())
    near = Pairs(_moved(to_x, pairs.x), _moved(to_y, pairs.y), pairs.w)
    with torch.no_grad():
        fixed = Pairs(*(part.detach() for part in near))
        start, regular = direct_linear(fixed)
        numbers = descend(fixed, start)
        hessian = _Normal.of(fixed, numbers).hessian
        eye = torch.eye(numbers.shape[-1], dtype=numbers.dtype, device=numbers.device)
        sound = regular & (torch.linalg.inv_ex(hessian)[1] == 0)
        hessian = torch.where(sound[..., None, None], hessian, eye)
    for _ in range(2):  # Newton steps of length zero, which bring the derivatives
        step = torch.linalg.solve_ex(hessian, _Normal.of(near, numbers).slope.unsqueeze(-1))[0].squeeze(-1)
        numbers = numbers - torch.where(sound.unsqueeze(-1), step, 0)
    square = _square(numbers, pairs.x.shape[-1])
    regular = regular & (torch.linalg.det(square.detach()).abs() > FOLDED)
    return torch.linalg.solve_ex(to_y, square @ to_x)[0], regular


def normalizer(points: Tensor, w: Tensor) -> Tensor:  # (*batch, P, d), (*batch, P) -> (*batch, d+1, d+1)
    """Return the similarity that moves the mean to the origin and makes the mean square distance d (Hartley 1997)."""
    d, total = points.shape[-1], w.sum(dim=-1, keepdim=True)
    mean = (w.unsqueeze(-1) * points).sum(dim=-2) / total
    square = (w * (points - mean.unsqueeze(-2)).square().sum(dim=-1)).sum(dim=-1) / total.squeeze(-1)
    scale = (d / torch.where(square > 0, square, 1)).sqrt()[..., None, None]
    eye = torch.eye(d, dtype=points.dtype, device=points.device).expand(*scale.shape[:-2], d, d)
    above = torch.cat([scale * eye, -scale * mean.unsqueeze(-1)], dim=-1)
    last = torch.cat([torch.zeros_like(above[..., :1, :-1]), torch.ones_like(scale)], dim=-1)
    return torch.cat([above, last], dim=-2)


def _moved(square: Tensor, points: Tensor) -> Tensor:
    return points @ square[..., :-1, :-1].mT + square[..., None, :-1, -1]


def _square(numbers: Tensor, d: int) -> Tensor:  # (*batch, n) -> (*batch, d+1, d+1)
    return torch.cat([numbers, torch.ones_like(numbers[..., :1])], dim=-1).unflatten(-1, (d + 1, d + 1))


def direct_linear(pairs: Pairs) -> tuple[Tensor, Tensor]:
    """Return the numbers of the homography, without its last 1, with the least algebraic error: an eigenvector.

    Each pair gives d equations (A x + t)_i - y_i (v x + c) = 0, linear in A, t, v, c.
    """
    x, y, w = pairs
    d = x.shape[-1]
    lifted = torch.cat([x, torch.ones_like(x[..., :1])], dim=-1)  # (*batch, P, d+1)
    rows = []
    for i in range(d):
        parts = [lifted if j == i else torch.zeros_like(lifted) for j in range(d)]
        rows.append(torch.cat([*parts, -y[..., i, None] * lifted], dim=-1))
    system = torch.stack(rows, dim=-2)  # (*batch, P, d, (d+1)^2)
    gram, finite = _finite(torch.einsum("...pia,...pib,...p->...ab", system, system, w))
    values, vectors = torch.linalg.eigh(gram)
    least = vectors[..., 0]
    far = least[..., -1].abs() > FOLDED
    regular = finite & far & (values[..., 1] > SECOND * values[..., -1])
    return least[..., :-1] / torch.where(far, least[..., -1], 1).unsqueeze(-1), regular


class _Normal(NamedTuple):
    """The normal equations at a homography: of its numbers (A, t row by row, then v), as `Projective` has them."""

    error: Tensor  # (*batch,): half the sum of w |r|^2
    slope: Tensor  # (*batch, n)
    gauss: Tensor  # J' w J, (*batch, n, n)
    hessian: Tensor  # and with the second derivatives of r

    @classmethod
    def of(cls, pairs: Pairs, numbers: Tensor) -> _Normal:
        """With X = (x, 1) and u = v x + 1: x'_i = M_i X / u, dx'_i / dM_i = X / u, dx'_i / dv = -x'_i x / u."""
        x, y, w = pairs
        d = x.shape[-1]
        square = _square(numbers, d)
        lifted = torch.cat([x, torch.ones_like(x[..., :1])], dim=-1)
        product = lifted @ square.mT
        u = product[..., -1:]
        mapped = product[..., :-1] / u  # (*batch, P, d)
        rest, over = mapped - y, (lifted / u).unsqueeze(-2)  # (*batch, P, 1, d+1)
        zero = torch.zeros_like(over)
        rows = [torch.cat([over if j == i else zero for j in range(d)], dim=-1) for i in range(d)]
        jacobian = torch.cat([torch.cat(rows, dim=-2), -mapped.unsqueeze(-1) * over[..., :-1]], dim=-1)
        weighted = w[..., None, None] * jacobian  # (*batch, P, d, n)
        gauss = torch.einsum("...pia,...pib->...ab", weighted, jacobian)
        slope = torch.einsum("...pia,...pi->...a", weighted, rest)
        error = (w * rest.square().sum(dim=-1)).sum(dim=-1) / 2
        # d2 x'_i / dM_i dv = -X x' / u^2, d2 x'_i / dv dv = 2 x'_i x x' / u^2
        share, inner = w.unsqueeze(-1) * rest, over.squeeze(-2)
        mixed = -torch.einsum("...pi,...pa,...pb->...iab", share, inner, inner[..., :-1]).flatten(-3, -2)
        both = 2 * torch.einsum("...p,...pa,...pb->...ab", (share * mapped).sum(dim=-1), inner[..., :-1], inner[..., :-1])
        n = d * (d + 1)
        above = torch.cat([torch.zeros_like(gauss[..., :n, :n]), mixed], dim=-1)
        bent = torch.cat([above, torch.cat([mixed.mT, both], dim=-1)], dim=-2)
        return cls(error, slope, gauss, gauss + bent)


def descend(pairs: Pairs, numbers: Tensor) -> Tensor:
    """Take Levenberg-Marquardt steps until no sample improves, where values can be read, or STEPS of them."""
    now = _Normal.of(pairs, numbers)
    damping, idle = torch.full_like(now.error, DAMPING), 0
    for _ in range(STEPS):
        system = now.gauss + torch.diag_embed(damping.unsqueeze(-1) * now.gauss.diagonal(dim1=-2, dim2=-1))
        trial = numbers - torch.linalg.solve_ex(system, now.slope.unsqueeze(-1))[0].squeeze(-1)
        then = _Normal.of(pairs, trial)
        better, clearly = then.error < now.error, then.error < (1 - PROGRESS) * now.error
        damping = torch.where(better, damping / 10, damping * 10)
        numbers = torch.where(better.unsqueeze(-1), trial, numbers)
        now = _Normal(*(_chosen(better, new, old) for new, old in zip(then, now, strict=True)))
        idle = idle + 1 if readable(clearly) and not clearly.any() else 0
        if idle == 3:
            break
    return numbers


def _chosen(better: Tensor, new: Tensor, old: Tensor) -> Tensor:
    return torch.where(better.view(*better.shape, *(1,) * (new.ndim - better.ndim)), new, old)


def lengths_of(sides: Sequence[float], size: Sequence[int] | None, like: Tensor) -> Tensor:  # (d,), x first
    """Return the length of one unit of a coordinate: of half the image, or of one pixel if `size` is given."""
    units = [side / n for side, n in zip(sides, size, strict=True)] if size else sides
    return like.new_tensor(list(reversed(units)))
