"""Stored points or displacements, one for each pixel of the output."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from stn.grid import Axes, open_lattice
from stn.ops.context import coordinate_dtype
from stn.ops.interpolation import BOTH
from stn.ops.rules.base import Numbers, Rule


@dataclass(frozen=True)
class Field(Rule):
    """x' = f, or x + f if relative; data f (N, K, *size, d), normalized or in source pixels."""

    units: str = "normalized"
    relative: bool = False

    name = "field"
    schema = "str units, bool relative"
    kernels = BOTH
    per_point = True

    @property
    def arguments(self) -> tuple[Any, ...]:
        return self.units, self.relative

    @property
    def in_pixels(self) -> bool:
        return self.units == "pixel"

    def out_size(self, data: Tensor) -> tuple[int, ...]:
        return tuple(data.shape[2:-1])

    def coordinates(self, data: Tensor, axes: Axes) -> list[Tensor]:
        values = data.to(coordinate_dtype(data.device)).unbind(dim=-1)
        found = []
        for value, u, h, c, g in zip(values, open_lattice(self.out_size(data), values[0]), *axes, strict=True):
            moved = value if self.in_pixels else value * h
            found.append(moved + (u * (h / g) + c if self.relative else (0.0 if self.in_pixels else c)))
        return found

    def lifted(self, data: Tensor) -> tuple[Rule, Tensor]:
        """Add y = 0, which is the only row of an image in each of the units, and no displacement."""
        return self, pad(data.unsqueeze(-3), (0, 1))

    def normalized(self, data: Tensor, axes: Axes) -> tuple[Field, Tensor]:
        """Return the same points in normalized units, which are valid for an image of any size."""
        if not self.in_pixels:
            return self, data
        half, middle = data.new_tensor([h or 1.0 for h in axes.half]), data.new_tensor(axes.center)
        return Field("normalized", self.relative), (data if self.relative else data - middle) / half

    def scaled(self, data: Tensor, factors: Sequence[float]) -> Tensor | None:
        """Of stored points alone: displacements begin at the pixels of the output."""
        return None if self.relative or self.in_pixels else data * data.new_tensor(factors)

    def numbers(self, data: Tensor, axes: Axes) -> Numbers:
        """p = scale f + step u + shift on each axis."""
        by = np.zeros((3, 3))
        for i, (h, c, g) in enumerate(zip(*axes, strict=True)):
            by[i, 0] = 1.0 if self.in_pixels else h
            by[i, 1] = h / g if self.relative else 0.0
            by[i, 2] = 0.0 if self.in_pixels and not self.relative else c
        return Numbers("field", {"axes": by})


PIXELS = Field("pixel")


def stored(rule: Rule, data: Tensor, axes: Axes) -> Tensor:
    """Return the sampling points of any rule as data of PIXELS."""
    return torch.stack(torch.broadcast_tensors(*rule.coordinates(data, axes)), dim=-1)
