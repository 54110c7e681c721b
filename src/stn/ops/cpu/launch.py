"""From tensors to kernels: memory layout, precision, threads."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numba
import numpy as np
import torch
from torch import Tensor

from stn.grid import half_extent
from stn.ops.cpu.coordinates_backward import coordinates_backward_kernel
from stn.ops.cpu.forward import forward_kernel
from stn.ops.cpu.image_backward import image_backward_kernel
from stn.ops.cpu.memory import on_large_pages
from stn.ops.cpu.rules import AFFINE, FIELD, PADDING, PROJECTIVE, Coordinates
from stn.ops.cpu.tile import COLUMNS, ROWS, Lengths

SMALL = 1 << 14  # pixels times channels below which a second thread costs more than it brings
TASKS = 8  # into which the gradient of a small batch is divided, whatever the number of threads

# OpenMP does not survive a fork: a child, such as a DataLoader's worker, uses the serial twin of a kernel.
_forked = False


def _mark_forked() -> None:
    global _forked
    _forked = True


os.register_at_fork(after_in_child=_mark_forked)


NO_BASIS = np.zeros((0, 2)), np.zeros((0, 2, 0))  # knots and bend


class Where(NamedTuple):
    """A coordinate rule with its numbers, and how a gradient in them becomes one in the argument."""

    rule: int
    coordinates: Coordinates
    scale: Any  # of the matrix's entries, (rows, d+1); None for a field


def from_matrix(
    matrix: Tensor, in_size: Sequence[int], out_size: Sequence[int], padding_mode: str, align_corners: bool
) -> Where:
    """The coefficients of the reference's `matrix_coordinates`, axes in x, y, z order."""
    d, rows = len(in_size), matrix.shape[-2]
    scale, axes = matrix_scale(tuple(in_size), tuple(out_size), rows, align_corners)
    numbers = (
        matrix.detach().numpy().astype(np.float64) if matrix.dtype != torch.bfloat16 else matrix.detach().double().numpy()
    )
    scaled = (numbers * scale).reshape(-1, rows, d + 1)
    coef = np.zeros((len(scaled), 4, 4))
    coef[:, :d, :d], coef[:, :d, 3] = scaled[:, :d, :d], scaled[:, :d, d]
    coef[:, 3, :d], coef[:, 3, 3] = (scaled[:, d, :d], scaled[:, d, d]) if rows > d else (0, 1)
    nothing = np.zeros((len(scaled), 0, d), np.float64)
    coordinates = Coordinates(coef, nothing, axes, *NO_BASIS, align_corners, PADDING[padding_mode])
    return Where(AFFINE if rows == d else PROJECTIVE, coordinates, scale)


@lru_cache(maxsize=256)
def matrix_scale(in_size: tuple[int, ...], out_size: tuple[int, ...], rows: int, align_corners: bool) -> tuple[Any, Any]:
    """What a matrix's entries are multiplied by, (rows, d+1), and the `axes` of its coordinates."""
    d = len(in_size)
    h = [half_extent(n, align_corners) for n in reversed(in_size)] + [1.0] * (rows - d)
    g = [half_extent(n, align_corners) or 1.0 for n in reversed(out_size)]
    axes = np.zeros((3, 4))
    axes[:d, 0] = [(n - 1) / 2 for n in reversed(in_size)]
    return np.array([[h[i] / g[j] for j in range(d)] + [h[i]] for i in range(rows)]), axes


def from_field(
    field: Tensor, in_size: Sequence[int], padding_mode: str, align_corners: bool, units: str, relative: bool
) -> Where:
    """The numbers of the reference's `field_coordinates`: p = scale f + step u + shift on each axis."""
    d = len(in_size)
    out_size = field.shape[-d - 1 : -1]
    axes = np.zeros((3, 4))
    for i, (n, m) in enumerate(zip(reversed(in_size), reversed(out_size), strict=True)):
        h, g = half_extent(n, align_corners), half_extent(m, align_corners) or 1.0
        axes[i, 1] = 1.0 if units == "pixel" else h
        axes[i, 2] = h / g if relative else 0.0
        axes[i, 3] = 0.0 if units == "pixel" and not relative else (n - 1) / 2
    values = field.detach() if field.dtype in (torch.float32, torch.float64) else field.detach().float()
    flat = values.reshape(-1, int(np.prod(out_size)), d).numpy()
    return Where(
        FIELD, Coordinates(np.zeros((len(flat), 4, 4)), flat, axes, *NO_BASIS, align_corners, PADDING[padding_mode]), None
    )


