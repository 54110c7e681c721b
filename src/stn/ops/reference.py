"""The reference implementation of sampling, in plain PyTorch. Every fast kernel is compared with it.

An operator is a *coordinate rule* (the sampling point of each output pixel: `Rule.coordinates` in `rules/`) followed by the
*sampling rule* (`sample_at`), which is the paper's eq. 3 over the few pixels that the kernel k reaches:

    V_i = sum_nm U_nm k(x_i - m) k(y_i - n)

All operations are differentiable torch operations, so derivatives of any order, forward mode and vmap need no extra code.
Coordinates are float64 for all dtypes of image and theta (`context.py`). Sums have the dtype of the image, at least float32.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from stn.ops.context import readable
from stn.ops.integers import as_integers, has_labels
from stn.ops.interpolation import Interpolation
from stn.ops.padding import Padding
from stn.ops.rules import Rule
from stn.ops.sampling import Sampling

# Coordinates are clamped to +-FAR pixels: padding in every image, and small enough for exact integers.
FAR = 2.0**30


def sample(
    rule: Rule,
    image: Tensor,  # (N, C, *in)
    data: Tensor,  # (N, K, ..): the data of the rule
    fill: Tensor,  # () or (C,)
    sampling: Sampling,
) -> Tensor:  # (N, K, C, *size)
    """Sample `image` at the coordinates of the rule."""
    axes = rule.axes(data, image.shape[2:], sampling.align_corners)
    return sample_at(image, rule.coordinates(data, axes), fill, sampling)


# ---- the sampling rule ----


class Tap(NamedTuple):
    """One tap of the kernel along one axis, for every output pixel: three tensors (N, K, *size)."""

    pixel: Tensor  # int64, in 0 .. n-1
    inside: Tensor  # bool: inside the image before padding
    weight: Tensor  # k(x - pixel)


def sample_at(
    image: Tensor,  # (N, C, *in)
    coordinates: Sequence[Tensor],  # d times (N, K, *size): source pixels, (x, y, ..)
    fill: Tensor,  # () or (C,)
    sampling: Sampling,
) -> Tensor:  # (N, K, C, *size)
    """Return the weighted sum of the taps. Pixels outside follow the padding; a NaN coordinate gives NaN."""
    if has_labels(image, sampling):
        return picked(image, coordinates, fill, sampling)
    n, channels = image.shape[:2]
    size = torch.broadcast_shapes(*(x.shape for x in coordinates))  # (N, K, *size)
    count = math.prod(size[1:])  # K * Q output pixels per image
    kernel, padding, align_corners = sampling[:3]
    dtype, margin = torch.promote_types(image.dtype, torch.float32), 0
    fill = fill.to(dtype).view(-1, 1)  # (C or 1, 1)
    source = image.to(dtype)
    if kernel.prefilter:
        source, margin = prefiltered(source, padding, fill, align_corners)
    pixels = source.flatten(2)  # (N, C, P)
    axes = [
        _taps(x.expand(size) + margin, length, kernel, padding, align_corners)
        for x, length in zip(coordinates, reversed(source.shape[2:]), strict=True)
    ]
    strides = [1, *itertools.accumulate(reversed(source.shape[3:]), lambda a, b: a * b)]

    total = pixels.new_zeros(())
    for taps in itertools.product(*axes):
        index = sum(tap.pixel * stride for tap, stride in zip(taps, strides, strict=True))
        value = pixels.gather(2, index.reshape(n, 1, count).expand(n, channels, count))  # (N, C, K * Q)
        if padding.fills:
            inside = torch.stack([tap.inside for tap in taps]).all(dim=0)
            value = torch.where(inside.reshape(n, 1, count), value, fill)
        weight = taps[0].weight
        for tap in taps[1:]:
            weight = weight * tap.weight
        weight = weight.to(dtype).reshape(n, 1, count)
        total = total + weight * without_nan(value, weight == 0)
    total = total.view(n, channels, *size[1:]).transpose(1, 2)  # (N, K, C, *size)
    return total.to(image.dtype)


def picked(
    image: Tensor,  # (N, C, *in) integers
    coordinates: Sequence[Tensor],
    fill: Tensor,
    sampling: Sampling,
) -> Tensor:  # (N, K, C, *size)
    """Return the nearest pixels as they are. Integers have no NaN: the fill value stands for it."""
    n, channels = image.shape[:2]
    size = torch.broadcast_shapes(*(x.shape for x in coordinates))
    count, (kernel, padding, align_corners) = math.prod(size[1:]), sampling[:3]
    taps = [
        _taps(x.expand(size), length, kernel, padding, align_corners)[0]
        for x, length in zip(coordinates, reversed(image.shape[2:]), strict=True)
    ]
    strides = [1, *itertools.accumulate(reversed(image.shape[3:]), lambda a, b: a * b)]
    index = torch.stack([tap.pixel * stride for tap, stride in zip(taps, strides, strict=True)]).sum(dim=0)
    known = torch.stack([~tap.weight.isnan() & (tap.inside | (not padding.fills)) for tap in taps]).all(dim=0)
    value = image.flatten(2).gather(2, index.reshape(n, 1, count).expand(n, channels, count))
    value = torch.where(known.reshape(n, 1, count), value, as_integers(fill, image.dtype).view(-1, 1))
    return value.view(n, channels, *size[1:]).transpose(1, 2)


def without_nan(value: Tensor, weightless: Tensor) -> Tensor:
    """Replace NaN and infinity by 0 where the weight is 0. Finite values stay: the weight's derivative needs them."""
    if readable(value) and readable(weightless) and value.detach().sum().isfinite():
        return value
    return torch.where(weightless & ~value.isfinite(), 0.0, value)


