"""Checks of points that go together: pairs to fit, corners, boxes, and sizes given as a pair."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any, NoReturn

import torch
from torch import Tensor

from stn._check.errors import AXES, fail, samples, shown
from stn._check.tensors import floating
from stn._check.values import integers, lengths


def two_sizes(name: str, value: Any, ndim: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Check (in_size, out_size). Each must be written out: (480, 640) would otherwise be two square sizes."""
    both = isinstance(value, tuple | list) and len(value) == 2 and all(integers(size) is not None for size in value)
    if not both:
        fail(
            f"{name} must be (in_size, out_size), the size ({AXES[ndim]}) of the image and of the output; got {shown(value)}"
        )
    return lengths(f"{name}[0]", value[0], ndim), lengths(f"{name}[1]", value[1], ndim)


def point_pairs(points: Any, targets: Any, weights: Any, ndim: int) -> tuple[int, ...]:
    """Check points and targets (P, d), (N, P, d) or (N, K, P, d) that broadcast, and weights. Returns the batch."""
    for name, value in (("points", points), ("targets", targets)):
        floating(name, value)
        if value.ndim not in (2, 3, 4) or value.shape[-1] != ndim:
            fail(f"{name} must be (P, {ndim}), (N, P, {ndim}) or (N, K, P, {ndim}); got {tuple(value.shape)}")
        if value.device != points.device:
            fail(f"{name} must be on {points.device}, the device of points; got {value.device}")
    if points.shape[-2] != targets.shape[-2]:
        got = f"{points.shape[-2]} and {targets.shape[-2]}"
        fail(f"points and targets must be as many, one target for each point; got {got}")
    shapes = [points.shape[:-2], targets.shape[:-2]]
    if weights is not None:
        floating("weights", weights)
        if weights.ndim not in (1, 2, 3) or weights.shape[-1] != points.shape[-2]:
            count = points.shape[-2]
            fail(f"weights must be ({count},), (N, {count}) or (N, K, {count}), one per point; got {tuple(weights.shape)}")
        if weights.device != points.device:
            fail(f"weights must be on {points.device}, the device of points; got {weights.device}")
        shapes.append(weights.shape[:-1])
    return joint([*shapes, torch.Size((1,))], "points, targets and weights")


def joint(shapes: Sequence[torch.Size], names: str) -> tuple[int, ...]:
    try:
        return tuple(torch.broadcast_shapes(*(_padded(shape, max(map(len, shapes))) for shape in shapes)))
    except RuntimeError:
        fail(f"{names} must have the same batch, or a batch of 1; got {', '.join(str(tuple(s)) for s in shapes[:-1])}")


def _padded(shape: torch.Size, length: int) -> tuple[int, ...]:
    """Return a batch with ones for missing looks: (N,) -> (N, 1)."""
    return (*shape, *(1,) * (length - len(shape)))


FITTED = (
    *("Translation", "Rigid", "Similarity", "Attention", "AnisotropicScale", "Affine", "Projective", "MovedCorners"),
    "ThinPlateSpline",
)


def no_fit(family: str) -> NoReturn:
    fail(f"the family must be one of {', '.join(FITTED)} for a fit by least squares; got {family}: see stn.register")


def enough_points(count: int, least: int, family: str) -> None:
    if count < least:
        fail(f"points must be at least {least} for {family}; got {count}")


def determined(value: Tensor, family: str) -> None:
    """Check flags per sample. This reads values."""
    if not value.all():
        fail(
            f"points and targets must determine the {family}; they coincide, lie on one line or have no weight "
            f"at sample {samples(~value)} of {tuple(value.shape)}"
        )


def four_corners(name: str, value: Any) -> None:
    """Check four points (4, 2), (N, 4, 2) or (N, K, 4, 2)."""
    floating(name, value)
    if value.ndim not in (2, 3, 4) or value.shape[-2:] != (4, 2):
        fail(f"{name} must be (4, 2), (N, 4, 2) or (N, K, 4, 2); got {tuple(value.shape)}")


def boxes(name: str, value: Any, numbers: Sequence[int], format: str, *, flat: bool) -> None:
    """Check boxes (n,), (N, n) or (N, K, n) of n numbers; a flat list is (M, n)."""
    floating(name, value)
    if value.ndim not in ((2,) if flat else (1, 2, 3)) or value.shape[-1] not in numbers:
        n = " or ".join(map(str, numbers))
        shapes = "(M, n) with an index" if flat else "(n,), (N, n) or (N, K, n)"
        fail(f"{name} must be {shapes}, n = {n} for format={format!r}; got {tuple(value.shape)}")


def sides_not_negative(name: str, sides: Tensor, format: str) -> None:
    """Warn of boxes whose look is mirrored, such as (x1, y1, width, height) given as corners. This reads values."""
    if (negative := (sides < 0).any(dim=-1)).any():
        order = "first corner, second corner" if format == "xyxy" else "center, width, height, positive"
        order = "first corner, width, height, positive" if format == "xywh" else order
        where = f"of negative width or height, whose looks are mirrored, at {samples(negative)}"
        warnings.warn(f"{name} has boxes {where}; format={format!r} is {order}", stacklevel=3)


def image_index(name: str, value: Any, count: int) -> None:
    """Check the index of the image of each of a flat list of boxes: integers (M,)."""
    if not isinstance(value, Tensor) or value.is_floating_point() or value.is_complex() or value.dtype == torch.bool:
        got = value.dtype if isinstance(value, Tensor) else type(value).__name__
        raise TypeError(f"{name} must be a tensor of integers; got {got}")
    if value.shape != (count,):
        fail(f"{name} must be (M,) = ({count},), one image for each box; got {tuple(value.shape)}")


def indexed_images(index: Tensor, count: int) -> None:
    """Check that an index names images of a batch of this size. This reads values."""
    if index.numel() and (int(index.min()) < 0 or int(index.max()) >= count):
        fail(f"index must be of N = {count} images, 0 to {count - 1}; got {int(index.min())} to {int(index.max())}")
