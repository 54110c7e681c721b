"""From tensors to kernels: memory layout, precision, threads."""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from stn.grid import axes
from stn.ops.cpu.coordinates_backward import coordinates_pixels, coordinates_planes
from stn.ops.cpu.cubic import cubic_coordinates, cubic_forward, cubic_image
from stn.ops.cpu.cubic_taps import new_cubic_taps
from stn.ops.cpu.forward import forward_pixels, forward_planes
from stn.ops.cpu.image_backward import image_pixels, image_planes
from stn.ops.cpu.memory import empty_permuted, flat, new_image
from stn.ops.cpu.points import KINDS, Basis, Field
from stn.ops.cpu.prefilter import coefficients, filtered
from stn.ops.cpu.taps import COLUMNS, ROWS
from stn.ops.cpu.threads import chunk_count, run, thread_count
from stn.ops.cpu.tile import AT_TABLE, Sizes, Tile, new_tiles, tiles_of_a_look
from stn.ops.layout import is_channels_last, order_of, plain
from stn.ops.reference import prefilter_reach
from stn.ops.rules import Rule
from stn.ops.sampling import Sampling

TASKS = 8  # into which the gradient of a small batch is divided, whatever the number of threads
SHORT = 32  # pixels of a row
FEW_ROWS = 16  # of a small output, whose tile takes a quarter of the memory
KEPT = 8  # memories for tiles, a thread: forward and backward of small and large outputs
TABLE = 1 << 15  # pixels times knots of a tile's radial functions, 256 KiB: half, twice and four times that were slower

_memory = threading.local()
axes_of = lru_cache(maxsize=256)(axes)


