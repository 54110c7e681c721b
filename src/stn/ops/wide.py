"""Wide gradients: the value of a plain call, with the gradient in the coordinates of a weighted mean over pyramid levels.

Each level has twice the weight of the finer one, because its slopes are half as steep. The mean is used only for its
derivative: forward samples none of it, and the image gets no gradient from it. More than FEW levels are added up: those
from level 2 on at the pixels of level 2, and the sum with level 1 at the pixels of level 1. A gradient then takes two
passes, over the image and over the sum.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from stn.grid import half_extent
from stn.ops import dispatch
from stn.ops.context import observed, recorded
from stn.ops.pyramid import Pyramid
from stn.ops.rules import Field, Matrix, Rule
from stn.ops.sampling import Sampling

LEAST_SIDE = 4  # longer side, in pixels, of the coarsest level
FEW = 3  # levels that are sampled one by one


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
    if len(levels) > FEW:
        coarsest = pyramid.sizes[levels[-1]]
        coarse = added(sources[2:], pyramid.sizes[2], coarsest, sampling)
        sources = [sources[0], added([sources[1], coarse], pyramid.sizes[1], coarsest, sampling)]
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


def added(sources: Sequence[Source], size: tuple[int, ...], coarsest: tuple[int, ...], sampling: Sampling) -> Source:
    """Return the sum at the pixels of a level of this size, and where the coarsest level reaches beyond the image."""
    margins = [margin(n, m, sampling) for n, m in zip(size, coarsest, strict=True)]
    wide = tuple(n + 2 * m for n, m in zip(size, margins, strict=True))
    factors = tuple(
        half_extent(n, sampling.align_corners) / half_extent(m, sampling.align_corners) if n != m else 1.0
        for n, m in zip(size[::-1], wide[::-1], strict=True)
    )
    first, d = sources[0].image, len(size)
    matrix = first.new_zeros(first.shape[0], 1, d, d + 1, dtype=torch.promote_types(first.real.dtype, torch.float32))
    total, filled = torch.zeros((), device=first.device), torch.zeros_like(sources[0].fill)
    for image, fill, share, own in sources:
        look = matrix.clone()
        look[..., :d] = matrix.new_tensor([f / g for f, g in zip(own, factors, strict=True)]).diag()
        total = total + dispatch.sample(Matrix(wide), image, look, fill, sampling).squeeze(1) * share
        filled = filled + fill * share
    return Source(total, filled, 1.0, factors)


def margin(n: int, coarse: int, sampling: Sampling) -> int:
    """Return the pixels beyond the border, on an axis of n, in which the coarsest level fades to the fill value."""
    if not sampling.padding.fills or (sampling.align_corners and n == 1):
        return 0
    taps, aligned = len(sampling.interpolation.offsets), sampling.align_corners and coarse > 1
    reach = taps / 2 * (n - 1) / (coarse - 1) if aligned else (taps - 1) / 2 * n / coarse
    return math.ceil(reach) + 1


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
