"""One call of an operator, from canonical shapes: to the device's kernels where they cover it, else to the oracle."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor

from stn.ops import cpu, exporting, gpu, lowering
from stn.ops.autograd import sample
from stn.ops.derivatives import ORACLE
from stn.ops.devices import Kernels, Settings, kernels_for, register_kernels
from stn.ops.kernels import BLURRED
from stn.ops.observers import refuse_lost_tangents

register_kernels("cpu", cast(Kernels, cpu))
register_kernels("cuda", cast(Kernels, gpu))


def look(rule: str, image: Tensor, where: Tensor, fill: Tensor, settings: Settings) -> Tensor:
    """image (N, C, *in), where (N, K, ..) -> (N, K, C, *size). A gradient in `fill` is the oracle's."""
    refuse_lost_tangents()
    if image.is_complex():
        return _look_at_parts(rule, image, where, fill, settings)
    if image.dtype == torch.uint8:
        return as_bytes(look(rule, image.float(), where, fill, settings))
    if (target := exporting.current()) is not None:
        return lowering.look(target, rule, image, where, fill, settings)
    kernels = kernels_for(rule, image, where, settings)
    if kernels is None or fill.requires_grad:
        return ORACLE[rule](image, where, fill, settings)
    return sample(kernels, rule, image, where, fill, settings)


def as_bytes(values: Tensor) -> Tensor:
    return values.round().clamp(0, 255).to(torch.uint8)


def _look_at_parts(rule: str, image: Tensor, where: Tensor, fill: Tensor, settings: Settings) -> Tensor:
    """A complex image: its real and imaginary parts are channels of one that is not."""
    channels = image.shape[1]
    fill = fill.to(image.dtype).expand(channels)
    parts = torch.cat([image.real, image.imag], dim=1)
    out = look(rule, parts, where, torch.cat([fill.real, fill.imag]), settings)
    return torch.complex(*(part.contiguous() for part in out.split(channels, dim=2)))


def inside(rule: str, image: Tensor, where: Tensor, settings: Settings) -> Tensor:
    """The weights of the taps inside, summed: all looks at one image of ones with zeros around, and no prefilter."""
    dtype = torch.promote_types(image.real.dtype if image.is_complex() else image.dtype, torch.float32)
    ones = torch.ones((1, 1, *image.shape[2:]), dtype=dtype, device=image.device)
    at = 0 if rule == "field" else 1  # of the mode among the settings, before the padding
    mode = BLURRED if settings[at] == "bspline" else settings[at]
    settings = *settings[:at], mode, "zeros", *settings[at + 2 :]
    out = look(rule, ones, where.flatten(0, 1).unsqueeze(0), ones.new_zeros(()), settings)
    return out.squeeze(0).unflatten(0, where.shape[:2])
