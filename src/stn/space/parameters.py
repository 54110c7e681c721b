"""ITK's transforms that are one matrix: from their parameters to it, in millimeters.

All but a translation are x' = A (x - c) + c + t, with the center c among the fixed parameters.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

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
    if (name, d) not in LINEAR:
        known = ", ".join(sorted({name for name, _ in LINEAR}))
        _check.fail(f"the transform must be one of {known} in 2-D or 3-D; got {kind}")
    count, build = LINEAR[name, d]
    centered = name not in ("TranslationTransform", "IdentityTransform")
    if len(parameters) != count or len(fixed) < d * centered:
        _check.fail(f"{kind} must have {count} parameters and a center; got {len(parameters)} and {len(fixed)}")
    linear, shift = build(list(parameters), list(fixed))
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


Build = Callable[[list[float], list[float]], tuple[Tensor, list[float]]]  # -> the linear part, and t
LINEAR: dict[tuple[str, int], tuple[int, Build]] = {  # (name, d) -> number of parameters
    ("Euler2DTransform", 2): (3, lambda p, f: (turn(p[0]), p[1:])),
    ("Similarity2DTransform", 2): (4, lambda p, f: (p[0] * turn(p[1]), p[2:])),
    ("Euler3DTransform", 3): (6, lambda p, f: (euler(p[:3], len(f) > 3 and f[3] != 0), p[3:])),
    ("VersorRigid3DTransform", 3): (6, lambda p, f: (versor(p[:3]), p[3:])),
    ("Similarity3DTransform", 3): (7, lambda p, f: (p[6] * versor(p[:3]), p[3:6])),
    ("VersorTransform", 3): (3, lambda p, f: (versor(p), [0.0] * 3)),
}
for _d in (2, 3):
    _affine: Build = lambda p, f, d=_d: (square(p[: d * d], d), p[d * d :])  # type: ignore[misc]  # noqa: E731
    LINEAR["AffineTransform", _d] = LINEAR["MatrixOffsetTransformBase", _d] = (_d * _d + _d, _affine)
    LINEAR["TranslationTransform", _d] = (_d, lambda p, f: (eye(len(p)), p))
    LINEAR["ScaleTransform", _d] = (
        _d,
        lambda p, f: (torch.diag(torch.tensor(p, dtype=DOUBLE, device="cpu")), [0.0] * len(p)),
    )
    LINEAR["IdentityTransform", _d] = (0, lambda p, f, d=_d: (eye(d), [0.0] * d))  # type: ignore[misc]
