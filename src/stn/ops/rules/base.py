"""The base class of coordinate rules, which give the meaning of the data tensor of a call."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Hashable, Sequence
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from stn.grid import Axes, axes
from stn.ops.registered import Registered

Move = Callable[[Tensor], Tensor]


class Numbers(NamedTuple):
    """The input of the CPU kernels for coordinates that does not depend on the data: a function and arrays of float64."""

    kind: str  # of `cpu/points.py`
    arrays: dict[str, Any]


class Rule(Registered):
    """A frozen object without data. The data is a tensor (N, K, ..), one part per look."""

    kernels: ClassVar[tuple[str, ...]] = ()  # device types with kernels; the reference serves the others
    per_point: ClassVar[bool] = False  # whether the data of one look is (*shape, d); otherwise a matrix

    @abstractmethod
    def out_size(self, data: Tensor) -> tuple[int, ...]: ...

    def axes(self, data: Tensor, in_size: Sequence[int], align_corners: bool) -> Axes:
        return axes(in_size, self.out_size(data), align_corners)

    # ---- data of one look for all images, or with N or (N, K) before it; N as in image, or 1 ----

    def dimensions(self, image: Tensor) -> int:
        """Return the number of dimensions of the data of one look."""
        return image.ndim - 1 if self.per_point else 2

    def canonical(self, image: Tensor, data: Tensor) -> Tensor:
        """Return the data as (N, K, ..), the form of all functions below."""
        own = self.dimensions(image)
        each = data if data.ndim == own + 2 else data.unsqueeze(-own - 1)  # (N, 1, ..), (1, 1, ..) or (1, ..)
        if each.ndim == own + 1 or each.shape[0] != image.shape[0]:
            each = each.expand(image.shape[0], *each.shape[-own - 1 :])
        return each

    def lifted(self, data: Tensor) -> tuple[Rule, Tensor]:
        """Return the points of a signal (N, K, ..) as those of an image of one row, for which devices have kernels.

        A rule whose operators and families have no signals need not implement it.
        """
        raise NotImplementedError(f"{type(self).__name__} has no points in 1-D")

    # ---- for the reference and the exports ----

    @abstractmethod
    def coordinates(self, data: Tensor, axes: Axes) -> list[Tensor]:
        """Return source pixels: a tensor for each of x, y, .. that broadcasts to (N, K, *size), in float64 if available."""

    def jacobian(self, data: Tensor, axes: Axes) -> Tensor:
        """Return d source pixel_i / d output pixel_j, (d, d, N, K, *size): differences of neighbors over two pixels, at the
        edges of the output over one."""
        at, size = self.coordinates(data, axes), self.out_size(data)
        shape = torch.broadcast_shapes(*(x.shape for x in at))
        across = range(len(size) + 1, 1, -1)
        found = torch.stack([torch.stack([difference(x.expand(shape), axis) for axis in across]) for x in at])
        return found.to(torch.promote_types(data.dtype, torch.float32))

    def mover(self, data: Tensor, axes: Axes) -> Move | None:
        """Return data shifted by a step in source pixels, (N, K, *size or ones, d); None if the rule has no such data."""
        return None

    def scaled(self, data: Tensor, factors: Sequence[float]) -> Tensor | None:
        """Return data whose points are multiplied by a factor on each axis x, y, ..; None if the rule has none."""
        return None

    # ---- for kernels on the CPU ----

    @abstractmethod
    def numbers(self, data: Tensor, axes: Axes) -> Numbers:
        """Return the numbers of a kernel by the formulas of `coordinates`. `cpu/numbers.py` adds those that depend on the
        values of the data in each call."""

    @property
    def key(self) -> Hashable:
        """The part of the rule that the plan of a call depends on, in addition to the shape of the data."""
        return self.arguments


def difference(x: Tensor, axis: int) -> Tensor:
    """`torch.gradient`, which torch.export cannot trace for a dynamic number of images."""
    if (n := x.shape[axis]) < 2:
        return torch.zeros_like(x)
    step = x.narrow(axis, 1, n - 1) - x.narrow(axis, 0, n - 1)
    inner = (step.narrow(axis, 0, n - 2) + step.narrow(axis, 1, n - 2)) / 2
    return torch.cat([step.narrow(axis, 0, 1), inner, step.narrow(axis, n - 2, 1)], dim=axis)
