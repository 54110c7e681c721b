"""Calls: from tensors to the words that kernels read, and back."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from stn.ops.cpu import memory
from stn.ops.cpu.plan import Plan, plan_of
from stn.ops.cpu.prefilter import coefficients, filtered
from stn.ops.cpu.threads import start
from stn.ops.layout import is_channels_last, plain
from stn.ops.rules import Rule
from stn.ops.sampling import Sampling

Fill = Tensor | float  # (), (C,), or 0.0


class Known(NamedTuple):
    """What forward finds, and backward reads again."""

    words: np.ndarray
    source: Tensor  # the image in the kernels' precision and layout, or its coefficients
    points: Tensor  # the data so


def planned(rule: Rule, image: Tensor, data: Tensor, sampling: Sampling) -> Plan:
    return plan_of(rule, image, data, sampling, not image.is_contiguous() and is_channels_last(image))


def gradient(
    rule: Rule, grad: Tensor, image: Tensor, data: Tensor, fill: Fill, sampling: Sampling, need: Sequence[bool]
) -> tuple[Tensor | None, Tensor | None]:
    """Of a call of which nothing is left."""
    plan = planned(rule, image, data, sampling)
    return backward(plan, known(plan, rule, image, data, fill, need[1]), grad, fill, need)


def forward(plan: Plan, rule: Rule, image: Tensor, data: Tensor, fill: Fill) -> tuple[Tensor, Known]:
    out, slots = memory.empty_strided(plan.out_shape, plan.out_strides, plan.real), plan.slots
    found = known(plan, rule, image, data, fill, True)
    words, source = found.words, found.source
    words[slots.image], words[slots.out] = source.data_ptr(), out.data_ptr()
    if plan.cubic is not None:
        words[slots.careful] = not math.isfinite(source.sum())
    run(plan, "forward", words, fill_values(plan, fill) if isinstance(fill, Tensor) else None)
    return (out if plan.dtype is plan.real else out.to(plan.dtype)), found


def known(plan: Plan, rule: Rule, image: Tensor, data: Tensor, fill: Fill, reads: bool) -> Known:
    """What all kernels need. reads: the values of the image too."""
    words, points, slots = np.empty(plan.count, np.int64), laid_out_points(plan, data), plan.slots
    words[: plan.static] = plan.words
    words[slots.points] = points.data_ptr()
    if not plan.is_field:
        if plan.knots:
            knots = plain(rule.control_points).cpu().double().contiguous()  # type: ignore[attr-defined]  # a Spline's
            words[slots.knots] = knots.data_ptr()
        start(1, plan.stage("numbers"), words, 1)
    source = laid_out(plan, image)
    if plan.prefilter and reads:
        source = coefficients(source, plan.last, plan.padding, fill_values(plan, fill), plan.align_corners)
    return Known(words, source, points)


def run(plan: Plan, name: str, words: np.ndarray, values: Tensor | None) -> None:
    """Run a kernel over all chunks, in this thread's memory."""
    if plan.is_empty:
        return
    slots, block = plan.slots, memory.block(plan.chunks * plan.chunk_bytes)
    words[slots.fill], words[slots.memory] = plan.zeros_at if values is None else values.data_ptr(), block.address
    start(plan.threads, plan.kernel(name), words, plan.chunks)


# ---- tensors as kernels read them ----


def laid_out(plan: Plan, tensor: Tensor) -> Tensor:  # (N, C, *in)
    """In the working precision and the image's layout: at most one copy."""
    tensor = tensor.resolve_neg() if tensor.is_neg() else tensor
    tensor = tensor if tensor.dtype is plan.real else tensor.to(plan.real)
    return tensor.contiguous(memory_format=plan.format)


def laid_out_points(plan: Plan, data: Tensor) -> Tensor:
    data = data.resolve_neg() if data.is_neg() else data
    data = data if data.dtype is plan.number else data.to(plan.number)
    return (data.expand(plan.points_shape) if plan.is_expanded else data).contiguous()


def fill_values(plan: Plan, fill: Fill) -> Tensor | None:  # (C,)
    """None of zeros."""
    if not isinstance(fill, Tensor):
        return None
    return plain(fill).to(plan.real).expand(len(plan.zeros)).contiguous()


# ---- gradients ----


def backward(
    plan: Plan,
    found: Known,
    grad: Tensor,  # as the result
    fill: Fill,
    need: Sequence[bool],  # of the image, of the data
) -> tuple[Tensor | None, Tensor | None]:
    """Gradients in the image and in the data, each only if it is asked for."""
    need_image, need_data = need
    grad = laid_out(plan, grad.flatten(0, 1) if plan.has_looks else grad)
    words = np.empty(plan.most, np.int64)
    words[: plan.count] = found.words
    words[plan.slots.out] = grad.data_ptr()
    grad_image = image_gradient(plan, words) if need_image else None
    if not need_data:
        return grad_image, None
    if plan.nearest or plan.is_empty:
        return grad_image, torch.zeros(plan.data_shape, dtype=plan.data_dtype, device="cpu")
    return grad_image, coordinates_gradient(plan, words, found, fill)


def image_gradient(plan: Plan, words: np.ndarray) -> Tensor:
    if plan.is_empty:
        return torch.zeros(plan.image_shape, dtype=plan.dtype, device="cpu")
    out = memory.empty_strided(plan.source_shape, plan.source_strides, plan.real).zero_()
    words[plan.slots.image] = out.data_ptr()
    run(plan, "image", words, None)
    if plan.prefilter:
        out = filtered(out, plan.last, plan.padding, plan.align_corners, plan.image_shape[2:], True)
    return out if plan.dtype is plan.real else out.to(plan.dtype)


def coordinates_gradient(plan: Plan, words: np.ndarray, found: Known, fill: Fill) -> Tensor:
    """Gradient in the data: the kernels write that of a field, or each tile's sums for coefficients and bends."""
    slots, values = plan.slots, fill_values(plan, fill)
    out = memory.empty_strided(plan.points_shape, plan.points_strides, plan.number)
    words[slots.image] = found.source.data_ptr()
    if plan.is_field:
        words[slots.points], words[slots.sums] = found.points.data_ptr(), out.data_ptr()
        run(plan, "coordinates", words, values)
        out = out.sum(dim=0, keepdim=True) if plan.is_expanded else out
    else:
        words[slots.gradient] = out.data_ptr()
        run(plan, "coordinates", words, values)
        start(1, plan.stage("gradient"), words, 1)
    out = out.view(plan.data_shape) if plan.is_expanded else out
    return out if plan.data_dtype is plan.number else out.to(plan.data_dtype)
