"""Calls: from tensors to the words that kernels read, and back."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from stn.ops.cpu import memory
from stn.ops.cpu.plan import Plan, plan_of
from stn.ops.cpu.prefilter import coefficients, filtered
from stn.ops.cpu.threads import drive, serial
from stn.ops.cpu.threads import run as run_parallel
from stn.ops.integers import as_integers
from stn.ops.layout import plain
from stn.ops.rules import Rule
from stn.ops.sampling import Sampling

CPU = torch.device("cpu")
Fill = Tensor | float  # (), (C,), or 0.0


Known = tuple[np.ndarray, Tensor, Tensor, Tensor | None]
"""What forward finds, and backward reads again: the words, the image in the kernels' precision and layout (or its
coefficients), and the data so; then the control points, which are read before the first kernel. It is held until then, for
the words have addresses alone. (A named tuple takes 0.3 us to make.)"""


def sample(rule: Rule, image: Tensor, data: Tensor, fill: Fill, sampling: Sampling) -> Tensor:
    return forward(plan_of(rule, image, data, sampling), rule, image, data, fill)[0]


def gradient(
    rule: Rule, grad: Tensor, image: Tensor, data: Tensor, fill: Fill, sampling: Sampling, need: Sequence[bool]
) -> tuple[Tensor | None, Tensor | None]:
    """Return the gradients of a call whose intermediate results were not kept."""
    plan = plan_of(rule, image, data, sampling)
    return backward(plan, known(plan, rule, image, data, fill, need[1]), grad, fill, need, plan.before)


def forward(plan: Plan, rule: Rule, image: Tensor, data: Tensor, fill: Fill) -> tuple[Tensor, Known]:
    empty = torch.empty_strided if plan.is_small else memory.empty_strided
    out, slots = empty(plan.out_shape, plan.out_strides, dtype=plan.stored, device=CPU), plan.slots
    words, source, *_ = found = known(plan, rule, image, data, fill, True)
    words[slots.image], words[slots.out] = source.data_ptr(), out.data_ptr()
    run(plan, "forward", words, fill, plan.before)
    return (out if plan.dtype is plan.stored else out.to(plan.dtype)), found


def known(plan: Plan, rule: Rule, image: Tensor, data: Tensor, fill: Fill, reads: bool) -> Known:
    """Prepare the inputs of all kernels, except the numbers of the rule. reads: kernels read the values of the image."""
    words, slots = np.empty(plan.count, np.int64), plan.slots
    words[: plan.static] = plan.words
    points, source, knots = data, image, None
    if not plan.reads_data or data.is_neg() or not data.is_contiguous():
        points = laid_out_points(plan, data)
    if not plan.reads_planes or image.is_neg() or not image.is_contiguous():
        source = laid_out(plan, image)
    words[slots.points] = points.data_ptr()
    if plan.knots:
        knots = plain(rule.control_points).cpu().double().contiguous()  # type: ignore[attr-defined]  # only a Spline has knots
        words[slots.knots] = knots.data_ptr()
    if plan.prefilter and reads:
        source = coefficients(source, plan.last, plan.padding, fill_values(plan, fill), plan.align_corners)
    return words, source, points, knots


def run(plan: Plan, name: str, words: np.ndarray, fill: Fill, before: int = 0, after: int = 0) -> None:
    """Run a kernel over all chunks, in this thread's memory, and what the rule does before and after it."""
    if plan.is_empty:
        return
    slots, block, values = plan.slots, memory.own.block, None
    if block.nbytes < plan.memory:
        block = memory.block(plan.memory)
    if isinstance(fill, Tensor):
        values = fill_values(plan, fill)
    words[slots.fill] = plan.zeros_at if values is None else values.data_ptr()
    words[slots.memory] = block.address
    if values is None and name in plan.framed:  # a frame of other numbers than zeros would round them
        name = f"framed {name}"
    kernel, words[slots.taps] = plan.addresses.get(name) or plan.compile(name)
    if plan.threads == 1:
        serial(before, kernel, after, words, plan.chunks)
    else:
        run_parallel(plan.threads, drive, before, kernel, after, words, plan.chunks)


