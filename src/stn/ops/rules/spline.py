"""Thin-plate splines: coefficients of radial functions around control points, and of a matrix."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from stn.grid import Axes, open_lattice
from stn.ops.context import coordinate_dtype
from stn.ops.interpolation import BOTH
from stn.ops.rules.base import Numbers, Rule
from stn.ops.rules.matrix import center, scale

GROUP = 4  # the number of knots on the CPU is a multiple of it: 2.4 instead of 4.1 ns per pixel for 32x3x224x224


@dataclass(frozen=True, eq=False)
class Spline(Rule):
    """x' = x + (U_1(x), .., U_T(x), 1, x, y[, z]) w, with `radial_and_linear`'s U, data w (N, K, T+d+1, d)."""

    size: tuple[int, ...]  # of the output
    control_points: Tensor  # (T, d) normalized, the same for all

    name = "basis"
    schema = "SymInt[] size, Tensor control_points"
    kernels = BOTH

    @property
    def arguments(self) -> tuple[Any, ...]:
        return self.size, self.control_points

    def out_size(self, data: Tensor) -> tuple[int, ...]:
        return self.size

    def coordinates(self, data: Tensor, axes: Axes) -> list[Tensor]:
        dtype, (h, c, g) = coordinate_dtype(data.device), axes
        u = open_lattice(self.size, data.new_empty(0, dtype=dtype))
        shape = (1, 1, *self.size)
        xy = torch.stack([(along / extent).expand(shape) for along, extent in zip(u, g, strict=True)], dim=-1)
        functions = radial_and_linear(xy.flatten(2, -2), self.control_points.to(data.device, dtype))  # (1, 1, Q, T+d+1)
        moved = (functions @ data.to(dtype)).unflatten(2, self.size).unbind(dim=-1)
        return [u[i] * (h[i] / g[i]) + c[i] + h[i] * moved[i] for i in range(len(self.size))]

    def scaled(self, data: Tensor, factors: Sequence[float]) -> Tensor:
        by = data.new_tensor(factors)
        identity = torch.cat([data.new_zeros(data.shape[-2] - 2, 2), (by - 1).diag()])  # x' = x + .. has an x of its own
        return data * by + identity

    def numbers(self, data: Tensor, axes: Axes) -> Numbers:
        return Numbers(
            "basis", {"center": center(axes), "scale": scale(axes, len(self.size)), "step": 1 / np.array(axes.unit)}
        )

    @property
    def key(self) -> Hashable:
        return self.size, len(self.control_points)


def radial_and_linear(xy: Tensor, control_points: Tensor) -> Tensor:
    """(U(|x - p_1|), .., U(|x - p_T|), 1, x, y[, z]): (.., d) -> (.., T+d+1). Bookstein 1989.

    U bends least in d dimensions: r^2 log r in 2-D, r in 3-D. The gradient at r = 0 is zero.
    """
    r2 = (xy.unsqueeze(-2) - control_points).square().sum(dim=-1)
    safe = torch.where(r2 == 0, 1.0, r2)  # r^2 log r is 0 at both; this avoids the value and the gradient of log 0
    radial = 0.5 * safe * safe.log() if xy.shape[-1] == 2 else torch.where(r2 == 0, 0.0, safe.sqrt())
    return torch.cat([radial, torch.ones_like(xy[..., :1]), xy], dim=-1)
