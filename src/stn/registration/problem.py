"""The objective of a registration: a pair of batches on all levels, a family, a loss and further terms."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import torch
from torch import Tensor

from stn.grid import lattice
from stn.nn.losses import within_reach
from stn.ops import Pyramid
from stn.ops.context import coordinate_dtype
from stn.registration.lattices import coarser
from stn.registration.losses import SQUARES, Loss, Pair, ignores_contrast
from stn.registration.newton import Quadratic, Samples
from stn.transforms import Family, MatrixWarp, Warp
from stn.transforms.base import identity_of

POINTS = 12  # points per side of the lattice for the bending and the reach of a parameter
DIFFERENCE = 1e-4  # half widths, in float64: the slope of a matrix in theta is then exact to 1e-8


class Landmarks(NamedTuple):
    """Points of the moving and of the fixed images that belong together, normalized: (N, P, d)."""

    moving: Tensor
    fixed: Tensor
    weight: float  # of the mean squared distance in pixels of the fixed image


def at_most(pyramid: Pyramid, k: int) -> Tensor:
    """Return level k, or the last one."""
    return pyramid[min(k, len(pyramid) - 1)]


Pyramids = tuple[Pyramid, Pyramid, Pyramid | None, Pyramid | None]  # moving and fixed images, and their masks


@dataclass
class Problem:
    """What `register` minimizes over theta."""

    pyramids: Pyramids
    family: Family
    loss: Loss
    start: Warp | None
    bending: float
    landmarks: Landmarks | None = None
    symmetric: bool = False
    guesses: bool = True  # whether other starts may be tried too
    identity: Tensor = field(init=False)  # (P,)
    unit: Tensor = field(init=False)  # (P,)

    def __post_init__(self) -> None:
        fixed = self.pyramids[1].image
        like = torch.promote_types(fixed.dtype, torch.float32)
        self.count, self.size = len(fixed), tuple(fixed.shape[2:])
        self.identity = identity_of(self.family, fixed.new_empty(0, dtype=like))
        self.unit = unit_parameters(self.family, self.identity)
        self.half = fixed.new_tensor([n / 2 for n in reversed(self.size)], dtype=coordinate_dtype(fixed.device))

    @property
    def is_quadratic(self) -> bool:
        """Whether the loss is a sum of squares, over pixels at points of a matrix."""
        matrices = self.start is None or isinstance(self.start, MatrixWarp)
        return self.loss in SQUARES and matrices and isinstance(self.family(self.identity.unsqueeze(0)), MatrixWarp)

    @property
    def ignores_contrast(self) -> bool:
        return ignores_contrast(self.loss)

    def level(self, k: int) -> Pair:
        moving, fixed, *masks = self.pyramids
        return Pair(at_most(moving, k), at_most(fixed, k), *(None if mask is None else at_most(mask, k) for mask in masks))

    def warp(self, found: Warp) -> Warp:
        return found if self.start is None else self.start @ found

    def losses(self, theta: Tensor, pair: Pair) -> Tensor:
        """Return the objective (N,) for N thetas and N pairs of a level."""
        if self.symmetric:
            return self._from_the_middle(theta, pair)
        new: Warp = self.family(theta)
        warp = self.warp(new)
        found, weight = self._seen(warp, pair.moving, pair.moving_mask, tuple(pair.fixed.shape[2:]))
        weight = weight if pair.fixed_mask is None else weight * pair.fixed_mask
        return self._with_terms(self.loss(found, pair.fixed, weight), (new,), warp)

    def _from_the_middle(self, theta: Tensor, pair: Pair) -> Tensor:
        """Compare both images half way: to exchange them and negate theta changes nothing (Avants et al. 2008).

        The bending is therefore the mean of that of both halves. With that of one half, the warps of exchanged images missed
        each other's inverse by up to 0.013 pixels.
        """
        ahead, back, size = self.family(theta / 2), self.family(-theta / 2), tuple(pair.fixed.shape[2:])
        a, wa = self._seen(self.warp(ahead), pair.moving, pair.moving_mask, size)
        b, wb = self._seen(back, pair.fixed, pair.fixed_mask, size)
        warp = ahead if self.landmarks is None else self.warp(self.family(theta))  # which only landmarks need
        return self._with_terms(self.loss(a, b, wa * wb), (ahead, back), warp)

    def _seen(self, warp: Warp, image: Tensor, mask: Tensor | None, size: tuple[int, ...]) -> tuple[Tensor, Tensor]:
        """Return the warped image, and the weights of its pixels."""
        # Zero padding would darken the outermost pixels, which caused errors of 0.5 pixels. The weight gets no gradient,
        # which would move the images apart until they hardly overlap.
        warped, weight = warp.sample(image, size, padding_mode="border", return_mask=True)
        weight = weight.detach().to(warped.dtype)
        if mask is not None:
            weight = weight * warp.detach().sample(mask, size, padding_mode="border")
        return warped, weight

    def _with_terms(self, found: Tensor, new: Sequence[Warp], warp: Warp) -> Tensor:
        repeats = len(found) // self.count
        further = [part.square().flatten(1).sum(dim=1) for part in self.terms(new, warp, repeats)]
        return sum(further, found)

    def residual(self, theta: Tensor) -> Tensor:
        """Return the loss (N,) between the images at full resolution, without further terms."""
        return replace(self, bending=0.0, landmarks=None).losses(theta, self.level(0))

    def coarser(self, level: int) -> Problem:
        """Return the problem of a level, whose family has half as many cells along each axis as on the finer level."""
        family = coarser(self.family, level)
        return self if family == self.family else replace(self, family=family)

    def terms(self, new: Sequence[Warp], warp: Warp, repeats: int = 1) -> Iterator[Tensor]:
        """Yield residuals (*batch, R) whose squares are added to the loss: the mean bending of `new`, and landmarks."""
        for part in new:
            if self.bending and not (isinstance(part, MatrixWarp) and part.is_affine):
                yield math.sqrt(self.bending / len(new)) * bends(part)
        if self.landmarks is not None:
            fixed, moving = (p.repeat_interleave(repeats, dim=0) for p in (self.landmarks.fixed, self.landmarks.moving))
            if len(warp.batch) == 2:
                fixed, moving = fixed.unsqueeze(1), moving.unsqueeze(1)
            away = (warp.points(fixed) - moving) * self.half.to(warp.dtype)
            yield (away * math.sqrt(self.landmarks.weight / fixed.shape[-2])).flatten(len(warp.batch))

    def quadratic(self, x: Tensor, samples: Samples) -> Quadratic:  # (N, K, P)
        """Return the objective near positions, by the chain rule from the matrices to them."""
        n, k, p = x.shape
        around = DIFFERENCE * torch.eye(p, dtype=self.half.dtype, device=x.device)
        around = torch.cat([torch.zeros_like(around[:1]), around, -around])  # (1 + 2 P, P)
        places = self.identity + self.unit * (x.to(around.dtype).unsqueeze(2) + around)
        new = self.family(places.flatten(1, 2))
        warp = self.warp(new)
        assert isinstance(warp, MatrixWarp)
        matrices = warp.matrix.unflatten(1, (k, 1 + 2 * p))
        found = samples.quadratic(matrices[:, :, 0])
        by = _slopes(matrices.flatten(-2), p)  # (N, K, P, E)
        slope = (by @ found.slope.unsqueeze(-1)).squeeze(-1)
        loss, curvature = found.loss, by @ found.curvature @ by.mT
        for part in self.terms((new,), warp):
            values = part.to(around.dtype).unflatten(1, (k, 1 + 2 * p))  # (N, K, 1 + 2 P, R)
            own, by = values[:, :, 0], _slopes(values, p)
            loss = loss + own.square().sum(dim=-1)
            slope = slope + 2 * (by @ own.unsqueeze(-1)).squeeze(-1)
            curvature = curvature + 2 * by @ by.mT
        return Quadratic(loss, slope, curvature)


def _slopes(values: Tensor, p: int) -> Tensor:  # (N, K, 1 + 2 P, R) -> (N, K, P, R)
    return (values[:, :, 1 : 1 + p] - values[:, :, 1 + p :]) / (2 * DIFFERENCE)


def unit_parameters(transform: Family, identity: Tensor) -> Tensor:  # (P,)
    """Return the change of each parameter that moves some point by one half width, and no point by more.

    Steps are then comparable for an angle, a scale and a control point. One parameter of each name represents the others,
    of a lattice one at its center: a control point at the edge of a volume moves a thousandth as much.
    """
    xy = lattice((POINTS,) * transform.ndim, dtype=identity.dtype, device=identity.device).flatten(0, -2)
    unit = torch.ones_like(identity)
    for places in transform.parameters.values():
        small = 1e-3
        theta = identity.clone()
        theta[list(places)[_middle(transform, len(places))]] += small
        moved = (transform(theta.unsqueeze(0)).points(xy)[0] - xy).norm(dim=-1).max() / small
        unit[list(places)] = 1 / moved.clamp_min(1e-3)
    return unit


def _middle(transform: Family, count: int) -> int:
    shape: tuple[int, ...] | None = getattr(transform, "shape", None)
    if shape is None or count % math.prod(shape):
        return count // 2
    place = 0
    for n in shape:
        place = place * n + n // 2
    return place * (count // math.prod(shape))


def bends(warp: Warp) -> Tensor:  # (*batch, R)
    """Return second differences along each axis, in half widths, whose squares add up to their mean over points."""
    points = within_reach(warp.grid((POINTS,) * warp.ndim))  # a homography may have infinite values on its horizon
    lead, parts = len(warp.batch), []
    for axis in range(lead, lead + warp.ndim):
        second = (points.diff(n=2, dim=axis) / (2 / POINTS) ** 2).flatten(lead)
        parts.append(second / math.sqrt(second.shape[-1]))
    return torch.cat(parts, dim=-1)


def bent(warp: Warp) -> Tensor:  # (*batch,)
    """Return the mean square of second differences, summed over axes: 0 for affine maps."""
    return bends(warp).square().sum(dim=-1)
