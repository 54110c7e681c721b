"""The gradient in the image without atomics, which add in a different order in every run.

For one tap of all output pixels at a time: list the target pixels, sort them stably, and let each image pixel add its
segment of the list. So the order of programs has no effect, for any rule and padding. This takes several times as long as
atomics, and needs 20 to 30 bytes per output pixel temporarily.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from stn.ops.gpu.coordinates import divmod, output_pixels
from stn.ops.gpu.forward import NUMBERS, image_and_look, program
from stn.ops.gpu.places import source_pixels
from stn.ops.gpu.programs import run
from stn.ops.gpu.taps import axis_tap, weights_of

TARGETS, TERMS = 64, 8  # per program at a time, estimated: one look enlarged by three adds nine terms to most pixels


class OrderedTaps:
    """Memory for one tap of all output pixels, reused for each tap."""

    def __init__(self, grad: Tensor, grad_image: Tensor) -> None:  # (N * K, C, Q), (N, C, *in)
        self.none = grad_image[:, :1].numel()  # the target of taps that have no pixel
        kind = torch.int32 if self.none < 2**31 - 1 else torch.int64
        count = grad.shape[0] * grad.shape[2]
        self.target = torch.empty(count, dtype=kind, device=grad.device)
        self.weight = torch.empty(count, dtype=grad_image.dtype, device=grad.device)
        self.targets = torch.arange(self.none + 1, dtype=kind, device=grad.device)

    def add(self, grad: Tensor, grad_image: Tensor) -> None:
        """Add the listed taps to the gradient of the image."""
        target, order = torch.sort(self.target, stable=True)
        starts = torch.searchsorted(target, self.targets)
        channels, pixels = grad_image.shape[1], self.none // grad_image.shape[0]
        image = grad_image.flatten(2)  # (N, C, P), a view in either layout
        programs = channels * -(-self.none // TARGETS)
        numbers = channels, pixels, grad.shape[2], self.none
        arguments = grad, image, image.stride(), starts, order, self.weight, *numbers
        run(add_kernel, grad.device, programs, *arguments, TARGETS=TARGETS, TERMS=TERMS)


@triton.jit
def chosen(values, k, TAPS: tl.constexpr):
    """values[k] for a k that is not known at compile time."""
    found = values[0]
    for i in tl.static_range(1, TAPS):
        found = tl.where(k == i, values[i], found)
    return found


@triton.jit(do_not_specialize=NUMBERS + ("none", "number"))
def list_kernel(
    data, data_strides, knots, scale, targets, weights, none, number,
    looks, channels, group_channels, width, height, depth, across, down, deep, count, dividers,
    HOW: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Store the pixel that tap `number` of each output pixel reads, counted over the batch, and its weight: (N * K * Q,)."""
    REAL: tl.constexpr = weights.dtype.element_ty
    tile, _, look, _, _, _ = program(channels, group_channels, across, down, deep, dividers, BLOCK)
    here, size, out_size = divmod(look, looks, dividers[2]), (width, height, depth), (across, down, deep)
    pixel, real = output_pixels(tile, out_size, dividers, BLOCK)
    data = image_and_look(data, data_strides, here)
    first, t, _ = source_pixels(data, data_strides[2:], knots, count, scale, pixel, real, size, out_size, REAL, HOW)
    target, pitch, inside = tl.zeros_like(pixel[0]), 1, real
    weight = tl.full(real.shape, 1.0, REAL)
    for i in tl.static_range(HOW.ndim):
        there, known = axis_tap(first[i], number % HOW.taps, size[i], HOW)
        weight *= chosen(weights_of(t[i], HOW), number % HOW.taps, HOW.taps)
        target, inside = target + there * pitch, inside & known
        number, pitch = number // HOW.taps, pitch * size[i]
    kind: tl.constexpr = targets.dtype.element_ty
    target = target.to(kind) + here[0].to(kind) * (width * height * depth)
    at = (pixel[2] * down + pixel[1]) * across + pixel[0] + look.to(tl.int64) * (across * down * deep)
    tl.store(targets + at, tl.where(inside & (weight != 0.0), target, tl.cast(none, kind)), mask=real)
    tl.store(weights + at, weight, mask=real)


@triton.jit(do_not_specialize=("channels", "pixels", "count", "none"))
def add_kernel(
    grad, image, strides, starts, order, weights, channels, pixels, count, none,
    TARGETS: tl.constexpr, TERMS: tl.constexpr,
):  # fmt: skip
    """image (N, C, P) += weights of the listed taps times grad (N * K, C, Q), in their order; a program has one channel."""
    target = (tl.program_id(0) // channels).to(tl.int64) * TARGETS + tl.arange(0, TARGETS)
    c, known = (tl.program_id(0) % channels).to(tl.int64), target < none
    start = tl.load(starts + target, mask=known, other=0)
    end = tl.load(starts + target + 1, mask=known, other=0)
    to = image + target // pixels * strides[0] + c * strides[1] + target % pixels * strides[2]
    total = tl.load(to, mask=known, other=0.0)
    for first in range(0, tl.max(end - start), TERMS):
        at = (start + first)[:, None] + tl.arange(0, TERMS)[None, :]
        mine = at < end[:, None]
        tap = tl.load(order + at, mask=mine, other=0)
        weight = tl.load(weights + tap, mask=mine, other=0.0)
        value = tl.load(grad + (tap // count * channels + c) * count + tap % count, mask=mine, other=0.0)
        total += tl.sum(weight * value.to(weight.dtype), axis=1)
    tl.store(to, total, mask=known)
