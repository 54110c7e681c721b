"""Image pyramid: an image at full, half, quarter resolution and so on, for anti-aliasing and wide gradients.

Each level spans the same [-1, 1] as the image, so the same theta applies to all levels. Each level averages the finer one
under a triangle whose half width is the distance between coarse pixels, divided by the sum of its weights inside the image;
with wrap padding the average continues at the opposite border. Between even sizes the weights are (1, 3, 3, 1) / 8 along
each axis, as in `interpolate(antialias=True)` of torch.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from stn import _check
from stn.ops import legacy_vmap
from stn.ops.averaging import Averaging, average, averaging, halved
from stn.ops.context import PLAINLY, differentiated, observed
from stn.ops.padding import PADDINGS


class Pyramid:
    """An image at full, half, quarter resolution and so on. Several sampling calls on one image share it: `pyramid=`.

    `pyramid[k]` is level k of `len(pyramid)`, computed when it is first read. The levels of bytes and half precision
    are float32. Levels are computed again if the image has changed in place, or now needs a gradient that they lack.
    Torch does not count the changes of a tensor made in inference mode: make a new pyramid for it.

    Args:
        image: (N, C, H, W) or (N, C, D, H, W), which is level 0.
        align_corners: As in the sampling calls.
        padding_mode: As in the sampling calls: zeros, border, reflection or wrap.

    Raises:
        InputError: An argument has a wrong shape or value, which the message names. TypeError: a wrong type.

    Source: Williams 1983.

    Example:
        >>> image = torch.rand(1, 3, 64, 48)
        >>> pyramid = stn.Pyramid(image)
        >>> pyramid[2].shape
        torch.Size([1, 3, 16, 12])
        >>> stn.affine_sample(image, torch.eye(2, 3), size=(20, 15), antialias=True, pyramid=pyramid).shape
        torch.Size([1, 3, 20, 15])
    """

    def __init__(self, image: Tensor, *, align_corners: bool = False, padding_mode: str = "zeros") -> None:
        _check.image("image", image)
        _check.averaged("image", image)
        _check.choice("padding_mode", padding_mode, PADDINGS)
        self.image, self.align_corners, self.how = image, align_corners, averaging(align_corners, padding_mode)
        size = _check.lengths("image", image.shape[2:])
        self.sizes = [size]
        while (size := tuple(halved(n, self.how.aligned) for n in size)) != self.sizes[-1]:
            self.sizes.append(size)
        self._levels: list[Tensor] = []
        self._version: int | None = None

    def __len__(self) -> int:
        return len(self.sizes)

    def __getitem__(self, level: int) -> Tensor:
        if not self._levels or self._is_stale():
            self._levels = [self.image.float() if self.image.dtype == torch.uint8 else self.image]
            self._version = _version(self.image)
        while len(self._levels) <= level:
            self._levels.append(shrunk(self._levels[-1], self.how))
        return self._levels[level]

    def _is_stale(self) -> bool:
        if torch.compiler.is_compiling():  # a graph builds its own
            return False
        if self._version != _version(self.image):
            return True
        found = self._levels[1:]
        if torch.is_grad_enabled() and self.image.requires_grad and not all(level.requires_grad for level in found):
            return True
        within = torch.is_inference_mode_enabled() or self.image.is_inference()
        return not within and any(level.is_inference() for level in found)


def _version(image: Tensor) -> int | None:
    """Return the number of in-place changes, if torch counts them."""
    return None if torch.compiler.is_compiling() or image.is_inference() else image._version


def shrunk(image: Tensor, how: Averaging) -> Tensor:
    """Compute the next level of (N, C, *in)."""
    if image.is_complex():
        return torch.complex(shrunk(image.real, how), shrunk(image.imag, how))
    image = image.to(torch.promote_types(image.dtype, torch.float32))
    fine = tuple(image.shape[2:])
    if image.device.type != "cpu" or image.numel() == 0 or observed(image) or PLAINLY.get():
        return average(image, fine, how, False)
    if not differentiated(image):
        return average_by_kernel(image, fine, how, False)
    out: Tensor = Average.apply(image, fine, how, False)
    return out


def average_by_kernel(image: Tensor, fine: tuple[int, ...], how: Averaging, back: bool) -> Tensor:
    from stn.ops.cpu.pyramid import average_axes  # which loads Numba

    if len(fine) == 1:  # a signal, as an image of one row
        return average_axes(image.unsqueeze(2), (1, *fine), how, back).squeeze(2)
    return average_axes(image, fine, how, back)


class Average(torch.autograd.Function):
    """The CPU kernel for the same. It is linear, so its gradient is the same kernel with transposed taps."""

    @staticmethod
    def forward(ctx: Any, image: Tensor, fine: tuple[int, ...], how: Averaging, back: bool) -> Tensor:
        ctx.rest = fine, how, back
        return average_by_kernel(image, fine, how, back)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        fine, how, back = ctx.rest
        if observed(grad):
            return legacy_vmap.folded(lambda grad: average(grad, fine, how, not back), grad), None, None, None
        return Average.apply(grad, fine, how, not back), None, None, None
