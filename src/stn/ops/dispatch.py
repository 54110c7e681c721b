"""Choose the code for a call: kernels of a device, the operator in the registry of torch, an export target, or the
reference.

- Label maps, integers that are sampled by nearest neighbor, stay as they are, and so do bytes on the CPU. Other bytes and
  complex numbers are converted to real floating-point channels first.
- An export for another runtime uses the operators of `lowering.py`.
- The reference (`reference.py`) samples if there is no kernel for the rule, the interpolation or the dtype, and in
  `context.without_kernels`.
- A recorded call (`context.observed`) becomes one operator of `library.py`.
- Any other call goes directly to the kernels, as the autograd node `Sample` if it may need a gradient.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, cast

import torch
from torch import Tensor

from stn import _check
from stn.ops import cpu, gpu, lowering, reference
from stn.ops.context import PLAINLY, differentiated, export_target, observed, recorded, refuse_lost_tangents
from stn.ops.derivatives import oracle_gradient
from stn.ops.integers import as_integers, has_labels
from stn.ops.interpolation import BLURRED
from stn.ops.padding import PADDINGS
from stn.ops.rules import Rule
from stn.ops.sampling import Sampling
from stn.ops.tables import readable


class Kernels(Protocol):
    """The functions that a device registers: a module or an object."""

    def supports(self, rule: Rule, image: Tensor, data: Tensor, sampling: Sampling) -> bool: ...

    def sample(self, rule: Rule, image: Tensor, data: Tensor, fill: Tensor, sampling: Sampling) -> Tensor: ...

    def gradient(
        self, rule: Rule, grad: Tensor, image: Tensor, data: Tensor, fill: Tensor, sampling: Sampling, need: Sequence[bool]
    ) -> tuple[Tensor | None, Tensor | None]: ...


KERNELS: dict[str, Kernels] = {"cpu": cast(Kernels, cpu), "cuda": cast(Kernels, gpu)}  # by device type


def kernels_for(rule: Rule, image: Tensor, data: Tensor, sampling: Sampling) -> Kernels | None:
    """Return the kernels of the device of the image, if they support the call: no signal, which is lifted before."""
    if image.ndim == 3 or (not torch.compiler.is_compiling() and PLAINLY.get()):
        return None
    device = image.device.type
    known = sampling.interpolation.kernels if image.ndim == 4 else sampling.interpolation.volumes
    kernels = KERNELS.get(device) if device in known and device in rule.kernels else None
    return kernels if kernels is not None and kernels.supports(rule, image, data, sampling) else None


def sample(rule: Rule, image: Tensor, data: Tensor, fill: Tensor, sampling: Sampling) -> Tensor:
    """Sample: image (N, C, *in), data (N, K, ..) -> (N, K, C, *size). The reference computes a gradient in `fill`."""
    if image.ndim == 3:
        return _signal(rule, image, data, fill, sampling)
    if not torch.compiler.is_compiling() and (found := eager(rule, image, data, fill, sampling)) is not None:
        return found
    refuse_lost_tangents()
    if not image.is_floating_point() and not _keeps_integers(image, sampling):
        return _as_real(rule, image, data, fill, sampling)
    if (target := export_target()) is not None:
        return lowering.sample(target, rule, image, data, fill, sampling)
    kernels = kernels_for(rule, image, data, sampling)
    if kernels is None or fill.requires_grad:
        return reference.sample(rule, image, data, fill, sampling)
    if observed(image, data, fill):
        return call(rule, image, data, fill, sampling)
    if not differentiated(image, data):
        return kernels.sample(rule, image, data, fill, sampling)
    out: Tensor = Sample.apply(image, data, fill, kernels, rule, sampling)
    return out


def eager(rule: Rule, image: Tensor, data: Tensor, fill: Tensor | float, sampling: Sampling) -> Tensor | None:
    """Run a plain call of kernels; return None for any other call. Not for code that torch.compile traces.

    data: of one look for all images, or with N or (N, K) before it. fill: (), (C,), or 0.0, for which no tensor is made.
    """
    if image.ndim == 3 or PLAINLY.get() or recorded(image, data):
        return None
    if not (image.is_cpu and data.is_cpu):
        return _on_device(rule, image, data, fill, sampling)
    known = sampling.interpolation.kernels if image.ndim == 4 else sampling.interpolation.volumes
    if "cpu" not in KERNELS or "cpu" not in known or "cpu" not in rule.kernels:
        return None
    if (image.dtype not in cpu.DTYPES and not cpu.keeps(image, sampling)) or image.numel() >= cpu.MOST_PIXELS:
        return None
    if sampling.interpolation.support is not None and not readable(sampling.interpolation, image.dtype):
        return None
    if isinstance(fill, Tensor) and (fill.requires_grad or recorded(fill)):
        return None
    if torch.is_grad_enabled() and (image.requires_grad or data.requires_grad) and image.is_floating_point():
        out: Tensor = Planned.apply(image, data, fill, rule, sampling)
        return out
    run = cpu.loaded()
    out = run.forward(run.plan_of(rule, image, data, sampling), rule, image, data, fill)[0]
    return out


def _on_device(rule: Rule, image: Tensor, data: Tensor, fill: Tensor | float, sampling: Sampling) -> Tensor | None:
    """Run a plain call of the kernels of another device, as `eager` does."""
    if image.device != data.device or image.device.type not in KERNELS or export_target() is not None:
        return None
    each = rule.canonical(image, data)
    kernels = kernels_for(rule, image, each, sampling)
    if kernels is None or (isinstance(fill, Tensor) and (fill.requires_grad or recorded(fill))):
        return None
    refuse_lost_tangents()
    fill = fill if isinstance(fill, Tensor) else _zero(torch.promote_types(image.dtype, torch.float32), image.device)
    if differentiated(image, data):
        out: Tensor = Sample.apply(image, each, fill, kernels, rule, sampling)
    else:
        out = kernels.sample(rule, image, each, fill, sampling)
    return out if data.ndim == rule.dimensions(image) + 2 else out.squeeze(1)


_zeros: dict[tuple[torch.dtype, torch.device], Tensor] = {}


def _zero(dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return a zero, made once per device, because making one is a launch. One that a CUDA graph makes is the graph's."""
    found = _zeros.get((dtype, device))
    if found is None:
        with torch.inference_mode(False):  # a tensor of inference mode could not be kept for backward
            found = torch.zeros((), dtype=dtype, device=device)
        if device.type != "cuda" or not torch.cuda.is_current_stream_capturing():
            _zeros[dtype, device] = found
    return found


