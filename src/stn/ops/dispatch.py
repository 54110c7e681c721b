"""Who samples: the device's kernels, the operator in torch's registry, an export's target, or the oracle. Decided here."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor

from stn.ops import autograd, cpu, exporting, gpu, lowering, reference
from stn.ops.devices import Kernels, kernels_for, register_kernels
from stn.ops.interpolation import BLURRED
from stn.ops.observers import refuse_lost_tangents
from stn.ops.padding import PADDINGS
from stn.ops.rules import Rule
from stn.ops.sampling import Sampling

register_kernels("cpu", cast(Kernels, cpu))
register_kernels("cuda", cast(Kernels, gpu))


def sample(rule: Rule, image: Tensor, data: Tensor, fill: Tensor, sampling: Sampling) -> Tensor:
    """image (N, C, *in), data (N, K, ..) -> (N, K, C, *size), of one image. A gradient in `fill` is the oracle's."""
    refuse_lost_tangents()
    if not image.is_floating_point():
        return _as_real(rule, image, data, fill, sampling)
    if torch.compiler.is_exporting() and (target := exporting.current()) is not None:
        return lowering.sample(target, rule, image, data, fill, sampling)
    kernels = kernels_for(rule, image, data, sampling)
    if kernels is None or fill.requires_grad:
        return reference.sample(rule, image, data, fill, sampling)
    return autograd.sample(kernels, rule, image, data, fill, sampling)


def inside(rule: Rule, image: Tensor, data: Tensor, sampling: Sampling) -> Tensor:
    """The weights of the taps inside, summed: all looks at one image of ones with zeros around, and no prefilter."""
    dtype = torch.promote_types(image.real.dtype if image.is_complex() else image.dtype, torch.float32)
    ones = torch.ones((1, 1, *image.shape[2:]), dtype=dtype, device=image.device)
    interpolation = BLURRED if sampling.interpolation.prefilter else sampling.interpolation
    sampling = sampling._replace(interpolation=interpolation, padding=PADDINGS["zeros"])
    out = sample(rule, ones, data.flatten(0, 1).unsqueeze(0), ones.new_zeros(()), sampling)
    return out.squeeze(0).unflatten(0, data.shape[:2])


def _as_real(rule: Rule, image: Tensor, data: Tensor, fill: Tensor, sampling: Sampling) -> Tensor:
    """Bytes are rounded; the real and imaginary parts of a complex image are channels of one that is not."""
    if not image.is_complex():
        return as_bytes(sample(rule, image.float(), data, fill, sampling))
    channels = image.shape[1]
    fill = fill.to(image.dtype).expand(channels)
    parts = torch.cat([image.real, image.imag], dim=1)
    out = sample(rule, parts, data, torch.cat([fill.real, fill.imag]), sampling)
    return torch.complex(*(part.contiguous() for part in out.split(channels, dim=2)))


def as_bytes(values: Tensor) -> Tensor:
    return values.round().clamp(0, 255).to(torch.uint8)
