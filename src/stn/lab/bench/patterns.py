"""Patterns of stored grids: from a grid that reads neighbors one after another to points at random."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from stn.grid import lattice

Points = Callable[[int, tuple[int, ...]], Tensor]  # number of grids, size -> (N, *size, d)


class Pattern(NamedTuple):
    points: Points
    mode: str = "bilinear"
    form: str = "image"  # or "row", "column": the points of an image in one row or in one column

    def size(self, size: tuple[int, ...]) -> tuple[int, ...]:
        """Return the size of the grid for images of this size."""
        count = torch.Size(size).numel()
        return {"image": size, "row": (1, count), "column": (count, 1)}[self.form]

    def grid(self, n: int, size: tuple[int, ...]) -> Tensor:  # (N, *size, d), or one row or column
        points = self.points(n, size)
        return points.reshape(n, *self.size(size), len(size)).contiguous()


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(1)


def regular(n: int, size: tuple[int, ...]) -> Tensor:
    """The identity."""
    return lattice(size, dtype=torch.float32).expand(n, *size, len(size))


def noisy(deviation: float) -> Points:
    """The identity, moved by normal noise that is independent for each point. deviation: normalized."""

    def points(n: int, size: tuple[int, ...]) -> Tensor:
        return regular(n, size) + deviation * torch.randn(n, *size, len(size), generator=generator())

    return points


def flowing(deviation: float) -> Points:
    """The identity, moved by normal noise on 4 control points per axis, cubic in between."""

    def points(n: int, size: tuple[int, ...]) -> Tensor:
        coarse = torch.randn(n, 2, 4, 4, generator=generator())
        flow = interpolate(coarse, size=size, mode="bicubic", align_corners=True).movedim(1, -1)
        return regular(n, size) + deviation * flow

    return points


def scattered(n: int, size: tuple[int, ...]) -> Tensor:
    """Uniform in the image."""
    return 2 * torch.rand(n, *size, len(size), generator=generator()) - 1


PATTERNS = {
    "identity": Pattern(regular),
    "noise 0.001": Pattern(noisy(0.001)),
    "noise 0.01": Pattern(noisy(0.01)),
    "noise 0.05": Pattern(noisy(0.05)),
    "flow 0.1": Pattern(flowing(0.1)),
    "random": Pattern(scattered),
    "row, noise 0.01": Pattern(noisy(0.01), form="row"),
    "column, noise 0.01": Pattern(noisy(0.01), form="column"),
    "nearest, noise 0.01": Pattern(noisy(0.01), mode="nearest"),
    "bicubic, noise 0.01": Pattern(noisy(0.01), mode="bicubic"),
}
IN_VOLUMES = ("noise 0.01", "random")
