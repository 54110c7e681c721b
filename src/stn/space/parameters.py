"""ITK's transforms that are one matrix: from their parameters to it, in millimeters.

All but a translation are x' = A (x - c) + c + t, with the center c among the fixed parameters.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from stn import _check

Numbers = Sequence[float]
DOUBLE = torch.float64


def matrix_of(kind: str, parameters: Numbers, fixed: Numbers) -> Tensor:  # (d+1, d+1)
    """Return the matrix of a transform. kind: "AffineTransform_double_3_3" and so on.

    Raises: InputError for another kind, or a wrong number of parameters.
    """
    name, *sides = kind.split("_")
    d = int(sides[-1]) if sides and sides[-1] in ("2", "3") else 0
    if name not in LINEAR or d not in LINEAR[name].dims:
        _check.fail(f"the transform must be one of {', '.join(sorted(LINEAR))} in 2-D or 3-D; got {kind}")
    count, build = LINEAR[name].count(d), LINEAR[name].build
    centered = name not in ("TranslationTransform", "IdentityTransform")
    if len(parameters) != count or len(fixed) < d * centered:
        _check.fail(f"{kind} must have {count} parameters and a center; got {len(parameters)} and {len(fixed)}")
    linear, shift = build(list(parameters), list(fixed), d)
    center = torch.tensor(fixed[:d] if centered else [0.0] * d, dtype=DOUBLE, device="cpu")
    found = torch.eye(d + 1, dtype=DOUBLE, device="cpu")
    found[:d, :d] = linear
    found[:d, d] = center + torch.tensor(shift, dtype=DOUBLE, device="cpu") - linear @ center
    return found


def square(numbers: Numbers, d: int) -> Tensor:
    return torch.tensor(numbers, dtype=DOUBLE, device="cpu").view(d, d)


def eye(d: int) -> Tensor:
    return torch.eye(d, dtype=DOUBLE, device="cpu")


def turn(angle: float) -> Tensor:  # (2, 2)
    return square([math.cos(angle), -math.sin(angle), math.sin(angle), math.cos(angle)], 2)


def about(axis: int, angle: float) -> Tensor:  # (3, 3)
    found = eye(3)
    i, j = [k for k in range(3) if k != axis]
    sine = math.sin(angle) * (-1 if axis == 1 else 1)
    found[i, i] = found[j, j] = math.cos(angle)
    found[i, j], found[j, i] = -sine, sine
    return found


def euler(angles: Numbers, zyx: bool) -> Tensor:
    x, y, z = (about(axis, angle) for axis, angle in enumerate(angles))
    return z @ y @ x if zyx else z @ x @ y


def versor(vector: Numbers) -> Tensor:
    """The rotation of the unit quaternion whose vector part this is."""
    x, y, z = vector
    w = math.sqrt(max(0.0, 1 - x * x - y * y - z * z))
    rows = [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)]
    rows += [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)]
    return square([*rows, 2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)], 3)


class Linear(NamedTuple):
    """A transform of one matrix."""

    dims: tuple[int, ...]
    count: Callable[[int], int]  # d -> number of parameters
    build: Callable[[list[float], list[float], int], tuple[Tensor, list[float]]]  # (p, fixed, d) -> linear part, and t


AFFINE = Linear((2, 3), lambda d: d * d + d, lambda p, f, d: (square(p[: d * d], d), p[d * d :]))
LINEAR = {
    "AffineTransform": AFFINE,
    "MatrixOffsetTransformBase": AFFINE,
    "TranslationTransform": Linear((2, 3), lambda d: d, lambda p, f, d: (eye(d), p)),
    "IdentityTransform": Linear((2, 3), lambda d: 0, lambda p, f, d: (eye(d), [0.0] * d)),
    "ScaleTransform": Linear(
        (2, 3), lambda d: d, lambda p, f, d: (eye(d) * torch.tensor(p, dtype=DOUBLE, device="cpu"), [0.0] * d)
    ),
    "Euler2DTransform": Linear((2,), lambda d: 3, lambda p, f, d: (turn(p[0]), p[1:])),
    "Similarity2DTransform": Linear((2,), lambda d: 4, lambda p, f, d: (p[0] * turn(p[1]), p[2:])),
    "Euler3DTransform": Linear((3,), lambda d: 6, lambda p, f, d: (euler(p[:3], len(f) > 3 and f[3] != 0), p[3:])),
    "VersorTransform": Linear((3,), lambda d: 3, lambda p, f, d: (versor(p), [0.0] * d)),
    "VersorRigid3DTransform": Linear((3,), lambda d: 6, lambda p, f, d: (versor(p[:3]), p[3:])),
    "Similarity3DTransform": Linear((3,), lambda d: 7, lambda p, f, d: (p[6] * versor(p[:3]), p[3:6])),
}
