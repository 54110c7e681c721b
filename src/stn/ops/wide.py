"""Wide gradients: the value of a plain call, with the gradient in the coordinates of a weighted mean over pyramid levels.

Each level has twice the weight of the finer one, because its slopes are half as steep. The mean is used only for its
derivative: forward samples none of it, and the image gets no gradient from it. Levels of at most half as many pixels as the
output are added up, from the coarsest on, each sum at the pixels of the next finer level. A gradient then takes one pass
over each of the finer levels, the image among them, and one over the sum.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from stn.grid import half_extent
from stn.ops import dispatch
from stn.ops.context import observed, recorded
from stn.ops.padding import Padding
from stn.ops.pyramid import Pyramid
from stn.ops.rules import Field, Rule
from stn.ops.sampling import Sampling

LEAST_SIDE = 4  # longer side, in pixels, of the coarsest level
REALS = (torch.float32, torch.float64)
FEW = 3  # levels that are added up, at least


class Part(NamedTuple):
    """A term of the mean: `share` times the samples of an image."""

    rule: Rule
    data: Tensor  # (N, K, ..)
    image: Tensor
    fill: Tensor
    share: float

    def sample(self, sampling: Sampling) -> Tensor:
        out = dispatch.sample(self.rule, self.image, self.data, self.fill, sampling)
        return out.to(torch.promote_types(out.dtype, torch.float32)) * self.share


def used_levels(pyramid: Pyramid) -> list[int]:
    return [k for k, size in enumerate(pyramid.sizes) if k == 0 or max(size) >= LEAST_SIDE]


def parts_of(rule: Rule, data: Tensor, fill: Tensor, sampling: Sampling, pyramid: Pyramid) -> list[Part]:
    """Return the terms of the mean. rule, data: in units that are valid for each level."""
    levels, ones = used_levels(pyramid), (1.0,) * len(pyramid.sizes[0])
    sources = [Source(pyramid[k].detach(), fill, 2.0**k / (2.0 ** len(levels) - 1), ones) for k in levels]
    outputs = data.shape[1] * math.prod(rule.out_size(data))
    first = next((k for k in levels[1:] if 2 * math.prod(pyramid.sizes[k]) <= outputs), len(levels))
    if len(levels) - first >= FEW:
        total = sources.pop()
        while len(sources) > first:
            total = added(sources.pop(), total, pyramid.sizes[levels[-1]], sampling)
        sources.append(total)
    parts = []
    for image, filled, share, factors in sources:
        moved = scaled(rule, data, factors, pyramid.sizes[0], sampling)
        parts.append(Part(*moved, image, filled, share))
    return parts


class Source(NamedTuple):
    """`share` times an image, which shows a level, or more: normalized points of a level, times `factors`, are its own."""

    image: Tensor  # (N, C, *size)
    fill: Tensor
    share: float
    factors: tuple[float, ...]  # in x, y, z


def added(fine: Source, coarse: Source, coarsest: tuple[int, ...], sampling: Sampling) -> Source:
    """Return the sum at the pixels of the finer level, and where the coarsest level reaches beyond the image."""
    size, plain = tuple(fine.image.shape[2:]), not observed(fine.image)
    margins = [margin(n, m, sampling) for n, m in zip(size, coarsest, strict=True)]
    wide = tuple(n + 2 * m for n, m in zip(size, margins, strict=True))
    factors = tuple(
        half_extent(n, sampling.align_corners) / half_extent(m, sampling.align_corners) if n != m else 1.0
        for n, m in zip(size[::-1], wide[::-1], strict=True)
    )
    scales = [f / g for f, g in zip(coarse.factors[::-1], factors[::-1], strict=True)]
    how, shares = (sampling.padding, sampling.align_corners), (coarse.share, *(1.0,) * (len(size) - 1))
    points = [(*each, *how) for each in zip(coarse.image.shape[2:], wide, scales, shares, strict=True)]
    filled = fine.fill * fine.share + coarse.fill * coarse.share
    fills = sampling.padding.fills and not (plain and not filled.any())  # around images of zeros there is nothing to add
    if fills:
        fine, coarse = (part._replace(image=part.image - over_image(part.fill, part.image)) for part in (fine, coarse))
    total = resampled(coarse.image, points)
    if plain:
        inner = total
        for axis, (n, m) in enumerate(zip(size, margins, strict=True), start=2):
            inner = inner.narrow(axis, m, n)
        inner.add_(fine.image, alpha=fine.share)  # without new memory
    else:
        total = total + F.pad(fine.image * fine.share, [m for m in margins[::-1] for _ in range(2)])
    return Source(total + over_image(filled, total) if fills else total, filled, 1.0, factors)


def over_image(fill: Tensor, image: Tensor) -> Tensor:  # () or (C,) -> (C or 1, 1, ..)
    return fill.view(-1, *(1,) * (image.ndim - 2)).to(image.dtype)


def axis_taps(
    n: int, count: int, scale: float, share: float, padding: Padding, align_corners: bool
) -> tuple[Tensor, Tensor]:
    """Return the two pixels of an axis of n, and `share` times their weights, (count, 2) each, for `count` points: those of
    an axis of that many pixels, normalized, times `scale`. What lies outside has no weight where padding fills it."""
    half, unit = half_extent(n, align_corners), half_extent(count, align_corners) or 1.0
    x = (torch.arange(count, dtype=torch.float64, device="cpu") - (count - 1) / 2) / unit * scale * half + (n - 1) / 2
    base = x.floor()
    index = base.long().unsqueeze(1) + torch.arange(2, device="cpu")
    weight = torch.stack([1 - (x - base), x - base], dim=1)
    if padding.fills:
        weight = torch.where((index >= 0) & (index < n), weight, 0.0)
    return padding.pixel(index, n, align_corners), weight * share


@lru_cache(maxsize=256)
def kernel_taps(dtype: torch.dtype, *points: Any) -> Any:
    from stn.ops.cpu.pyramid import axis_of_taps  # which loads Numba

    return axis_of_taps(*axis_taps(*points), dtype)


def resampled(image: Tensor, points: Sequence[Any]) -> Tensor:
    """Return the sum of the taps along each axis: (N, C, *in) -> (N, C, *size). points: arguments of `axis_taps`."""
    if image.ndim > 3 and image.device.type == "cpu" and image.dtype in REALS and not observed(image):
        from stn.ops.cpu.pyramid import along_axes

        return along_axes(image, [kernel_taps(image.dtype, *each) for each in points])
    for axis, each in enumerate(points, start=2):
        pixel, weight = axis_taps(*each)
        read = image.index_select(axis, pixel.flatten().to(image.device)).unflatten(axis, pixel.shape)
        weight = weight.to(image.device, image.real.dtype).view(*pixel.shape, *(1,) * (image.ndim - 1 - axis))
        image = (read * weight).sum(dim=axis + 1)
    return image


def margin(n: int, coarse: int, sampling: Sampling) -> int:
    """Return the pixels beyond the border, on an axis of n, in which the coarsest level fades to the fill value."""
    if not sampling.padding.fills or (sampling.align_corners and n == 1):
        return 0
    aligned = sampling.align_corners and coarse > 1
    return math.ceil((n - 1) / (coarse - 1) if aligned else n / coarse / 2) + 1


def scaled(
    rule: Rule, data: Tensor, factors: Sequence[float], in_size: tuple[int, ...], sampling: Sampling
) -> tuple[Rule, Tensor]:
    """Return the same points, multiplied by a factor along each axis."""
    if all(f == 1 for f in factors):
        return rule, data
    found = rule.scaled(data, factors)
    if found is not None:
        return rule, found
    axes = rule.axes(data, in_size, sampling.align_corners)
    points = [
        (x - c) / (h or 1.0) * f for x, c, h, f in zip(rule.coordinates(data, axes), *axes[1::-1], factors, strict=True)
    ]
    return Field(), torch.stack(torch.broadcast_tensors(*points), dim=-1)


# ---- the gradient ----


def with_gradient(value: Tensor, parts: Sequence[Part], sampling: Sampling) -> Tensor:
    """Return the value, with the gradient in the data of the parts: `value` itself, changed in place, where kernels run."""
    tensors = [tensor for part in parts for tensor in (part.data, part.image, part.fill)]
    if not observed(value, *tensors) and not any(part.fill.requires_grad for part in parts):
        if all(dispatch.kernels_for(part.rule, part.image, part.data, sampling) is not None for part in parts):
            out: Tensor = Slopes.apply(value, sampling, [(part.rule, part.share) for part in parts], *tensors)
            return out
    reaching = torch.stack([part.sample(sampling) for part in parts]).sum(dim=0)
    return value + (reaching - reaching.detach()).to(value.dtype)


class Slopes(torch.autograd.Function):
    """A value that has been computed, with the gradient in the data of other samples."""

    @staticmethod
    def forward(
        ctx: Any, value: Tensor, sampling: Sampling, terms: Sequence[tuple[Rule, float]], *tensors: Tensor
    ) -> Tensor:
        ctx.save_for_backward(*tensors)
        ctx.how = sampling, terms
        ctx.mark_dirty(value)
        return value

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        (sampling, terms), tensors, found = ctx.how, ctx.saved_tensors, []
        for k, (rule, share) in enumerate(terms):
            data, image, fill = tensors[3 * k : 3 * k + 3]
            kernels = dispatch.kernels_for(rule, image, data, sampling)
            needed, own = (False, True), grad.to(image.dtype)
            if kernels is None or torch.is_grad_enabled() or recorded(grad, image, data):
                in_data = dispatch.call_gradient(rule, own, image, data, fill, needed, sampling)[1]
            else:
                in_data = kernels.gradient(rule, own, image, data, fill, sampling, needed)[1]
            assert in_data is not None
            found += [in_data * share, None, None]
        return grad, None, None, *found
