"""Looks at a pyramid: averages over what each output pixel covers, and gradients that reach further than one pixel."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from stn.grid import half_extent
from stn.ops import footprint
from stn.ops.devices import Settings
from stn.ops.dispatch import as_bytes, inside, look
from stn.ops.observers import differentiated, observed
from stn.ops.pyramid import Pyramid
from stn.ops.reference import without_nan

ANTIALIAS, GRADIENT = (False, True, "anisotropic"), ("exact", "wide")
LEAST_SIDE = 4  # pixels of the longer side of the coarsest level that a wide gradient reads


@dataclass(frozen=True)
class Request:
    """One call of an operator, but for the image: what `look` takes, and how it is to be made."""

    rule: str
    where: Tensor  # (N, K, ..)
    fill: Tensor
    settings: Settings
    antialias: bool | str = False
    gradient: str = "exact"

    @property
    def padding_mode(self) -> str:
        return str(self.settings[1 if self.rule == "field" else 2])

    @property
    def align_corners(self) -> bool:
        return bool(self.settings[2 if self.rule == "field" else 3])

    def on(self, image: Tensor) -> Tensor:
        return look(self.rule, image, self.where, self.fill, self.settings)

    def inside(self, image: Tensor) -> Tensor:
        return inside(self.rule, image, self.where, self.settings)


Read = Callable[[Request, Tensor], Tensor]  # (N, K, C, *size) from one level: `Request.on`, `Request.inside`


def pyramid_for(request: Request, image: Tensor, pyramid: Pyramid | None) -> Pyramid | None:
    """What such a request reads, made unless it is at hand. A plain one reads the image."""
    if not request.antialias and request.gradient == "exact":
        return None
    return pyramid or Pyramid(image, align_corners=request.align_corners, padding_mode=request.padding_mode)


def sample(request: Request, image: Tensor, pyramid: Pyramid | None, read: Read = Request.on) -> Tensor:
    """(N, K, C, *size). pyramid: as `pyramid_for` has it."""
    if pyramid is None:
        return read(request, image)
    if image.dtype == torch.uint8:
        out = sample(request, pyramid[0], pyramid, read)
        return as_bytes(out) if read is Request.on else out
    if request.gradient == "wide" and read is Request.on and differentiated(request.where):
        exact = replace(request, where=request.where.detach(), gradient="exact")
        value, reaching = sample(exact, image, pyramid), widened(request, pyramid)
        return value + (reaching - reaching.detach()).to(value.dtype)
    if not request.antialias:
        return read(request, image)
    return over_footprints(request, pyramid, read).to(image.dtype)


def over_footprints(request: Request, pyramid: Pyramid, read: Read) -> Tensor:
    size = pyramid.sizes[0]
    jacobian = footprint.jacobian(request.rule, request.where, size, request.settings)
    if request.antialias != "anisotropic":
        return blend(Levels(request, pyramid, read), footprint.level_of(footprint.squared_distance(jacobian)))
    across, step, ahead = footprint.longer_axis(jacobian)
    level, reach = footprint.level_of(across), taps_ahead(ahead)
    if reach == 0:
        return blend(Levels(request, pyramid, read), level)
    weights = [(1 - abs(j) / ahead).clamp_min(0) for j in range(-reach, reach + 1)]
    total, origin = torch.stack(weights).sum(dim=0), movable(request, size)
    parts = [
        blend(Levels(moved(origin, j * step, size), pyramid, read), level) * over_channels(weight / total)
        for j, weight in zip(range(-reach, reach + 1), weights, strict=True)
    ]
    return torch.stack(parts).sum(dim=0)


def widened(request: Request, pyramid: Pyramid) -> Tensor:
    """A mean over the levels from fine to coarse, for the sake of its derivative in where the looks are; nothing of it
    goes to the image. Each level has twice the weight of the finer one, which undoes that its slopes are half as steep.
    """
    levels = [k for k, size in enumerate(pyramid.sizes) if k == 0 or max(size) >= LEAST_SIDE]
    least = request.where.new_zeros((1,) * (2 + len(pyramid.sizes[0])))
    if request.antialias:  # no level below that of the footprint
        jacobian = footprint.jacobian(request.rule, request.where, pyramid.sizes[0], request.settings)
        least = footprint.level_of(footprint.squared_distance(jacobian)).clamp(max=len(pyramid) - 1)

    def weight(k: int) -> Tensor:
        shares = [2.0**level * hat(least.clamp_min(level) - k) for level in levels]
        return torch.stack(shares).sum(dim=0) / (2.0 ** len(levels) - 1)

    used = range(max(len(levels), levels_in_use(least, len(pyramid))[-1] + 1))
    return weighted(Levels(request, pyramid, lambda request, image: request.on(image.detach())), used, weight)


# ---- sums over levels ----


class Levels:
    """What a request reads from each level of a pyramid, at least in float32."""

    def __init__(self, request: Request, pyramid: Pyramid, read: Read) -> None:
        self.request, self.pyramid, self.read = request, pyramid, read
        self.below: Request | None = None  # the same, in the units that the levels below the image share

    def __len__(self) -> int:
        return len(self.pyramid)

    def __getitem__(self, level: int) -> Tensor:
        part = self.read(self.request if level == 0 else self.at(level), self.pyramid[level])
        return part.to(torch.promote_types(part.dtype, torch.float32))

    def at(self, level: int) -> Request:
        size = self.pyramid.sizes[0]
        if self.request.align_corners == self.pyramid.how.aligned:
            self.below = self.below or normalized(self.request, size)
            return self.below
        self.below = self.below or in_pixels(self.request, size)
        shrinks = [m / n for m, n in zip(reversed(self.pyramid.sizes[level]), reversed(size), strict=True)]
        where = torch.stack([(x + 0.5) * s - 0.5 for x, s in zip(self.below.where.unbind(-1), shrinks, strict=True)], dim=-1)
        return replace(self.below, where=where)


def blend(levels: Levels, level: Tensor) -> Tensor:
    """Linear between the two levels next to `level`, (N, K, *size), with lengths of 1."""
    level = level.clamp(max=len(levels) - 1)
    used = levels_in_use(level, len(levels))
    if len(used) == 2:  # by far the most common, and one step
        fine, coarse = (levels[k] for k in used)
        share = over_channels(level - used[0]).to(fine.real.dtype)
        fine, coarse = without_nan(fine, share == 1), without_nan(coarse, share == 0)
        share = share.to(fine.dtype)
        return torch.lerp(fine, coarse, share) if differentiated(fine, coarse, share) else fine.lerp_(coarse, share)
    return weighted(levels, used, lambda k: hat(level - k))


def weighted(levels: Levels, used: range, weight: Callable[[int], Tensor]) -> Tensor:
    if len(used) == 1:
        return levels[used[0]]
    total = torch.zeros((), device=levels.request.where.device)
    for k in used:
        part = levels[k]
        share = over_channels(weight(k)).to(part.real.dtype)
        total = total + without_nan(part, share == 0) * share
    return total


def hat(distance: Tensor) -> Tensor:
    return (1 - distance.abs()).clamp_min(0)


def over_channels(weight: Tensor) -> Tensor:  # (N, K, *size) -> (N, K, 1, *size)
    return weight.unsqueeze(2)


def levels_in_use(level: Tensor, count: int) -> range:
    """Those next to any of the numbers. In a graph, and under torch.func, numbers cannot be asked: all `count`."""
    if observed(level):
        return range(count)
    if level.numel() == 0:
        return range(1)
    least, most = torch.aminmax(level.detach())
    return range(math.floor(least.item()), math.ceil(most.item()) + 1)


def taps_ahead(ahead: Tensor) -> int:
    if observed(ahead):
        return footprint.MOST_TAPS_AHEAD - 1
    return math.ceil(ahead.detach().max().item()) - 1 if ahead.numel() else 0


# ---- requests in other units, and at other places ----


def normalized(request: Request, size: tuple[int, ...]) -> Request:
    """Of stored pixels: the same in normalised units, which hold for every level."""
    if request.rule != "field" or request.settings[3] == "normalized":
        return request
    mode, padding_mode, align_corners, _, relative = request.settings
    half, middle = extents(size, align_corners, request.where)
    where = request.where if relative else request.where - middle
    return replace(request, where=where / half, settings=(mode, padding_mode, align_corners, "normalized", relative))


def movable(request: Request, size: tuple[int, ...]) -> Request:
    """An affine map is moved as it is, all else as stored pixels."""
    return request if footprint.is_affine(request.rule, request.where, len(size)) else in_pixels(request, size)


def in_pixels(request: Request, size: tuple[int, ...]) -> Request:
    """The same places, stored."""
    how = request.settings[:3] if request.rule == "field" else request.settings[1:4]
    axes = footprint.coordinates(request.rule, request.where, size, request.settings)
    where = torch.stack(torch.broadcast_tensors(*axes), dim=-1)
    return replace(request, rule="field", where=where, settings=(*how, "pixel", False))


def moved(request: Request, step: Tensor, size: tuple[int, ...]) -> Request:
    """By a step in source pixels, (N, K, *size, d)."""
    if not footprint.is_affine(request.rule, request.where, len(size)):
        return replace(request, where=request.where + step)
    half, _ = extents(size, request.settings[3], request.where)
    matrix, d = request.where, len(size)
    shift = (step.view(*matrix.shape[:2], d) / half).unsqueeze(-1)
    return replace(request, where=torch.cat([matrix[..., :d], matrix[..., d:] + shift.to(matrix.dtype)], dim=-1))


def extents(size: tuple[int, ...], align_corners: bool, like: Tensor) -> tuple[Tensor, Tensor]:
    """Pixels per normalised unit (1 where there are none), and the middle, in (x, y, ..) order: (d,), (d,)."""
    half = [half_extent(n, align_corners) or 1.0 for n in reversed(size)]
    return like.new_tensor(half), like.new_tensor([(n - 1) / 2 for n in reversed(size)])
