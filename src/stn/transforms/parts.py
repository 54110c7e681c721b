"""Parts of linear maps: the matrix exponential, and the composition of rotation, scale and shear."""

from __future__ import annotations

import functools

import torch
from torch import Tensor

from stn import _check
from stn.ops.context import coordinate_dtype, readable, unrounded
from stn.transforms.aspect import Aspect, ratios
from stn.transforms.rotations import rotation

Number = float | Tensor


SQUARINGS, DEGREE = 7, 9  # accurate to 3e-16, relative to its terms, up to a norm of 16


def matrix_exponential(matrix: Tensor) -> Tensor:  # (.., n, n)
    """Return the matrix exponential, by scaling and squaring a Taylor series in a fixed number of steps. The one of torch
    reads the norms, so it waits for the device. At zero the result is exactly the identity."""
    scaled = matrix.to(coordinate_dtype(matrix.device)) / 2**SQUARINGS
    eye = torch.eye(matrix.shape[-1], dtype=scaled.dtype, device=scaled.device)
    less = torch.zeros_like(scaled)  # without the identity, for the sake of rounding
    for k in range(DEGREE, 0, -1):
        less = scaled @ (eye + less) / k
    for _ in range(SQUARINGS):
        less = 2 * less + less @ less
    return (eye + less).to(matrix.dtype)


def affine_parts(
    ndim: int, angle: Number, scale: Number, shear: Number, translation: Number, center: Number, aspect: Aspect | None
) -> Tensor:  # (N, d, d+1) or (N, K, d, d+1)
    """Return the matrix of R S D (x - c) + c + t: `Affine.from_parts`."""
    given = {"angle": angle, "scale": scale, "shear": shear, "translation": translation, "center": center}
    tensors = {name: part for name, part in given.items() if isinstance(part, Tensor)}
    for name, part in given.items():
        _check.number_or_floating(name, part)
    if not isinstance(angle, Tensor) or (readable(angle) and not angle.requires_grad):
        _check.radians("angle", angle if isinstance(angle, Tensor) else [angle])
    dtypes = [part.dtype for part in tensors.values()] or [torch.get_default_dtype()]
    device = next((part.device for part in tensors.values()), None)
    like = torch.empty((), dtype=functools.reduce(torch.promote_types, dtypes), device=device)
    turns = 1 if ndim == 2 else 3
    a, h = (_vector(name, given[name], turns, like, scalar=ndim == 2) for name in ("angle", "shear"))
    t, c = (_vector(name, given[name], ndim, like) for name in ("translation", "center"))
    batch = _check.broadcast(dict(zip(("angle", "shear", "translation", "center"), (a, h, t, c), strict=True)))
    per_axis = isinstance(scale, Tensor) and scale.ndim > len(batch)
    s = _vector("scale", scale, ndim, like, scalar=not per_axis)
    s = s.expand(*_check.broadcast({"scale": s, "the other parts": a.new_empty((*batch, 1))}), ndim)
    with unrounded(like.device):
        linear = rotation(a) @ (_shear(h) * s.unsqueeze(-2))
        if factors := ratios(aspect, ndim):
            rows = [torch.stack([torch.full_like(like, factor) for factor in row]) for row in factors]
            linear = linear * torch.stack(rows)
        moved = c + t - (linear @ c.unsqueeze(-1)).squeeze(-1)
    return torch.cat([linear, moved.unsqueeze(-1)], dim=-1)


def _vector(name: str, value: Number, length: int, like: Tensor, *, scalar: bool = False) -> Tensor:
    """Return (.., length) from a number, from a tensor of this shape, or (`scalar`) from one without the last axis."""
    if not isinstance(value, Tensor):
        return torch.full_like(like, value).expand(length)
    value = value.unsqueeze(-1) if scalar else value
    if not scalar:
        _check.points(name, value, length)
    return value.to(like.dtype)


def _shear(shear: Tensor) -> Tensor:  # (.., 1) or (.., 3)
    """Return a matrix with ones on the diagonal and the numbers above it, row by row."""
    d = 2 if shear.shape[-1] == 1 else 3
    numbers, one, zero = iter(shear.unbind(dim=-1)), torch.ones_like(shear[..., 0]), torch.zeros_like(shear[..., 0])
    rows = [[one if i == j else (next(numbers) if j > i else zero) for j in range(d)] for i in range(d)]
    return torch.stack([torch.stack(row, dim=-1) for row in rows], dim=-2)
