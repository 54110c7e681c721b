"""Determinants of small matrices and the solution of small linear systems, by Cramer's rule."""

from __future__ import annotations

import torch
from torch import Tensor

FLAT = 1e-6  # determinant of a Jacobian below which its inverse is noise in float32


def solve(matrix: Tensor, right: Tensor) -> Tensor:  # (.., d, d), (.., d), d = 1, 2 or 3
    """Solve by Cramer's rule, with a determinant of at least FLAT: ten times as fast as a factorization at this size."""
    size = determinant(matrix)
    size = torch.where(size.abs() < FLAT, torch.where(size < 0, -FLAT, FLAT), size)
    if matrix.shape[-1] == 1:
        return right / size.unsqueeze(-1)
    if matrix.shape[-1] == 2:
        (a, b), (c, d), (p, q) = matrix[..., 0, :].unbind(-1), matrix[..., 1, :].unbind(-1), right.unbind(-1)
        return torch.stack([d * p - b * q, a * q - c * p], dim=-1) / size.unsqueeze(-1)
    a, b, c = matrix.unbind(dim=-1)
    rows = torch.stack([torch.linalg.cross(u, v) for u, v in ((b, c), (c, a), (a, b))], dim=-2)
    return (rows * right.unsqueeze(-2)).sum(dim=-1) / size.unsqueeze(-1)


def determinant(matrix: Tensor) -> Tensor:  # (.., d, d), d = 1, 2 or 3 -> (..)
    """Return the determinant by its formula. The one of torch has no second derivative at singular matrices."""
    if matrix.shape[-1] == 1:
        return matrix[..., 0, 0]
    if matrix.shape[-1] == 2:
        return matrix[..., 0, 0] * matrix[..., 1, 1] - matrix[..., 0, 1] * matrix[..., 1, 0]
    a, b, c = matrix.unbind(dim=-2)
    return (a * torch.linalg.cross(b, c)).sum(dim=-1)
