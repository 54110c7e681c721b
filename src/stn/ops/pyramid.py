"""An image at halved and halved again resolution: what shrinking and coarse gradients read.

Each level spans the same [-1, 1] as the image, so a look at any of them has the same theta. From level to level pixels are
averaged by a triangle as wide as a coarse pixel is far from its neighbours, divided by the sum of its weights inside the
image. Between even sizes that is (1, 3, 3, 1) / 8 along each axis, and is `interpolate(antialias=True)` of torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from stn import _check
from stn.ops.autograd import differentiated, is_transformed
from stn.ops.library import averaging_kernels


class Pyramid:
    """The levels of an image, each found when first asked for. Many looks at one image share them: `pyramid=`.

    image: (N, C, *in), which is level 0. align_corners: of the looks. The levels of bytes and half precision are float32.
    Source: Williams 1983.
    """

    def __init__(self, image: Tensor, *, align_corners: bool = False) -> None:
        _check.image("image", image)
        self.image, self.align_corners = image, align_corners
        size, self.sizes = tuple(image.shape[2:]), [tuple(image.shape[2:])]
        while (size := tuple(halved(n, align_corners) for n in size)) != self.sizes[-1]:
            self.sizes.append(size)
        self._levels = [image.float() if image.dtype == torch.uint8 else image]

    def __len__(self) -> int:
        return len(self.sizes)

    def __getitem__(self, level: int) -> Tensor:
        while len(self._levels) <= level:
            self._levels.append(shrunk(self._levels[-1], self.align_corners))
        return self._levels[level]


def shrunk(image: Tensor, align_corners: bool) -> Tensor:
    """The next level of (N, C, *in)."""
    if image.is_complex():
        return torch.complex(shrunk(image.real, align_corners), shrunk(image.imag, align_corners))
    image = image.to(torch.promote_types(image.dtype, torch.float32))
    how = tuple(image.shape[2:]), align_corners, False
    kernels = averaging_kernels(image)
    if kernels is None or torch.compiler.is_compiling() or is_transformed():
        return average(image, *how)
    if not differentiated(image):
        return kernels.average(image, *how)
    out: Tensor = Average.apply(image, *how, kernels)
    return out


# ---- the average along each axis ----

MOST = 4  # taps


def halved(n: int, align_corners: bool) -> int:
    """Between aligned corners two pixels stay two."""
    return (n // 2 + 1 if n > 2 else n) if align_corners else (n + 1) // 2


def taps(n: int, align_corners: bool, back: bool) -> tuple[Tensor, Tensor]:
    """What each pixel of the coarse axis reads of the n fine ones: pixels (m, MOST) and weights, 0 where there is no tap.

    back: what each of the n receives in the gradient, (n, MOST).
    """
    m = halved(n, align_corners)
    step = (n - 1) / max(m - 1, 1) if align_corners else n / m
    i, step = torch.arange(m, dtype=torch.float64), max(step, 1.0)
    centre = i * step if align_corners else (i + 0.5) * step - 0.5
    pixel = (centre - step).floor().long().unsqueeze(1) + torch.arange(1, 1 + MOST)
    weight = (1 - (pixel - centre.unsqueeze(1)).abs() / step).clamp_min(0)
    weight = torch.where((pixel >= 0) & (pixel < n), weight, 0.0)
    pixel, weight = pixel.clamp(0, n - 1), weight / weight.sum(dim=1, keepdim=True)
    return transposed(pixel, weight, n) if back else (pixel, weight)


def transposed(pixel: Tensor, weight: Tensor, n: int) -> tuple[Tensor, Tensor]:
    found: list[list[tuple[int, float]]] = [[] for _ in range(n)]
    for i, row in enumerate(zip(pixel.tolist(), weight.tolist(), strict=True)):
        for j, w in zip(*row, strict=True):
            if w > 0:
                found[j].append((i, w))
    rows = [row + [(0, 0.0)] * (MOST - len(row)) for row in found]
    weights = [[w for _, w in row] for row in rows]
    return torch.tensor([[i for i, _ in row] for row in rows]), torch.tensor(weights, dtype=torch.float64)


def average(image: Tensor, fine: Sequence[int], align_corners: bool, back: bool) -> Tensor:
    """The oracle: between images of the size `fine` and the next level. Differentiable to any order."""
    for axis, n in enumerate(fine, start=2):
        pixel, weight = taps(n, align_corners, back)
        read = image.index_select(axis, pixel.flatten().to(image.device)).unflatten(axis, pixel.shape)
        weight = weight.to(image.device, image.dtype).view(*pixel.shape, *(1,) * (image.ndim - 1 - axis))
        image = (read * weight).sum(dim=axis + 1)
    return image


class Average(torch.autograd.Function):
    """A device's kernel for the same. It is linear: its gradient is the same with transposed taps, and so on."""

    @staticmethod
    def forward(image: Tensor, fine: tuple[int, ...], align_corners: bool, back: bool, kernels: Any) -> Tensor:
        out: Tensor = kernels.average(image, fine, align_corners, back)
        return out

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.how = inputs[1:]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        fine, align_corners, back, kernels = ctx.how
        return Average.apply(grad, fine, align_corners, not back, kernels), None, None, None, None
