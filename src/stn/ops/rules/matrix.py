"""Affine maps and homographies: a matrix for each look."""

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
from stn.ops.rules.base import Move, Numbers, Rule

# |w| below this counts as the horizon of a homography. 1 / w^2 in the gradient stays finite; the point lies beyond FAR.
HORIZON = 1e-12


@dataclass(frozen=True)
class Matrix(Rule):
    """x' = M (x, 1), data (N, K, d, d+1); with a last row, (N, K, d+1, d+1), divided by its product."""

    size: tuple[int, ...]  # of the output

    name = "matrix"
    schema = "SymInt[] size"
    kernels = BOTH

    @property
    def arguments(self) -> tuple[Any, ...]:
        return (self.size,)

    @property
    def key(self) -> Hashable:
        return self.size

    def out_size(self, data: Tensor) -> tuple[int, ...]:
        return self.size

    def is_affine(self, data: Tensor) -> bool:
        return data.shape[-2] == len(self.size)

    def coordinates(self, data: Tensor, axes: Axes) -> list[Tensor]:
        """With target x_j = u_j / g_j and source pixel p_i = h_i x_i + c_i (grid.py), x' = M (x, 1) becomes

        p_i = sum_j (M_ij h_i / g_j) u_j + M_id h_i + c_i,     and h_i (..) / w + c_i if M has a last row, which gives w.
        """
        matrix, d = data.to(coordinate_dtype(data.device)), len(self.size)
        u = open_lattice(self.size, matrix)

        def row(i: int, scale: float) -> Tensor:
            """Return scale * (M_i . (x, 1)) over the lattice. M * (h / g), unlike (M * h) / g, is exact for the identity."""
            entry = matrix[:, :, i].unflatten(2, (d + 1, *(1,) * d)).unbind(dim=2)  # d+1 times (N, K, 1, ..)
            linear = [entry[j] * (scale / axes.unit[j]) * u[j] for j in range(d)]
            return sum(linear[1:], linear[0]) + entry[d] * scale

        if self.is_affine(data):
            return [row(i, axes.half[i]) + axes.center[i] for i in range(d)]
        w = row(d, 1.0)
        w = torch.where(w.abs() < HORIZON, torch.full_like(w, HORIZON), w)
        return [row(i, axes.half[i]) / w + axes.center[i] for i in range(d)]

    def jacobian(self, data: Tensor, axes: Axes) -> Tensor:
        """Return (d, d, N, K, 1, ..) for an affine map, whose Jacobian is constant."""
        if not self.is_affine(data):
            return super().jacobian(data, axes)
        d = len(self.size)
        h, g = (data.new_tensor(extents, dtype=torch.float32) for extents in (axes.half, axes.unit))
        linear = data[..., :d].to(torch.promote_types(data.dtype, torch.float32))
        return (linear * (h.unsqueeze(1) / g)).permute(2, 3, 0, 1).reshape(d, d, *data.shape[:2], *(1,) * d)

    def lifted(self, data: Tensor) -> tuple[Rule, Tensor]:
        """Extend x' = a x + t to (a x + t, y). The only row of the output lies at y = 0, the only row of the image."""
        shift = torch.cat([data[..., :1], torch.zeros_like(data[..., :1]), data[..., 1:]], dim=-1)
        stay = torch.eye(2, 3, dtype=data.dtype, device=data.device)[1:].expand(*data.shape[:-2], 1, 3)
        return Matrix((1, *self.size)), torch.cat([shift[..., :1, :], stay, shift[..., 1:, :]], dim=-2)

    def mover(self, data: Tensor, axes: Axes) -> Move | None:
        """Shift an affine map by its last column, because its Jacobian is constant."""
        if not self.is_affine(data):
            return None
        d, half = len(self.size), data.new_tensor([h or 1.0 for h in axes.half])

        def move(step: Tensor) -> Tensor:
            shift = (step.view(*data.shape[:2], d) / half).unsqueeze(-1)
            return torch.cat([data[..., :d], data[..., d:] + shift.to(data.dtype)], dim=-1)

        return move

    def scaled(self, data: Tensor, factors: Sequence[float]) -> Tensor:
        ones = [1.0] * (data.shape[-2] - len(factors))
        return data * data.new_tensor([*factors, *ones]).unsqueeze(1)

    def numbers(self, data: Tensor, axes: Axes) -> Numbers:
        arrays = {"center": center(axes), "scale": scale(axes, data.shape[-2])}
        return Numbers("affine" if self.is_affine(data) else "projective", arrays)


def scale(axes: Axes, rows: int) -> Any:
    """Return the factors of the matrix entries between pixels, (rows, d+1): h_i / g_j and h_i; h = 1 in a last row."""
    h = [*axes.half, 1.0][:rows]
    return np.array([[h[i] / g for g in axes.unit] + [h[i]] for i in range(rows)])


def center(axes: Axes) -> Any:  # (3,)
    found = np.zeros(3)
    found[: len(axes.center)] = axes.center
    return found
