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
    """What forward found, and backward reads again. The words hold addresses in the tensors."""

    plan: Plan
    words: np.ndarray
    source: Tensor  # the image in the kernels' precision and layout, or its coefficients
    given: Tensor  # the data so


def planned(rule: Rule, image: Tensor, data: Tensor, sampling: Sampling) -> Plan:
    return plan_of(rule, image, data, sampling, not image.is_contiguous() and is_channels_last(image))


def sample(rule: Rule, image: Tensor, data: Tensor, fill: Fill, sampling: Sampling) -> Tensor:
    return forward(planned(rule, image, data, sampling), rule, image, data, fill)[0]


def gradient(
    rule: Rule, grad: Tensor, image: Tensor, data: Tensor, fill: Fill, sampling: Sampling, need: Sequence[bool]
) -> tuple[Tensor | None, Tensor | None]:
    """Of a call of which nothing is left."""
    plan = planned(rule, image, data, sampling)
    if plan.is_empty:
        return nothing(plan, need)
    return backward(known(plan, rule, image, data, fill, need[1]), rule, grad, fill, need)


def forward(plan: Plan, rule: Rule, image: Tensor, data: Tensor, fill: Fill) -> tuple[Tensor, Known | None]:
    out = memory.empty_strided(plan.out_shape, plan.out_strides, plan.real)
    if plan.is_empty:
        return out.to(plan.dtype), None
    found, slots = known(plan, rule, image, data, fill, True), plan.slots
    words = found.words
    words[slots.image], words[slots.out] = found.source.data_ptr(), out.data_ptr()
    if plan.cubic is not None:
        words[slots.careful] = not math.isfinite(found.source.sum())
    values = fill_values(plan, fill)
    run(plan, "forward", words, values)
    return (out if plan.dtype is plan.real else out.to(plan.dtype)), found


def known(plan: Plan, rule: Rule, image: Tensor, data: Tensor, fill: Fill, reads: bool) -> Known:
    """What all kernels need. reads: the values of the image too."""
    words, given, slots = np.empty(plan.count, np.int64), plan_data(plan, data), plan.slots
    words[: plan.static] = plan.words
    words[slots.points] = given.data_ptr()
    if not plan.is_field:
        knots = None
        if plan.knots:
            knots = plain(rule.control_points).cpu().double().contiguous()  # type: ignore[attr-defined]  # a Spline's
            words[slots.knots] = knots.data_ptr()
        start(1, plan.stage("numbers"), words, 1)
    source = laid_out(plan, image)
    if plan.prefilter and reads:
        source = coefficients(source, plan.last, plan.padding, fill_values(plan, fill), plan.align_corners)
    return Known(plan, words, source, given)


def run(plan: Plan, name: str, words: np.ndarray, values: Tensor | None) -> None:
    """Run a kernel over all chunks, in this thread's memory."""
    slots, block = plan.slots, memory.block(plan.chunks * plan.chunk_bytes)
    words[slots.fill], words[slots.memory] = plan.zeros_at if values is None else values.data_ptr(), block.address
    start(plan.threads, plan.kernel(name), words, plan.chunks)


# ---- tensors as kernels read them ----


def laid_out(plan: Plan, tensor: Tensor) -> Tensor:  # (N, C, *in)
    """In the working precision and the image's layout: at most one copy."""
    tensor = tensor.resolve_neg() if tensor.is_neg() else tensor
    tensor = tensor if tensor.dtype is plan.real else tensor.to(plan.real)
    return tensor.contiguous(memory_format=plan.format)


def plan_data(plan: Plan, data: Tensor) -> Tensor:
    data = data.resolve_neg() if data.is_neg() else data
    data = data if data.dtype is plan.number else data.to(plan.number)
    if plan.is_field and plan.given_looks != plan.looks:  # one for all images
        data = data.expand(plan.batch, *data.shape[1:])
    return data.contiguous()


def fill_values(plan: Plan, fill: Fill) -> Tensor | None:  # (C,)
    """None of zeros."""
    if not isinstance(fill, Tensor):
        return None
    return plain(fill).to(plan.real).expand(len(plan.zeros)).contiguous()


# ---- gradients ----


def backward(
    found: Known,
    rule: Rule,
    grad: Tensor,  # as the result
    fill: Fill,
    need: Sequence[bool],  # of the image, of the data
) -> tuple[Tensor | None, Tensor | None]:
    """Gradients in the image and in the data, each only if it is asked for."""
    plan, (need_image, need_data) = found.plan, need
    grad = laid_out(plan, grad.flatten(0, 1) if plan.has_looks else grad)
    words = np.empty(plan.most, np.int64)
    words[: plan.count] = found.words
    words[plan.slots.out] = grad.data_ptr()
    grad_image = image_gradient(plan, words) if need_image else None
    if not need_data:
        return grad_image, None
    if plan.nearest:
        return grad_image, torch.zeros(plan.data_shape, dtype=plan.data_dtype, device="cpu")
    return grad_image, coordinates_gradient(found, rule, words, fill)


def nothing(plan: Plan, need: Sequence[bool]) -> tuple[Tensor | None, Tensor | None]:
    """The gradients of an empty result."""
    need_image, need_data = need
    image = torch.zeros(plan.image_shape, dtype=plan.dtype, device="cpu") if need_image else None
    return image, torch.zeros(plan.data_shape, dtype=plan.data_dtype, device="cpu") if need_data else None


def image_gradient(plan: Plan, words: np.ndarray) -> Tensor:
    out = memory.empty_strided(plan.source_shape, plan.source_strides, plan.real).zero_()
    words[plan.slots.image] = out.data_ptr()
    run(plan, "image", words, None)
    if plan.prefilter:
        out = filtered(out, plan.last, plan.padding, plan.align_corners, plan.image_shape[2:], True)
    return out if plan.dtype is plan.real else out.to(plan.dtype)


def coordinates_gradient(found: Known, rule: Rule, words: np.ndarray, fill: Fill) -> Tensor:
    """Gradient in the data: the kernels write that of a field, or each tile's sums for coefficients and bends."""
    plan, slots = found.plan, found.plan.slots
    shape = tuple(found.given.shape)
    out = memory.empty_strided(shape, memory.strides(shape, range(len(shape))), plan.number)
    words[slots.image] = found.source.data_ptr()
    if plan.is_field:
        words[slots.sums] = out.data_ptr()
        run(plan, "coordinates", words, fill_values(plan, fill))
        if shape != plan.data_shape and math.prod(shape) != math.prod(plan.data_shape):
            out = out.sum(dim=0, keepdim=True)
        return out.view(plan.data_shape).to(plan.data_dtype)
    words[slots.gradient] = out.data_ptr()
    run(plan, "coordinates", words, fill_values(plan, fill))
    start(1, plan.stage("gradient"), words, 1)
    return out if plan.data_dtype is plan.number else out.to(plan.data_dtype)
