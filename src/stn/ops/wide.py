"""Wide gradients: the value of a plain call, with the gradient in the coordinates of a weighted mean over pyramid levels.

Each level has twice the weight of the finer one, because its slopes are half as steep. The mean is used only for its
derivative: forward samples none of it, and the image gets no gradient from it. From level MERGED on, levels differ little
between neighboring pixels. They are added up on the grid of level MERGED, so that a gradient takes MERGED + 1 passes.
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
MERGED = 2  # 16x3x512x512: 2.2 times the exact gradient's time; each level by itself 4.5 times


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
    levels = used_levels(pyramid)
    shares = {k: 2.0**k / (2.0 ** len(levels) - 1) for k in levels}
    parts = [Part(rule, data, pyramid[k].detach(), fill, shares[k]) for k in levels[: MERGED + 1]]
    if len(levels) <= MERGED + 1:
        return parts
    rest = levels[MERGED:]
    margins = [margin(*lengths, sampling) for lengths in zip(pyramid.sizes[MERGED], pyramid.sizes[rest[-1]], strict=True)]
    size = tuple(n + 2 * m for n, m in zip(pyramid.sizes[MERGED], margins, strict=True))
    factors = [
        half_extent(n, sampling.align_corners) / half_extent(m, sampling.align_corners) if n != m else 1.0
        for n, m in zip(pyramid.sizes[MERGED][::-1], size[::-1], strict=True)
    ]  # in x, y, z
    total = added([pyramid[k].detach() for k in rest], [shares[k] for k in rest], size, factors, fill, sampling)
    moved = scaled(rule, data, factors, pyramid.sizes[0], sampling)
    return [*parts[:-1], Part(*moved, total, fill * sum(shares[k] for k in rest), 1.0)]


def margin(n: int, coarse: int, sampling: Sampling) -> int:
    """Return the pixels beyond the border, on an axis of n, in which the coarsest level fades to the fill value."""
    if not sampling.padding.fills or (sampling.align_corners and n == 1):
        return 0
    taps, aligned = len(sampling.interpolation.offsets), sampling.align_corners and coarse > 1
    reach = taps / 2 * (n - 1) / (coarse - 1) if aligned else (taps - 1) / 2 * n / coarse
    return math.ceil(reach) + 1


def added(
    levels: Sequence[Tensor],
    shares: Sequence[float],
    size: tuple[int, ...],
    factors: Sequence[float],
    fill: Tensor,
    sampling: Sampling,
) -> Tensor:  # (N, C, *size)
    """Return the sum of the levels by their shares, at the pixels of an image whose half extents are 1 / factors."""
    n, d = levels[0].shape[0], len(size)
    real = torch.promote_types(levels[0].real.dtype, torch.float32)
    matrix = torch.zeros(d, d + 1, dtype=real, device=levels[0].device)
    matrix[:, :d] = matrix.new_tensor([1 / f for f in factors]).diag()
    matrix, total = matrix.expand(n, 1, d, d + 1), torch.zeros((), device=matrix.device)
    for level, share in zip(levels, shares, strict=True):
        total = total + dispatch.sample(Matrix(size), level, matrix, fill, sampling).squeeze(1) * share
    return total


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