class Call:
    """One call: the image in a layout that the kernels know, its sizes, its fill values, its threads."""

    def __init__(self, image: Tensor, where: Where, looks: int, size: Sequence[int], mode: str) -> None:
        self.where, self.nearest = where, mode == "nearest"
        self.dtype, self.ndim = image.dtype, image.ndim - 2
        self.format = torch.channels_last if self.ndim == 2 else torch.channels_last_3d
        self.last = image.shape[1] > 1 and not image.is_contiguous() and image.is_contiguous(memory_format=self.format)
        self.real = torch.float64 if image.dtype == torch.float64 else torch.float32
        self.image, self.size, self.looks = self.laid_out(image), tuple(size), looks
        n, channels = image.shape[:2]
        ones = (1,) * (3 - self.ndim)
        sizes = *image.shape[:1:-1], *ones, *self.size[::-1], *ones
        self.lengths = Lengths._make((n, looks, channels, *sizes, ROWS))
        self.one = np.float64(1) if self.real == torch.float64 else np.float32(1)
        self.work = n * looks * channels * int(np.prod(self.size))
        threads = 1 if _forked or self.work < SMALL else min(torch.get_num_threads(), numba.config.NUMBA_NUM_THREADS)  # type: ignore[attr-defined]
        self.parallel = threads > 1
        self.chunks = 4 * threads if self.parallel else 1
        if self.parallel:
            numba.set_num_threads(threads)

    def laid_out(self, tensor: Tensor) -> Tensor:
        """In the working precision and the image's layout: at most one copy."""
        form = self.format if self.last else torch.contiguous_format
        return tensor.detach().to(self.real).contiguous(memory_format=form)

    def flat(self, tensor: Tensor) -> Any:
        if self.last:
            tensor = tensor.permute(0, *range(2, tensor.ndim), 1)
        return tensor.reshape(-1).numpy()

    def fill(self, fill: Tensor) -> Any:
        return fill.detach().to(self.real).expand(self.lengths.channels).contiguous().numpy()

    def forward(self, fill: Tensor) -> Tensor:
        n, looks, channels = self.lengths[:3]
        order = (0, 1, *range(3, 3 + self.ndim), 2) if self.last else tuple(range(3 + self.ndim))
        # Not a view of a (N * K, ..) tensor: forward-mode autograd refuses one as the result of a Function.
        out = on_large_pages(torch.empty_permuted((n, looks, channels, *self.size), order, dtype=self.real))
        if out.numel() == 0:
            return out.to(self.dtype)
        kernel = forward_kernel(self.where.rule, self.ndim, self.nearest, self.last, self.parallel)
        kernel(
            self.flat(self.image),
            self.flat(out.flatten(0, 1)),
            self.where.coordinates,
            self.lengths,
            self.fill(fill),
            self.one,
            self.chunks,
        )
        return out.to(self.dtype)

    def image_gradient(self, grad: Tensor) -> Tensor:
        out = on_large_pages(torch.empty_like(self.image)).zero_()  # keeps the layout
        n, channels = self.lengths.batch, self.lengths.channels
        bands = max(1, min(-(-TASKS // n), self.lengths[self.ndim + 2] // 32))
        groups = max(1, min(-(-TASKS // (n * bands)), channels))
        kernel = image_backward_kernel(self.where.rule, self.ndim, self.nearest, self.last, self.parallel)
        arguments = (self.flat(grad), self.flat(out), self.where.coordinates, self.lengths, self.fill(torch.zeros(())))
        kernel(*arguments, self.one, groups, bands, self.chunks)
        return out.to(self.dtype)

    def coordinates_gradient(self, grad: Tensor, fill: Tensor) -> tuple[Any, Any, Any]:
        """Gradients in the coefficients, (N * K, 4, 4), in the bends, (N * K, 2, T), and in the field."""
        width, height, depth = self.lengths[6:9]
        coordinates, looks = self.where.coordinates, self.lengths.batch * self.looks
        tiles = 0 if self.where.rule == FIELD else -(-width // COLUMNS) * -(-height // self.lengths.rows) * depth
        sums = np.empty((looks, tiles, 4, 4))
        bends = np.empty((looks, tiles, *coordinates.bend.shape[1:]))
        field = np.empty_like(coordinates.field)
        kernel = coordinates_backward_kernel(self.where.rule, self.ndim, self.last, self.parallel)
        arguments = (self.flat(grad), self.flat(self.image), coordinates, self.lengths, self.fill(fill))
        kernel(*arguments, self.one, sums, bends, field, self.chunks)
        return sums.sum(axis=1), bends.sum(axis=1), field


Gradients = tuple[Tensor | None, Tensor | None]


def backward(
    call: Call, grad: Tensor, where: Tensor, fill: Tensor, need_image: bool, need_where: bool
) -> Gradients:  # grad: (N, K, C, *size)
    """Gradients in the image and in the matrix or the field, each only if it is asked for."""
    if grad.numel() == 0:
        return torch.zeros_like(call.image, dtype=call.dtype) if need_image else None, torch.zeros_like(where)
    grad = call.laid_out(grad.flatten(0, 1))
    grad_image = call.image_gradient(grad) if need_image else None
    if not need_where:
        return grad_image, None
    if call.nearest:
        return grad_image, torch.zeros_like(where)
    sums, _, field = call.coordinates_gradient(grad, fill)
    if call.where.scale is None:
        return grad_image, torch.from_numpy(field).view(where.shape).to(where.dtype)
    d, rows = call.ndim, where.shape[-2]
    places = [*range(d), 3]
    summed = sums[:, places[:d] + [3] * (rows - d)][:, :, places]
    return grad_image, torch.from_numpy(summed * call.where.scale).view(where.shape).to(where.dtype)
