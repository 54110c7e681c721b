"""Sampling from a pyramid: anti-aliasing, and gradients from a larger neighborhood."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from stn.grid import Axes
from stn.ops import dispatch, footprint, wide
from stn.ops.context import differentiated, observed
from stn.ops.integers import as_integers
from stn.ops.pyramid import Pyramid
from stn.ops.reference import without_nan
from stn.ops.rules import PIXELS, Field, Rule, stored
from stn.ops.sampling import Sampling


@dataclass(frozen=True)
class Request:
    """One call of an operator, without the image."""

    rule: Rule
    data: Tensor  # (N, K, ..)
    fill: Tensor
    sampling: Sampling

    def axes(self, size: tuple[int, ...]) -> Axes:
        return self.rule.axes(self.data, size, self.sampling.align_corners)

    def on(self, image: Tensor) -> Tensor:
        return dispatch.sample(self.rule, image, self.data, self.fill, self.sampling)

    def inside(self, image: Tensor) -> Tensor:
        return dispatch.inside(self.rule, image, self.data, self.sampling)

    def exact(self) -> Request:
        """Return the request without a wide gradient and without any gradient in the coordinates."""
        return replace(self, data=self.data.detach(), sampling=self.sampling._replace(gradient="exact"))


Read = Callable[[Request, Tensor], Tensor]  # (N, K, C, *size) from one level: `Request.on`, `Request.inside`


def pyramid_of(image: Tensor, sampling: Sampling) -> Pyramid:
    """The inputs of such a call."""
    return Pyramid(image, align_corners=sampling.align_corners, padding_mode=sampling.padding.name)


def sample(request: Request, pyramid: Pyramid, read: Read = Request.on) -> Tensor:
    """(N, K, C, *size)."""
    image = pyramid.image
    if image.dtype == torch.uint8:
        out = _sample(request, pyramid[0], pyramid, read)
        return as_integers(out, torch.uint8, request.fill) if read is Request.on else out
    return _sample(request, image, pyramid, read)


def _sample(request: Request, image: Tensor, pyramid: Pyramid, read: Read) -> Tensor:
    sampling = request.sampling
    if sampling.gradient == "wide" and read is Request.on and differentiated(request.data):
        value = _sample(request.exact(), image, pyramid, read)
        if not sampling.antialias and sampling.align_corners == pyramid.how.aligned:
            below, how = normalized(request, pyramid.sizes[0]), sampling._replace(gradient="exact")
            return wide.with_gradient(value, wide.parts_of(below.rule, below.data, request.fill, how, pyramid), how)
        reaching = widened(request, pyramid)
        return value + (reaching - reaching.detach()).to(value.dtype)
    if not sampling.antialias:
        return read(request, image)
    return over_footprints(request, pyramid, read).to(image.dtype)


def over_footprints(request: Request, pyramid: Pyramid, read: Read) -> Tensor:
    axes = request.axes(pyramid.sizes[0])
    jacobian = footprint.jacobian(request.rule, request.data, axes)
    if request.sampling.antialias != "anisotropic" or len(pyramid.sizes[0]) == 1:  # a signal has no other axis
        return blend(Levels(request, pyramid, read), footprint.level_of(footprint.squared_distance(jacobian)))
    across, step, ahead = footprint.longer_axis(jacobian)
    level, reach = footprint.level_of(across), taps_ahead(ahead)
    if reach == 0:
        return blend(Levels(request, pyramid, read), level)
    weights = [(1 - abs(j) / ahead).clamp_min(0) for j in range(-reach, reach + 1)]
    total, move = torch.stack(weights).sum(dim=0), request.rule.mover(request.data, axes)
    if move is None:
        request = in_pixels(request, pyramid.sizes[0])
        move = request.data.add
    parts = [
        blend(Levels(replace(request, data=move(j * step)), pyramid, read), level) * over_channels(weight / total)
        for j, weight in zip(range(-reach, reach + 1), weights, strict=True)
    ]
    return torch.stack(parts).sum(dim=0)


def widened(request: Request, pyramid: Pyramid) -> Tensor:
    """Return the mean of `wide.py` over all levels, in which those finer than a footprint have no weight."""
    levels = wide.used_levels(pyramid)
    least = request.data.new_zeros((1,) * (2 + len(pyramid.sizes[0])))
    if request.sampling.antialias:  # no level finer than that of the footprint
        jacobian = footprint.jacobian(request.rule, request.data, request.axes(pyramid.sizes[0]))
        least = footprint.level_of(footprint.squared_distance(jacobian)).clamp(max=len(pyramid) - 1)

    def weight(k: int) -> Tensor:
        shares = [2.0**level * hat(least.clamp_min(level) - k) for level in levels]
        return torch.stack(shares).sum(dim=0) / (2.0 ** len(levels) - 1)

    used = range(max(len(levels), levels_in_use(least, len(pyramid))[-1] + 1))
    return weighted(Levels(request, pyramid, lambda request, image: request.on(image.detach())), used, weight)


# ---- sums over levels ----


class Levels:
    """Sample a request from each level of a pyramid, at least in float32."""

    def __init__(self, request: Request, pyramid: Pyramid, read: Read) -> None:
        self.request, self.pyramid, self.read = request, pyramid, read
        self.below: Request | None = None  # the same, in units that are valid for all levels

    def __len__(self) -> int:
        return len(self.pyramid)

    def __getitem__(self, level: int) -> Tensor:
        part = self.read(self.request if level == 0 else self.at(level), self.pyramid[level])
        return part.to(torch.promote_types(part.dtype, torch.float32))

    def at(self, level: int) -> Request:
        size, sampling = self.pyramid.sizes[0], self.request.sampling
        if sampling.align_corners == self.pyramid.how.aligned:
            self.below = self.below or normalized(self.request, size)
            return self.below
        self.below = self.below or in_pixels(self.request, size)
        shrinks = [m / n for m, n in zip(reversed(self.pyramid.sizes[level]), reversed(size), strict=True)]
        data = torch.stack([(x + 0.5) * s - 0.5 for x, s in zip(self.below.data.unbind(-1), shrinks, strict=True)], dim=-1)
        return replace(self.below, data=data)


def blend(levels: Levels, level: Tensor) -> Tensor:
    """Interpolate linearly between the two levels next to `level`, (N, K, *size), with lengths of 1."""
    level = level.clamp(max=len(levels) - 1)
    used = levels_in_use(level, len(levels))
    if len(used) == 2:  # the most common case, in one step
        fine, coarse = (levels[k] for k in used)
        share = over_channels(level - used[0]).to(fine.real.dtype)
        fine, coarse = without_nan(fine, share == 1), without_nan(coarse, share == 0)
        share = share.to(fine.dtype)
        return torch.lerp(fine, coarse, share) if differentiated(fine, coarse, share) else fine.lerp_(coarse, share)
    return weighted(levels, used, lambda k: hat(level - k))


def weighted(levels: Levels, used: range, weight: Callable[[int], Tensor]) -> Tensor:
    if len(used) == 1:
        return levels[used[0]]
    total = torch.zeros((), device=levels.request.data.device)
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
    """Return the levels next to any of the values; all `count` in a graph and under torch.func, where values are unknown."""
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


# ---- requests in other units ----


def normalized(request: Request, size: tuple[int, ...]) -> Request:
    """Convert a request in pixels to normalized units, which are valid for every level."""
    if not isinstance(request.rule, Field):
        return request
    rule, data = request.rule.normalized(request.data, request.axes(size))
    return replace(request, rule=rule, data=data)


def in_pixels(request: Request, size: tuple[int, ...]) -> Request:
    """Return the same sampling points as a stored field."""
    return replace(request, rule=PIXELS, data=stored(request.rule, request.data, request.axes(size)))
