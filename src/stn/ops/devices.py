"""Kernels by device type. A device without kernels uses the oracle."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

Settings = tuple[Any, ...]  # of the oracle's function, but for image, where and fill:
# matrix (size, mode, padding_mode, align_corners), basis the same and control_points (T, 2),
# field (mode, padding_mode, align_corners, units, relative)


class Kernels(Protocol):
    """What a device registers."""

    def supports(self, rule: str, image: Tensor, where: Tensor, settings: Settings) -> bool: ...

    def sample(self, rule: str, image: Tensor, where: Tensor, fill: Tensor, settings: Settings) -> Tensor: ...

    def gradient(
        self, rule: str, grad: Tensor, image: Tensor, where: Tensor, fill: Tensor, settings: Settings, need: Sequence[bool]
    ) -> tuple[Tensor | None, Tensor | None]: ...

    def averages(self, image: Tensor) -> bool: ...

    def average(self, image: Tensor, fine: tuple[int, ...], how: Any, back: bool) -> Tensor: ...


_kernels: dict[str, Kernels] = {}  # device type -> kernels


def register_kernels(device_type: str, kernels: Kernels) -> None:
    """Let `kernels` (a module or an object) serve images on this kind of device."""
    _kernels[device_type] = kernels


def kernels_for(rule: str, image: Tensor, where: Tensor, settings: Settings) -> Kernels | None:
    """Those of the image's device, if they cover the request."""
    kernels = _kernels.get(image.device.type)
    return kernels if kernels is not None and kernels.supports(rule, image, where, settings) else None


def averaging_kernels(image: Tensor) -> Kernels | None:
    """Those of the image's device, if they average images of its dtype."""
    kernels = _kernels.get(image.device.type)
    return kernels if kernels is not None and kernels.averages(image) else None


def is_channels_last(image: Tensor) -> bool:
    """Whether the result keeps this format: the image is in it, and in no other."""
    form = torch.channels_last if image.ndim == 4 else torch.channels_last_3d
    return image.shape[1] > 1 and not image.is_contiguous() and image.is_contiguous(memory_format=form)


def plain(tensor: Tensor) -> Tensor:
    """Detach, and apply a pending negation: the memory of `x.conj().imag` holds the negative of its values."""
    return tensor.detach().resolve_neg()
