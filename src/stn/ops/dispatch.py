"""Choose the code for a call: kernels of a device, the operator in the registry of torch, an export target, or the
reference.

- An image of bytes or complex numbers is converted to real floating-point channels first.
- An export for another runtime uses the operators of `lowering.py`.
- The reference (`reference.py`) samples if there is no kernel for the rule, the interpolation or the dtype.
- A recorded call (`context.observed`) becomes one operator of `library.py`.
- Any other call goes directly to the kernels, as the autograd node `Sample` if it may need a gradient.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, cast

import torch
from torch import Tensor

from stn.ops import cpu, gpu, lowering, reference
from stn.ops.context import differentiated, export_target, observed, refuse_lost_tangents
from stn.ops.interpolation import BLURRED
from stn.ops.padding import PADDINGS
from stn.ops.rules import Rule
from stn.ops.sampling import Sampling


class Kernels(Protocol):
    """The functions that a device registers: a module or an object."""

    def supports(self, rule: Rule, image: Tensor, data: Tensor, sampling: Sampling) -> bool: ...

    def sample(self, rule: Rule, image: Tensor, data: Tensor, fill: Tensor, sampling: Sampling) -> Tensor: ...

    def gradient(
        self, rule: Rule, grad: Tensor, image: Tensor, data: Tensor, fill: Tensor, sampling: Sampling, need: Sequence[bool]
    ) -> tuple[Tensor | None, Tensor | None]: ...


KERNELS: dict[str, Kernels] = {"cpu": cast(Kernels, cpu), "cuda": cast(Kernels, gpu)}  # by device type


def kernels_for(rule: Rule, image: Tensor, data: Tensor, sampling: Sampling) -> Kernels | None:
    """Return the kernels of the device of the image, if they support the call."""
    device = image.device.type
    known = sampling.interpolation.kernels if image.ndim == 4 else sampling.interpolation.volumes
    kernels = KERNELS.get(device) if device in known and device in rule.kernels else None
    return kernels if kernels is not None and kernels.supports(rule, image, data, sampling) else None


def sample(rule: Rule, image: Tensor, data: Tensor, fill: Tensor, sampling: Sampling) -> Tensor:
    """Sample: image (N, C, *in), data (N, K, ..) -> (N, K, C, *size). The reference computes a gradient in `fill`."""
    refuse_lost_tangents()
    if not image.is_floating_point():
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


class Sample(torch.autograd.Function):
    """A plain eager call, with first derivatives."""

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


# ---- the operators that `library.py` registers ----


def call(rule: Rule, image: Tensor, data: Tensor, fill: Tensor, sampling: Sampling) -> Tensor:
    """Run torch.ops.stn.<rule>_sample: image (N, C, *in), data (N, K, ..) -> (N, K, C, *size)."""
    out: Tensor = getattr(torch.ops.stn, f"{rule.name}_sample")(image, data, fill, *rule.arguments, *sampling.names)
    return out


def call_gradient(
    rule: Rule, grad: Tensor, image: Tensor, data: Tensor, fill: Tensor, need: Sequence[bool], sampling: Sampling
) -> tuple[Tensor | None, ...]:
    """Run torch.ops.stn.<rule>_sample_backward: return the needed gradients in image and data."""
    operator = getattr(torch.ops.stn, f"{rule.name}_sample_backward")
    found = operator(grad, image, data, fill, list(need), *rule.arguments, *sampling.names)
    return tuple(g if needed else None for g, needed in zip(found, need, strict=True))


# ---- other kinds of numbers ----


def _as_real(rule: Rule, image: Tensor, data: Tensor, fill: Tensor, sampling: Sampling) -> Tensor:
    """Sample bytes, with rounding, or complex numbers, whose real and imaginary parts become channels."""
    if not image.is_complex():
        return as_bytes(sample(rule, image.float(), data, fill, sampling))
    channels = image.shape[1]
    fill = fill.to(image.dtype).expand(channels)
    parts = torch.cat([image.real, image.imag], dim=1)
    out = sample(rule, parts, data, torch.cat([fill.real, fill.imag]), sampling)
    return torch.complex(*(part.contiguous() for part in out.split(channels, dim=2)))


def as_bytes(values: Tensor) -> Tensor:
    return values.round().clamp(0, 255).to(torch.uint8)