class Call:
    """One call: the image in a layout that the kernels know, its sizes, its fill values, its threads."""

    def __init__(
        self,
        rule: Rule,
        image: Tensor,  # (N, C, *in)
        data: Tensor,  # (N, K, ..)
        sampling: Sampling,
    ) -> None:
        interpolation, padding, align_corners = sampling[:3]
        self.nearest, self.cubic, self.prefilter = interpolation.rounds, interpolation.cubic, interpolation.prefilter
        self.dtype, self.ndim = image.dtype, image.ndim - 2
        self.format = torch.channels_last if self.ndim == 2 else torch.channels_last_3d
        self.last = is_channels_last(image)
        self.real = torch.float64 if image.dtype == torch.float64 else torch.float32
        self.numpy_real: Any = np.float64 if self.real == torch.float64 else np.float32
        self.image, self.size = self.laid_out(image), tuple(rule.out_size(data))
        self.padding, self.align_corners = padding, align_corners
        self.rule, self.data, self.axes = rule, data, axes_of(tuple(image.shape[2:]), self.size, align_corners)
        margin = prefilter_reach(padding, self.real)[1] if self.prefilter else 0
        kind, arrays = rule.numbers(data, self.axes)
        self.grid = shifted(KINDS[kind](*arrays), margin)
        self.source_size = tuple(n + 2 * margin for n in image.shape[2:])
        ones = (1,) * (3 - self.ndim)
        walked = walked_as(self.size) if has_no_order(self.grid) else self.size
        lengths = *self.source_size[::-1], *ones, *walked[::-1], *ones
        rows, looks = ROWS if walked[-2] > FEW_ROWS else FEW_ROWS, data.shape[1]
        if isinstance(self.grid, Basis):
            rows = max(1, min(rows, TABLE // (COLUMNS * len(self.grid.knots))))
        self.sizes = Sizes._make((image.shape[0], looks, image.shape[1], *lengths, rows, padding.code, int(align_corners)))
        work = math.prod(self.size) * looks * image.shape[0] * image.shape[1]
        self.threads = thread_count(work)
        self.chunks = chunk_count(self.threads)

    def laid_out(self, tensor: Tensor) -> Tensor:
        """In the working precision and the image's layout: at most one copy."""
        form = self.format if self.last else torch.contiguous_format
        return plain(tensor).to(self.real).contiguous(memory_format=form)

    def source(self, fill: Tensor) -> Any:
        """What the kernels read: the image, or its coefficients."""
        if not self.prefilter:
            return flat(self.image, self.last)
        found = coefficients(self.image, self.last, self.padding, self.fill(fill), self.align_corners)
        return flat(found, self.last)

    def fill(self, fill: Tensor) -> Tensor:  # (C,)
        return plain(fill).to(self.real).expand(self.sizes.channels).contiguous()

    def tiles(self, *, derivative: bool = False) -> Tile:
        """Memory for the tiles: that of an earlier call in this thread which needed the same."""
        knots = len(self.grid.knots) if isinstance(self.grid, Basis) else 0
        key = self.chunks, self.sizes.rows, derivative, knots, self.numpy_real
        kept: dict[Any, Tile] = _memory.__dict__.setdefault("tiles", {})
        if key not in kept:
            if len(kept) == KEPT:
                kept.clear()
            kept[key] = new_tiles(*key)
        kept[key].at[:, AT_TABLE] = -1  # no table yet
        return kept[key]

    def run(self, kernel: Any, *arguments: Any) -> None:
        run(self.threads, kernel, self.ndim, *arguments)

    def forward(self, fill: Tensor) -> Tensor:
        n, looks, channels = self.sizes[:3]
        order = order_of(self.ndim, 2, self.last)
        # Not a view of a (N * K, ..) tensor: forward-mode autograd refuses one as the result of a Function.
        out = empty_permuted((n, looks, channels, *self.size), order, self.real)
        if out.numel() == 0:
            return out.to(self.dtype)
        images = self.source(fill), flat(out.flatten(0, 1), self.last)
        if self.cubic is not None:
            rest = self.grid, self.sizes, flat(self.fill(fill)), self.tiles(), new_cubic_taps(self.chunks, self.numpy_real)
            careful = not np.isfinite(images[0].sum())
            self.run(cubic_forward, self.last, careful, self.cubic, *images, *rest)
        else:
            kernel = forward_pixels if self.last else forward_planes
            self.run(kernel, self.nearest, *images, self.grid, self.sizes, flat(self.fill(fill)), self.tiles())
        return out.to(self.dtype)

    def image_gradient(self, grad: Tensor) -> Tensor:  # grad: (N * K, C, *size), laid out
        out = new_image(self.image, self.source_size, self.last).zero_()
        n, channels = self.sizes.batch, self.sizes.channels
        bands = max(1, min(-(-TASKS // n), self.image.shape[2] // 32))
        groups = max(1, min(-(-TASKS // (n * (bands if self.cubic is None else 1))), channels))
        kernel = image_pixels if self.last else image_planes
        images = flat(grad, self.last), flat(out, self.last)
        if self.cubic is not None:
            rest = self.grid, self.sizes, groups, self.tiles(), new_cubic_taps(self.chunks, self.numpy_real)
            self.run(cubic_image, self.last, self.cubic, *images, *rest)
            if self.prefilter:
                out = filtered(out, self.last, self.padding, self.align_corners, tuple(self.image.shape[2:]), True)
            return out.to(self.dtype)
        self.run(kernel, self.nearest, *images, self.grid, self.sizes, self.numpy_real(1), groups, bands, self.tiles())
        return out.to(self.dtype)

    def coordinates_gradient(self, grad: Tensor, fill: Tensor) -> Tensor:
        """Gradient in the data: the kernels write that of a field, or each tile's sums for coefficients and bends."""
        looks, tiles = self.sizes.batch * self.sizes.looks, tiles_of_a_look.py_func(self.sizes)
        field = None
        if isinstance(self.grid, Field):
            shape = self.grid.field.shape  # (N * K, Q, ndim)
            field = empty_permuted(shape, range(3), torch.float64 if self.data.dtype == torch.float64 else torch.float32)
        sums = np.empty((looks, tiles, 4, 4)) if field is None else flat(field).reshape(field.shape)
        bends = np.empty((looks, tiles, *(self.grid.bend.shape[1:] if isinstance(self.grid, Basis) else (0, 0))))
        rest = flat(grad, self.last), self.source(fill), self.grid, self.sizes, flat(self.fill(fill)), sums, bends
        if self.cubic is not None:
            cubic_taps = new_cubic_taps(self.chunks, self.numpy_real)
            self.run(cubic_coordinates, self.last, self.cubic, *rest, self.tiles(derivative=True), cubic_taps)
        else:
            self.run(coordinates_pixels if self.last else coordinates_planes, *rest, self.tiles(derivative=True))
        if field is None:
            found = self.rule.gradient(self.data, self.axes, sums.sum(axis=1), bends.sum(axis=1))
            field = torch.from_numpy(np.ascontiguousarray(found)).clone()  # torch resizes no storage of NumPy's
        return field.view(self.data.shape).to(self.data.dtype)

    def backward(
        self,
        grad: Tensor,  # (N, K, C, *size)
        fill: Tensor,
        need: Sequence[bool],  # of the image, of the data
    ) -> tuple[Tensor | None, Tensor | None]:
        """Gradients in the image and in the data, each only if it is asked for."""
        (need_image, need_data), data = need, self.data
        if grad.numel() == 0:
            nothing = torch.zeros_like(self.image, dtype=self.dtype), data.new_zeros(data.shape)
            return nothing[0] if need_image else None, nothing[1] if need_data else None
        grad = self.laid_out(grad.flatten(0, 1))
        grad_image = self.image_gradient(grad) if need_image else None
        if not need_data:
            return grad_image, None
        if self.nearest:
            return grad_image, data.new_zeros(data.shape)
        return grad_image, self.coordinates_gradient(grad, fill)


def has_no_order(grid: Any) -> bool:
    """Whether each pixel's point is stored, and does not depend on where the pixel lies in the output."""
    return isinstance(grid, Field) and not grid.axes[:, 1].any()


def walked_as(size: tuple[int, ...]) -> tuple[int, ...]:
    """How stored points are walked, whose order does not matter: rows unlike a tile's as others, which fill tiles better."""
    count = math.prod(size)
    if size[-1] % COLUMNS == 0 and size[-2] >= ROWS or count == 0:
        return size
    width = next((w for w in (COLUMNS, 96, 64) if count % w == 0), count if size[-1] <= SHORT else size[-1])
    return (*(1 for _ in size[2:]), count // width, width)


def shifted(grid: Any, margin: int) -> Any:
    """The same places in an image with so many more pixels on each side."""
    if margin == 0:
        return grid
    if isinstance(grid, Field):
        return grid._replace(axes=grid.axes + np.array([0, 0, margin]))
    return grid._replace(center=grid.center + margin)
