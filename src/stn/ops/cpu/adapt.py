"""From an operator's coordinates to a kernel's numbers, and from a kernel's sums to the operator's gradient.

Kernels work in pixels and in float64, so each rule's numbers are scaled here, by the formulas of the reference.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from stn.grid import half_extent
from stn.ops.cpu.rules import GROUP_OF_KNOTS, Affine, Basis, Field, Projective
from stn.ops.devices import plain

Coordinates = Affine | Projective | Field | Basis


class Scale(NamedTuple):
    matrix: Any  # (rows, d+1): what the entries of a matrix are multiplied by
    centre: Any  # (3,): the centre of the image, in pixels
    step: Any  # (d,): normalised units between the pixels of the output


@lru_cache(maxsize=256)
def scale(in_size: tuple[int, ...], out_size: tuple[int, ...], rows: int, align_corners: bool) -> Scale:
    d = len(in_size)
    h = [half_extent(n, align_corners) for n in reversed(in_size)] + [1.0] * (rows - d)
    g = [half_extent(n, align_corners) or 1.0 for n in reversed(out_size)]
    centre = np.zeros(3)
    centre[:d] = [(n - 1) / 2 for n in reversed(in_size)]
    matrix = np.array([[h[i] / g[j] for j in range(d)] + [h[i]] for i in range(rows)])
    return Scale(matrix, centre, 1 / np.array(g))


def shifted(where: Coordinates, margin: int) -> Coordinates:
    """The same places in an image with so many more pixels on each side."""
    if margin == 0:
        return where
    if isinstance(where, Field):
        return where._replace(axes=where.axes + np.array([0, 0, margin]))
    return where._replace(centre=where.centre + margin)


def numbers(tensor: Tensor) -> Any:
    """Flat over looks, in float64."""
    tensor = plain(tensor)
    tensor = tensor.float() if tensor.dtype == torch.bfloat16 else tensor
    return tensor.flatten(0, 1).numpy().astype(np.float64)


def from_matrix(matrix: Tensor, by: Scale) -> Affine | Projective:  # matrix: (N, K, rows, d+1)
    rows, d = matrix.shape[-2], matrix.shape[-1] - 1
    scaled = numbers(matrix) * by.matrix
    coef = np.zeros((len(scaled), 4, 4))
    coef[:, :d, :d], coef[:, :d, 3] = scaled[:, :d, :d], scaled[:, :d, d]
    if rows > d:
        coef[:, 3, :d], coef[:, 3, 3] = scaled[:, d, :d], scaled[:, d, d]
    return (Projective if rows > d else Affine)(coef, by.centre)


def matrix_gradient(sums: Any, by: Scale) -> Any:
    """(N * K, 4, 4) -> (N * K, rows, d+1)."""
    rows, d = by.matrix.shape[0], by.matrix.shape[1] - 1
    places = [*range(d), 3]
    return sums[:, places[:rows]][:, :, places] * by.matrix


def from_basis(coefficients: Tensor, knots: Tensor, by: Scale) -> Basis:  # (N, K, T+3, 2), (T, 2)
    """x' = x + (U_1 .. U_T, 1, x, y) w: the bends come first, then a matrix."""
    count, w = len(knots), numbers(coefficients)
    coef = np.zeros((len(w), 4, 4))
    coef[:, :2, :2] = (np.eye(2) + w[:, count + 1 :].swapaxes(1, 2)) * by.matrix[:, :2]
    coef[:, :2, 3] = w[:, count] * by.matrix[:, 2]
    padded = -(-count // GROUP_OF_KNOTS) * GROUP_OF_KNOTS  # with knots that bend nothing
    bend, at = np.zeros((len(w), 2, padded)), np.zeros((padded, 2))
    bend[:, :, :count] = (w[:, :count] * by.matrix[:, 2]).swapaxes(1, 2)
    at[:count] = plain(knots).cpu().double().numpy()
    return Basis(coef, by.centre, bend, at, by.step)


def basis_gradient(sums: Any, bends: Any, count: int, by: Scale) -> Any:
    """(N * K, 4, 4) and (N * K, 2, T or more) -> (N * K, T+3, 2)."""
    bent, moved = bends[:, :, :count].swapaxes(1, 2) * by.matrix[:, 2], sums[:, None, :2, 3] * by.matrix[:, 2]
    return np.concatenate([bent, moved, (sums[:, :2, :2] * by.matrix[:, :2]).swapaxes(1, 2)], axis=1)


def from_field(field: Tensor, in_size: Sequence[int], align_corners: bool, units: str, relative: bool) -> Field:
    """The numbers of the reference's `field_coordinates`: p = scale f + step u + shift on each axis."""
    d = len(in_size)
    out_size = field.shape[-d - 1 : -1]
    axes = np.zeros((3, 3))
    for i, (n, m) in enumerate(zip(reversed(in_size), reversed(out_size), strict=True)):
        h, g = half_extent(n, align_corners), half_extent(m, align_corners) or 1.0
        axes[i, 0] = 1.0 if units == "pixel" else h
        axes[i, 1] = h / g if relative else 0.0
        axes[i, 2] = 0.0 if units == "pixel" and not relative else (n - 1) / 2
    values = plain(field)
    values = values if values.dtype in (torch.float32, torch.float64) else values.float()
    return Field(values.reshape(-1, int(np.prod(out_size)), d).contiguous().numpy(), axes)