def _signal(rule: Rule, image: Tensor, data: Tensor, fill: Tensor, sampling: Sampling) -> Tensor:
    """Sample signals (N, C, L) as images of one row: kernels, operators and exports know images and volumes."""
    rule, data = rule.lifted(data)
    return sample(rule, image.unsqueeze(2), data, fill, sampling).squeeze(3)


def inside(rule: Rule, image: Tensor, data: Tensor, sampling: Sampling) -> Tensor:
    """Return the sum of the weights of the taps inside the image, without a prefilter: (N, K, 1, *size).

    It is sampled from one image of ones with zeros around it.
    """
    dtype = torch.promote_types(image.real.dtype if image.is_complex() else image.dtype, torch.float32)
    ones = torch.ones((1, 1, *image.shape[2:]), dtype=dtype, device=image.device)
    interpolation = BLURRED if sampling.interpolation.prefilter else sampling.interpolation
    sampling = sampling._replace(interpolation=interpolation, padding=PADDINGS["zeros"])
    out = sample(rule, ones, data.flatten(0, 1).unsqueeze(0), ones.new_zeros(()), sampling)
    return out.squeeze(0).unflatten(0, data.shape[:2])


class Planned(torch.autograd.Function):
    """A plain eager call of the CPU kernels, with first derivatives. Backward reuses the results of forward."""

    @staticmethod
    def forward(ctx: Any, image: Tensor, data: Tensor, fill: Tensor | float, rule: Rule, sampling: Sampling) -> Tensor:
        run = cpu.loaded()
        plan = run.plan_of(rule, image, data, sampling)
        out, (words, source, points, _) = run.forward(plan, rule, image, data, fill)
        # Copies are kept as torch keeps tensors, so that hooks see them, and nothing is kept twice.
        copies = None if source is image else source, None if points is data else points
        ctx.save_for_backward(image, data, fill if isinstance(fill, Tensor) else None, *copies)
        ctx.how = plan, words, rule, sampling
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        image, data, fill, source, points = ctx.saved_tensors  # only once: activation checkpointing returns them only once
        (plan, words, rule, sampling), fill, need = ctx.how, 0.0 if fill is None else fill, ctx.needs_input_grad[:2]
        if torch.is_grad_enabled() or recorded(grad, image, data):
            found = _general_gradient(rule, grad, image, data, fill, need, sampling)
        else:
            known = words, image if source is None else source, data if points is None else points, None
            found = cpu.loaded().backward(plan, known, grad, fill, need)
        return *found, None, None, None