# ---- tensors as kernels read them ----


def laid_out(plan: Plan, tensor: Tensor) -> Tensor:  # (N, C, *in)
    """Convert to the working precision (integers stay) and the layout of the image, with at most one copy."""
    tensor = tensor.resolve_neg() if tensor.is_neg() else tensor
    tensor = tensor if tensor.dtype is plan.stored else tensor.to(plan.stored)
    return tensor.contiguous(memory_format=plan.format)


def laid_out_points(plan: Plan, data: Tensor) -> Tensor:
    data = data.resolve_neg() if data.is_neg() else data
    data = data if data.dtype is plan.number else data.to(plan.number)
    return (data.expand(plan.points_shape) if plan.is_expanded else data).contiguous()


def fill_values(plan: Plan, fill: Fill) -> Tensor | None:  # (C,)
    """Return one fill value per channel, or None for zeros."""
    if not isinstance(fill, Tensor):
        return None
    fill = plain(fill)
    if plan.has_labels:
        fill = as_integers(fill, plan.dtype)
    return fill.to(plan.stored if plan.has_labels else plan.real).expand(len(plan.zeros)).contiguous()


# ---- gradients ----


def backward(
    plan: Plan,
    found: Known,
    grad: Tensor,  # as the result
    fill: Fill,
    need: Sequence[bool],  # of the image, of the data
    before: int = 0,  # what the rule does before the first kernel, if it has not yet
) -> tuple[Tensor | None, Tensor | None]:
    """Gradients in the image and in the data, each only if it is asked for."""
    (need_image, need_data), (kept, source, points, _) = need, found
    if plan.has_looks:
        grad = grad.flatten(0, 1)
    if not plan.reads_planes or grad.is_neg() or not grad.is_contiguous():
        grad = laid_out(plan, grad)
    words = np.empty(plan.most, np.int64)
    words[: plan.count] = kept
    # Hooks may bring the saved tensors back to another place: activation checkpointing computes them anew.
    words[plan.slots.points], words[plan.slots.out] = points.data_ptr(), grad.data_ptr()
    grad_image = image_gradient(plan, words, before) if need_image else None
    if not need_data:
        return grad_image, None
    if plan.nearest or plan.is_empty:
        return grad_image, torch.zeros(plan.data_shape, dtype=plan.data_dtype, device=CPU)
    return grad_image, coordinates_gradient(plan, words, source, fill, before)


def image_gradient(plan: Plan, words: np.ndarray, before: int) -> Tensor:
    if plan.is_empty:
        return torch.zeros(plan.image_shape, dtype=plan.dtype, device=CPU)
    out = memory.empty_strided(plan.source_shape, plan.source_strides, plan.real).zero_()
    words[plan.slots.image] = out.data_ptr()
    run(plan, "image", words, 0.0, before)
    if plan.prefilter:
        out = filtered(out, plan.last, plan.padding, plan.align_corners, plan.image_shape[2:], True)
    return out if plan.dtype is plan.real else out.to(plan.dtype)


def coordinates_gradient(plan: Plan, words: np.ndarray, source: Tensor, fill: Fill, before: int) -> Tensor:
    """Gradient in the data: the kernels write that of a field, or each tile's sums for coefficients and bends."""
    empty, slots = memory.empty_strided if plan.is_field else torch.empty_strided, plan.slots
    out = empty(plan.points_shape, plan.points_strides, dtype=plan.number, device=CPU)
    words[slots.image], words[slots.reduction] = source.data_ptr(), plan.reduction
    words[slots.sums if plan.is_field else slots.gradient] = out.data_ptr()
    run(plan, "coordinates", words, fill, before, plan.after)
    if plan.is_expanded:
        out = out.sum(dim=0, keepdim=True).view(plan.data_shape)
    return out if plan.data_dtype is plan.number else out.to(plan.data_dtype)
