"""Sampling at sets of points, which are no image: `sample_points`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, overload

from torch import Tensor

from stn import _check
from stn.ops.options import CallOptions, shows_options
from stn.ops.rules import Field
from stn.ops.sample import Sampled, sampled

if TYPE_CHECKING:
    from typing_extensions import Unpack

UNITS = ("normalized", "pixel")


@overload
def sample_points(
    image: Tensor,
    points: Tensor,
    *,
    units: str = "normalized",
    return_mask: Literal[False] = False,
    **options: Unpack[CallOptions],
) -> Tensor: ...
@overload
def sample_points(
    image: Tensor,
    points: Tensor,
    *,
    units: str = "normalized",
    return_mask: Literal[True],
    **options: Unpack[CallOptions],
) -> tuple[Tensor, Tensor]: ...
@shows_options
def sample_points(
    image: Tensor,  # (N, C, H, W) or (N, C, D, H, W)
    points: Tensor,  # (P, d) for all, or (N, *shape, d); N = 1 is for all
    *,
    units: str = "normalized",
    return_mask: bool = False,
    **options: Unpack[CallOptions],
) -> Sampled:  # (N, C, P), or (N, C, *shape); with return_mask also the mask, C = 1
    """Sample an image at sets of points (x, y[, z]), such as key points: (N, P, d) -> (N, C, P).

    Points need not form an output image: their shape is free, and P may be 0. They have no footprint, so `antialias` must
    be False.

    Args:
        image: (N, C, H, W) or (N, C, D, H, W).
        points: (P, d) for all images, (N, P, d), or points of any other shape (N, *shape, d). N = 1 is for all.
        units: "normalized", or "pixel": pixels of the image, 0 at the center of the first.
        return_mask: Also return the fraction of the kernel that lay inside the image.
        **options: Interpolation, padding and so on: `help(stn.affine_sample)` lists them.

    Returns:
        (N, C, P), or (N, C, *shape); with return_mask a pair of it and the mask, where C = 1.

    Raises:
        InputError: An argument has a wrong shape or value, which the message names. TypeError: a wrong type.

    Example:
        >>> image = torch.arange(6.0).view(1, 1, 2, 3)
        >>> stn.sample_points(image, torch.tensor([[0.0, 1.0], [1.5, 0.5]]), units="pixel")
        tensor([[[3., 3.]]])
    """
    _check.image("image", image)
    _check.point_sets("points", points, image)
    _check.choice("units", units, UNITS)
    if options.get("antialias", False):
        _check.fail(f"antialias must be False for points, which have no footprint; got {options['antialias']!r}")
    lead, shape = (points.shape[:1], points.shape[1:-1]) if points.ndim > 2 else ((1,), points.shape[:-1])
    d = image.ndim - 2
    row = points.reshape(*lead, *(1,) * (d - 1), math.prod(shape), d)  # a stored grid of one row
    found = sampled(image, Field(units, False), row, return_mask, options)
    if isinstance(found, Tensor):
        return _in_shape(found, shape)
    out, mask = found
    return _in_shape(out, shape), _in_shape(mask, shape)


def _in_shape(row: Tensor, shape: Sequence[int]) -> Tensor:  # (N, C, 1, .., P) -> (N, C, *shape)
    return row.reshape(*row.shape[:2], *shape)
