"""Looks at a pyramid: averages over what each output pixel covers, and gradients that reach further than one pixel."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from stn.grid import half_extent
from stn.ops import footprint
from stn.ops.autograd import Settings, differentiated, is_transformed
from stn.ops.dispatch import as_bytes, inside, look
from stn.ops.pyramid import Pyramid

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

    def on(self, image: Tensor) -> Tensor:
        return look(self.rule, image, self.where, self.fill, self.settings)

    def inside(self, image: Tensor) -> Tensor:
        return inside(self.rule, image, self.where, self.settings)


Read = Callable[[Request, Tensor], Tensor]  # (N, K, C, *size) from one level: `Request.on`, `Request.inside`


def sample(request: Request, image: Tensor, pyramid: Pyramid | None, read: Read = Request.on) -> Tensor:
    """(N, K, C, *size). pyramid: that of the image, if there is one already."""
    if not request.antialias and request.gradient == "exact":
        return read(request, image)
    if image.dtype == torch.uint8:
        out = sample(request, image.float(), None, read)
        return as_bytes(out) if read is Request.on else out
    if pyramid is None:
        pyramid = Pyramid(image, align_corners=request.settings[2 if request.rule == "field" else 3])
    if request.gradient == "wide" and read is Request.on and differentiated(request.where):
        exact = replace(request, where=request.where.detach(), gradient="exact")
        value, reaching = sample(exact, image, pyramid), widened(request, pyramid)
        return value + (reaching - reaching.detach()).to(value.dtype)
    if not request.antialias:
        return read(request, image)
    return over_footprints(request, pyramid, read).to(image.dtype)


def over_footprints(request: Request, pyramid: Pyramid, read: Read) -> Tensor:
    jacobian = footprint.jacobian(request.rule, request.where, pyramid.sizes[0], request.settings)
    if request.antialias != "anisotropic":
        return blend(request, pyramid, footprint.level_of(footprint.squared_distance(jacobian)), read)
    across, step, ahead = footprint.longer_axis(jacobian)
    level, reach = footprint.level_of(across), taps_ahead(ahead)
    if reach == 0:
        return blend(request, pyramid, level, read)
    weights = [(1 - abs(j) / ahead).clamp_min(0) for j in range(-reach, reach + 1)]
    total, origin = torch.stack(weights).sum(dim=0), movable(request, pyramid.sizes[0])
    parts = [
        blend(moved(origin, j * step, pyramid.sizes[0]), pyramid, level, read) * over_channels(weight / total)
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
    return weighted(request, pyramid, used, weight, lambda request, image: request.on(image.detach()))


# ---- sums over levels ----


def blend(request: Request, pyramid: Pyramid, level: Tensor, read: Read) -> Tensor:
    """Linear between the two levels next to `level`, (N, K, *size), with lengths of 1."""
    level = level.clamp(max=len(pyramid) - 1)
    used = levels_in_use(level, len(pyramid))
    if len(used) == 2:  # by far the most common, and one step
        fine, coarse = (on_level(request, pyramid, k, read) for k in used)
        share = over_channels(level - used[0]).to(fine.dtype)
        return torch.lerp(fine, coarse, share) if differentiated(fine, coarse, share) else fine.lerp_(coarse, share)
    return weighted(request, pyramid, used, lambda k: hat(level - k), read)


def weighted(
    request: Request, pyramid: Pyramid, levels: Iterable[int], weight: Callable[[int], Tensor], read: Read
) -> Tensor:
    if len(used := list(levels)) == 1:
        return on_level(request, pyramid, used[0], read)
    total = torch.zeros((), device=request.where.device)
    for k in used:
        part = on_level(request, pyramid, k, read)
        total = total + part * over_channels(weight(k)).to(part.real.dtype)
    return total


def on_level(request: Request, pyramid: Pyramid, k: int, read: Read) -> Tensor:
    """At least in float32."""
    part = read(normalized(request, pyramid.sizes[0]) if k else request, pyramid[k])
    return part.to(torch.promote_types(part.dtype, torch.float32))


def hat(distance: Tensor) -> Tensor:
    return (1 - distance.abs()).clamp_min(0)


def over_channels(weight: Tensor) -> Tensor:  # (N, K, *size) -> (N, K, 1, *size)
    return weight.unsqueeze(2)


def levels_in_use(level: Tensor, count: int) -> range:
    """Those next to any of the numbers. In a graph, and under torch.func, numbers cannot be asked: all `count`."""
    if torch.compiler.is_compiling() or is_transformed():
        return range(count)
    if level.numel() == 0:
        return range(1)
    least, most = torch.aminmax(level.detach())
    return range(math.floor(least.item()), math.ceil(most.item()) + 1)


def taps_ahead(ahead: Tensor) -> int:
    if torch.compiler.is_compiling() or is_transformed():
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
    if is_affine(request, size):
        return request
    how = request.settings[:3] if request.rule == "field" else request.settings[1:4]
    axes = footprint.coordinates(request.rule, request.where, size, request.settings)
    where = torch.stack(torch.broadcast_tensors(*axes), dim=-1)
    return replace(request, rule="field", where=where, settings=(*how, "pixel", False))


def moved(request: Request, step: Tensor, size: tuple[int, ...]) -> Request:
    """By a step in source pixels, (N, K, *size, d)."""
    if not is_affine(request, size):
        return replace(request, where=request.where + step)
    half, _ = extents(size, request.settings[3], request.where)
    matrix, d = request.where, len(size)
    shift = (step.view(*matrix.shape[:2], d) / half).unsqueeze(-1)
    return replace(request, where=torch.cat([matrix[..., :d], matrix[..., d:] + shift.to(matrix.dtype)], dim=-1))


def is_affine(request: Request, size: tuple[int, ...]) -> bool:
    return request.rule == "matrix" and request.where.shape[-2] == len(size)


def extents(size: tuple[int, ...], align_corners: bool, like: Tensor) -> tuple[Tensor, Tensor]:
    """Pixels per normalised unit (1 where there are none), and the middle, in (x, y, ..) order: (d,), (d,)."""
    half = [half_extent(n, align_corners) or 1.0 for n in reversed(size)]
    return like.new_tensor(half), like.new_tensor([(n - 1) / 2 for n in reversed(size)])