def _taps(x: Tensor, n: int, kernel: Interpolation, padding: Padding, align_corners: bool) -> list[Tap]:
    x = x.clamp(-FAR, FAR)  # NaN stays, and reaches the output through the weights
    finite = x.detach().nan_to_num(nan=0.0)
    base = finite.round() if kernel.rounds else finite.floor()
    first = base.long()
    taps = []
    for offset, weight in zip(kernel.offsets, kernel.weights(x - base), strict=True):
        index = first + offset
        inside = (index >= 0) & (index < n)
        taps.append(Tap(padding.pixel(index, n, align_corners), inside, weight))
    return taps


# ---- the B-spline's coefficients ----

POLE = math.sqrt(3) - 2


def prefilter_reach(padding: Padding, dtype: torch.dtype) -> tuple[int, int]:
    """Return the distance beyond which the response is below rounding, and the margin of coefficients, in pixels.

    The coefficients of a mirrored or wrapped image continue like the image. Others need a margin, beyond which they are
    constant.
    """
    reach = 14 if dtype == torch.float32 else 28
    return reach, 0 if padding.continues else reach


def prefiltered(
    image: Tensor,  # (N, C, *in)
    padding: Padding,
    fill: Tensor,  # () or (C,)
    align_corners: bool,
) -> tuple[Tensor, int]:  # (N, C, *in + 2 margin), margin
    """Return coefficients whose cubic B-spline passes through the pixels: Unser, Aldroubi, Eden 1993, part I, box 2.

    c = h * image, h_k = -6 z / (1 - z^2) z^|k|: the response of the recursive filter, cut off below rounding. The image
    is continued beyond its border by the padding.
    """
    reach, margin = prefilter_reach(padding, image.dtype)
    k = torch.arange(-reach, reach + 1, dtype=image.dtype, device=image.device)
    response = (-6 * POLE / (1 - POLE**2)) * POLE ** k.abs()
    for axis in range(2, image.ndim):
        n = image.shape[axis]
        index = torch.arange(-margin - reach, n + margin + reach, device=image.device)
        extended = image.index_select(axis, padding.pixel(index, n, align_corners))
        if padding.fills:
            inside = ((index >= 0) & (index < n)).view(-1, *(1,) * (image.ndim - 1 - axis))
            extended = torch.where(inside, extended, fill.view(-1, *(1,) * (image.ndim - 2)))
        rows = extended.movedim(axis, -1)
        found = torch.nn.functional.conv1d(rows.reshape(-1, 1, rows.shape[-1]), response.view(1, 1, -1))
        image = found.view(*rows.shape[:-1], -1).movedim(-1, axis)
    return image, margin
