"""Kernels by device type. A device without kernels uses the oracle."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from torch import Tensor

from stn.ops.rules import Rule
from stn.ops.sampling import Sampling


class Kernels(Protocol):
    """What a device registers."""

    def supports(self, rule: Rule, image: Tensor, data: Tensor, sampling: Sampling) -> bool: ...

    def sample(self, rule: Rule, image: Tensor, data: Tensor, fill: Tensor, sampling: Sampling) -> Tensor: ...

    def gradient(
        self, rule: Rule, grad: Tensor, image: Tensor, data: Tensor, fill: Tensor, sampling: Sampling, need: Sequence[bool]
    ) -> tuple[Tensor | None, Tensor | None]: ...


_kernels: dict[str, Kernels] = {}  # device type -> kernels


def register_kernels(device_type: str, kernels: Kernels) -> None:
    """Let `kernels` (a module or an object) serve images on this kind of device."""
    _kernels[device_type] = kernels


def kernels_for(rule: Rule, image: Tensor, data: Tensor, sampling: Sampling) -> Kernels | None:
    """Those of the image's device, if they cover the call."""
    device = image.device.type
    known = sampling.interpolation.kernels if image.ndim == 4 else sampling.interpolation.volumes
    kernels = _kernels.get(device) if device in known and device in rule.kernels else None
    return kernels if kernels is not None and kernels.supports(rule, image, data, sampling) else None
