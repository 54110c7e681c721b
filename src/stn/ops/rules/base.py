"""What a coordinate rule is: the meaning of the tensor that says where to look."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from stn.grid import Axes, axes

if TYPE_CHECKING:
    from typing_extensions import Self

Move = Callable[[Tensor], Tensor]


class Numbers(NamedTuple):
    """What kernels on the CPU compute points from, beside the data: which function, and arrays of float64."""

    kind: str  # of `cpu/points.py`
    arrays: dict[str, Any]


class Rule(ABC):
    """A frozen object without data: the data is a tensor (N, K, ..), of which each look has its own."""

    name: ClassVar[str]
    schema: ClassVar[str]  # of `arguments`, as torch's registry has them
    kernels: ClassVar[tuple[str, ...]] = ()  # device types whose kernels know it: the oracle serves others
    per_pixel: ClassVar[bool] = False  # the data of one look is (*size, d), else a matrix

    @property
    @abstractmethod
    def arguments(self) -> tuple[Any, ...]:
        """What makes this rule: `type(rule)(*rule.arguments)`."""

    @classmethod
    def of(cls, arguments: Sequence[Any]) -> Self:
        """From what torch's registry hands over, which has lists for tuples."""
        return cls(*(tuple(value) if isinstance(value, list) else value for value in arguments))

    @abstractmethod
    def out_size(self, data: Tensor) -> tuple[int, ...]: ...

    def axes(self, data: Tensor, in_size: Sequence[int], align_corners: bool) -> Axes:
        return axes(in_size, self.out_size(data), align_corners)

    # ---- data of one look for all images, or with N or (N, K) before it, N as in image or 1 ----

    def dimensions(self, image: Tensor) -> int:
        """Of the data of one look."""
        return image.ndim - 1 if self.per_pixel else 2

    def canonical(self, image: Tensor, data: Tensor) -> Tensor:
        """(N, K, ..), as all below have it."""
        own = self.dimensions(image)
        each = data if data.ndim == own + 2 else data.unsqueeze(-own - 1)  # (N, 1, ..), (1, 1, ..) or (1, ..)
        if each.ndim == own + 1 or each.shape[0] != image.shape[0]:
            each = each.expand(image.shape[0], *each.shape[-own - 1 :])
        return each

    # ---- for the oracle, and whatever is made of torch's operators ----

    @abstractmethod
    def coordinates(self, data: Tensor, axes: Axes) -> list[Tensor]:
        """Source pixels: a tensor for each of x, y, .. that broadcasts to (N, K, *size), float64 wherever there is one."""

    def jacobian(self, data: Tensor, axes: Axes) -> Tensor:
        """d source pixel_i / d output pixel_j, (d, d, N, K, *size): differences between neighbors, over two pixels, and
        over one at the edges of the output."""
        at, size = self.coordinates(data, axes), self.out_size(data)
        shape = torch.broadcast_shapes(*(x.shape for x in at))
        across = range(len(size) + 1, 1, -1)
        found = torch.stack([torch.stack([difference(x.expand(shape), axis) for axis in across]) for x in at])
        return found.to(torch.promote_types(data.dtype, torch.float32))

    def mover(self, data: Tensor, axes: Axes) -> Move | None:
        """From a step in source pixels, (N, K, *size or ones, d), to the data of places that lie so much further; None if
        data of this rule cannot say it."""
        return None

    # ---- for kernels on the CPU ----

    @abstractmethod
    def numbers(self, data: Tensor, axes: Axes) -> Numbers:
        """By the formulas of `coordinates`. What depends on the values of `data`, `cpu/numbers.py` adds at each call."""

    @property
    def key(self) -> Hashable:
        """What a plan of a call depends on, beside the shape of the data."""
        return self.arguments


def difference(x: Tensor, axis: int) -> Tensor:
    """`torch.gradient`, which torch.export cannot trace for any number of images."""
    if (n := x.shape[axis]) < 2:
        return torch.zeros_like(x)
    step = x.narrow(axis, 1, n - 1) - x.narrow(axis, 0, n - 1)
    inner = (step.narrow(axis, 0, n - 2) + step.narrow(axis, 1, n - 2)) / 2
    return torch.cat([step.narrow(axis, 0, 1), inner, step.narrow(axis, n - 2, 1)], dim=axis)