class Sample(torch.autograd.Function):
    """A plain eager call of the kernels of another device, with first derivatives."""

    @staticmethod
    def forward(
        ctx: Any, image: Tensor, data: Tensor, fill: Tensor, kernels: Kernels, rule: Rule, sampling: Sampling
    ) -> Tensor:
        ctx.save_for_backward(image, data, fill)
        ctx.how = kernels, rule, sampling
        return kernels.sample(rule, image, data, fill, sampling)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        image, data, fill = ctx.saved_tensors  # read only once: activation checkpointing returns them only once
        kernels, rule, sampling = ctx.how
        need = tuple(ctx.needs_input_grad[:2])
        found: tuple[Tensor | None, ...]
        if observed(grad, image, data) or differentiated(grad, image, data):
            found = call_gradient(rule, grad, image, data, fill, need, sampling)
        else:
            found = kernels.gradient(rule, grad, image, data, fill, sampling, need)
        return *found, None, None, None, None


def _general_gradient(
    rule: Rule, grad: Tensor, image: Tensor, data: Tensor, fill: Tensor | float, need: Sequence[bool], sampling: Sampling
) -> tuple[Tensor | None, ...]:
    """Compute the gradient of a call of `eager` by the registered operator, which is differentiable and can be recorded."""
    each = rule.canonical(image, data)
    grad = grad if data.ndim == rule.dimensions(image) + 2 else grad.unsqueeze(1)
    in_image, in_data = call_gradient(rule, grad, image, each, as_tensor(fill, image), need, sampling)
    if in_data is not None:
        in_data = in_data.sum_to_size((1, *each.shape[1:])) if data.numel() != each.numel() else in_data
        in_data = in_data.reshape(data.shape)
    return in_image, in_data


def as_tensor(fill: Tensor | float, image: Tensor) -> Tensor:
    return fill if isinstance(fill, Tensor) else _check.fill_value(fill, image, "zeros")


# ---- the operators that `library.py` registers ----


def call(rule: Rule, image: Tensor, data: Tensor, fill: Tensor, sampling: Sampling) -> Tensor:
    """Run torch.ops.stn.<rule>_sample: image (N, C, *in), data (N, K, ..) -> (N, K, C, *size)."""
    out: Tensor = getattr(torch.ops.stn, f"{rule.name}_sample")(image, data, fill, *rule.arguments, *sampling.names)
    return out


def call_gradient(
    rule: Rule, grad: Tensor, image: Tensor, data: Tensor, fill: Tensor, need: Sequence[bool], sampling: Sampling
) -> tuple[Tensor | None, ...]:
    """Run torch.ops.stn.<rule>_sample_backward: return the needed gradients in image and data."""
    if sampling.interpolation.probe is not None:  # a user's kernel, which the registry cannot name
        given = iter(oracle_gradient(rule, fill, need, sampling)(grad, image, data))
        return tuple(next(given) if needed else None for needed in need)
    operator = getattr(torch.ops.stn, f"{rule.name}_sample_backward")
    found = operator(grad, image, data, fill, list(need), *rule.arguments, *sampling.names)
    return tuple(g if needed else None for g, needed in zip(found, need, strict=True))


# ---- other kinds of numbers ----


def _keeps_integers(image: Tensor, sampling: Sampling) -> bool:
    """Return True for label maps. Bytes go through floating-point kernels on other devices, and in exports."""
    return has_labels(image, sampling) and (image.dtype != torch.uint8 or (image.is_cpu and export_target() is None))


def _as_real(rule: Rule, image: Tensor, data: Tensor, fill: Tensor, sampling: Sampling) -> Tensor:
    """Sample bytes, with rounding, or complex numbers, whose real and imaginary parts become channels."""
    if not image.is_complex():
        return as_integers(sample(rule, image.float(), data, fill, sampling), torch.uint8, fill)
    channels = image.shape[1]
    fill = fill.to(image.dtype).expand(channels)
    parts = torch.cat([image.real, image.imag], dim=1)
    out = sample(rule, parts, data, torch.cat([fill.real, fill.imag]), sampling)
    return torch.complex(*(part.contiguous() for part in out.split(channels, dim=2)))
