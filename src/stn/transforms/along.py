"""What moves along with an image: its mask, its points and its boxes, in pixels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from stn import _check
from stn.grid import normalized_to_pixel, pixel_to_normalized
from stn.ops.context import coordinate_dtype, unrounded
from stn.ops.integers import whole
from stn.ops.options import CallOptions, SamplingOptions
from stn.transforms.batches import over_batch
from stn.transforms.cramer import determinant
from stn.transforms.outlines import (
    NUMBERS,
    Boxes,
    area,
    area_within,
    around,
    corners_within,
    in_format,
    outline,
    parts_of,
    placed,
)
from stn.transforms.search import solution
from stn.transforms.views import Mapped
from stn.transforms.writing import LOST

NEAR, NEAR_PIXELS = 1e-3, 0.01  # distances, in half widths and in pixels, up to which a point counts as solved
OPTIONS = (
    *CallOptions.__annotations__,
    "image",
    "mask",
    "points",
    "boxes",
    "size",
    "in_size",
    "format",
    "clip",
    "mask_fill",
)
PIECES = 16  # points on each edge of a box whose edges a warp bends: of a circle's quarter 0.0012 of its radius is lost


@dataclass(frozen=True)
class Applied:
    """What `Warp.apply` returns. What was not given is None. K is there if the warp has K looks.

    Args:
        image: (N, [K,] C, *size).
        mask: (N, [K,] *size) or (N, [K,] C, *size), in its own dtype.
        points: (N, [K,] P, d), pixels of the output.
        inside: (N, [K,] P), bool: whether a point lies on the output. A point that no output point maps to does not.
        boxes: (N, [K,] B, 4), or 5 numbers with an angle, in the format that was given. A box across the horizon of a
            homography has none, and is zeros.
        visible: (N, [K,] B): the share of the area of each moved box that lies on the output, 0 to 1.

    Example:
        >>> warp = stn.Translation()(torch.tensor([[0.5, 0.0]]))  # reads 8 of 32 pixels further right
        >>> out = warp.apply(boxes=torch.tensor([[[4.0, 4.0, 16.0, 8.0]]]), size=(32, 32), clip=True)
        >>> out.boxes, out.visible
        (tensor([[[0., 4., 8., 8.]]]), tensor([[0.6667]]))
    """

    image: Tensor | None = None
    mask: Tensor | None = None
    points: Tensor | None = None
    inside: Tensor | None = None
    boxes: Tensor | None = None
    visible: Tensor | None = None


def apply(
    warp: Mapped,
    inputs: dict[str, Tensor | None],  # image, mask, points, boxes
    size: int | Sequence[int] | None,
    in_size: int | Sequence[int] | None,
    format: str,
    clip: bool,
    mask_fill: float,
    options: CallOptions,
) -> Applied:
    """Carry out `Warp.apply`."""
    image, mask, points, boxes = (inputs[name] for name in ("image", "mask", "points", "boxes"))
    _check.given(inputs)
    _check.unknown("options", options, OPTIONS)
    taken, out = _sizes(warp.ndim, image, mask, size, in_size)
    frame = (taken, out, bool(options.get("align_corners", False)))
    found: dict[str, Any] = {}
    if image is not None:
        found["image"] = warp.sample(image, out, **options)
    if mask is not None:
        found["mask"] = sample_mask(warp, mask, out, mask_fill, of_labels(options))
    if points is not None:
        _check.each_image("points", points, warp.ndim, warp.batch)
        moved, solved = moved_points(warp, _per_look(warp, points), *frame)
        found["points"], found["inside"] = moved.to(points.dtype), solved & _on_image(moved, out)
    if boxes is not None:
        _check.choice("format", format, NUMBERS)
        _check.plane_boxes(warp.ndim)
        _check.each_image("boxes", boxes, NUMBERS[format][0], warp.batch)
        found["boxes"], found["visible"] = moved_boxes(warp, _per_look(warp, boxes), frame, format, clip)
    return Applied(**found)


def _sizes(
    ndim: int,
    image: Tensor | None,
    mask: Tensor | None,
    size: int | Sequence[int] | None,
    in_size: int | Sequence[int] | None,
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the size of the input and of the output."""
    known: dict[str, tuple[int, ...]] = {}
    if image is not None:
        _check.image("image", image)
        known["image"] = tuple(image.shape[2:])
    if mask is not None:
        _check.mask("mask", mask, ndim)
        known["mask"] = tuple(mask.shape[-ndim:])
    if in_size is not None:
        known["in_size"] = _check.lengths("in_size", in_size, ndim)
    out = None if size is None else _check.lengths("size", size, ndim)
    if not known and out is not None:
        known["size"] = out
    taken = _check.same_size(known)
    return taken, taken if out is None else out


def _per_look(warp: Mapped, values: Tensor) -> Tensor:
    """Bring points of each image to (N, 1, P, ..) for looks, and points of all to (1, [1,] P, ..)."""
    values = values if values.ndim == 3 else values.unsqueeze(0)
    return values.unsqueeze(1) if len(warp.batch) == 2 else values


def _on_image(pixels: Tensor, size: Sequence[int]) -> Tensor:
    """Return whether pixel coordinates lie on an image, up to the outer edges of its outer pixels."""
    extent = pixels.new_tensor(list(reversed(size)))
    return ((pixels >= -0.5) & (pixels <= extent - 0.5)).all(dim=-1)


# ---- masks ----


def of_labels(options: CallOptions | SamplingOptions) -> SamplingOptions:
    """Return the options that hold for labels too."""
    found: SamplingOptions = {}
    if "padding_mode" in options:
        found["padding_mode"] = options["padding_mode"]
    if "align_corners" in options:
        found["align_corners"] = options["align_corners"]
    return found


def sample_mask(warp: Mapped, mask: Tensor, size: tuple[int, ...], fill: float, options: SamplingOptions) -> Tensor:
    """Sample labels: the nearest pixel, in the dtype of the mask."""
    flat = mask.ndim == warp.ndim + 1
    values = whole(mask.unsqueeze(1) if flat else mask)
    given: SamplingOptions = {"mode": "nearest", **options}
    if fill:
        given["fill_value"] = fill
    sampled = warp.sample(values, size, **given)
    assert isinstance(sampled, Tensor)
    found = sampled.to(mask.dtype)
    return found.squeeze(len(warp.batch)) if flat else found


# ---- points ----


def moved_points(
    warp: Mapped, points: Tensor, in_size: Sequence[int], out_size: Sequence[int], align_corners: bool
) -> tuple[Tensor, Tensor]:
    """Return where points of the image are in the output, in pixels, and whether they are anywhere."""
    y = pixel_to_normalized(points.to(coordinate_dtype(points.device)), in_size, align_corners=align_corners)
    x, bends = found_points(warp, y)
    if not bends:
        known = x.isfinite().all(dim=-1)
        return normalized_to_pixel(x, out_size, align_corners=align_corners), known
    back = normalized_to_pixel(warp.points(x.detach()), in_size, align_corners=align_corners)
    solved = (back - points).norm(dim=-1) <= LOST
    return normalized_to_pixel(x, out_size, align_corners=align_corners), solved


def found_points(warp: Mapped, y: Tensor) -> tuple[Tensor, bool]:
    """Return the points that the warp takes nearest to y, as `points` takes them, and whether it bends lines.

    The inverse of a flow is another flow, exact to its steps, and that of a composition may take a branch that ends. The
    search begins there, and returns nothing worse.
    """
    inverse = warp.inverse()
    x = inverse.points(y)
    if not inverse._bends or inverse._is_search or x.numel() == 0:
        return x, inverse._bends
    lead = x.shape[: len(warp.batch)]
    wide = warp._broadcast(lead)
    flat = [part.expand_as(x).reshape(*lead, -1, warp.ndim) for part in (_after_batch(y, x.ndim, len(lead)), x)]
    with unrounded(warp.device):
        found = solution(wide, flat[0].to(flat[1].dtype), flat[1].detach())[0]
    return found.reshape(x.shape), True


def _after_batch(y: Tensor, ndim: int, lead: int) -> Tensor:
    """Put the batch before points that have none: (P, d) -> (1, P, d)."""
    return y if y.ndim > 2 else y.reshape(*(1,) * (ndim - y.ndim), *y.shape)


def inverse_points(
    warp: Mapped,
    xy: Tensor,
    pixels: tuple[Sequence[int], Sequence[int]] | None,
    align_corners: bool,
    tolerance: float | None,
) -> tuple[Tensor, Tensor]:
    """Carry out `Warp.inverse_points`."""
    _check.points("xy", xy, warp.ndim)
    if tolerance is not None:
        _check.positive("tolerance", tolerance)
    if pixels is None:
        x = found_points(warp, xy)[0]
        return x, _near(warp.points(x.detach()), xy, NEAR if tolerance is None else tolerance)
    in_size, out_size = _check.two_sizes("pixels", pixels, warp.ndim)
    y = pixel_to_normalized(xy.to(coordinate_dtype(xy.device)), in_size, align_corners=align_corners)
    x = found_points(warp, y)[0]
    back = normalized_to_pixel(warp.points(x.detach()), in_size, align_corners=align_corners)
    found = _near(back, xy, NEAR_PIXELS if tolerance is None else tolerance)
    return normalized_to_pixel(x, out_size, align_corners=align_corners).to(xy.dtype), found


def _near(found: Tensor, wanted: Tensor, tolerance: float) -> Tensor:
    """Return whether points are as near as this. Infinite ones are not."""
    return (found - wanted.detach()).norm(dim=-1) <= tolerance


# ---- boxes ----

Frame = tuple[tuple[int, ...], tuple[int, ...], bool]


def moved_boxes(warp: Mapped, boxes: Tensor, frame: Frame, format: str, clip: bool) -> tuple[Tensor, Tensor]:
    """Return the boxes around the moved outlines, and the share of these on the output."""
    center, sides, turned = parts_of(boxes.to(coordinate_dtype(boxes.device)), format)
    given = Boxes(center, sides, torch.zeros_like(center[..., 0]) if turned is None else turned)
    ends = center.new_tensor([[-1.0, 0.0], [1.0, 0.0]])  # the middles of the left and the right edge
    every = torch.cat([outline(given, PIECES if warp._bends else 1), placed(given, ends)], dim=-2)
    every = moved_points(warp, (every - 0.5).flatten(-3, -2), *frame)[0].unflatten(-2, every.shape[-3:-1]) + 0.5
    finite = every.isfinite().all(dim=-1).all(dim=-1) & _on_one_side(warp, every, frame)
    every = torch.where(finite[..., None, None], every, 0)
    polygon, (left, right) = every[..., :-2, :], every[..., -2:, :].unbind(dim=-2)
    across = right - left
    angle = torch.zeros_like(across[..., 0]) if turned is None else torch.atan2(across[..., 1], across[..., 0])
    height, width = map(float, frame[1])
    whole = area(polygon)
    share = area_within(polygon, width, height) / torch.where(whole == 0, 1, whole)
    visible = torch.where(finite & (whole != 0), share.clamp(0, 1), 0)
    found = around(polygon, angle, None) if not clip else around(*_within(polygon, angle, width, height))
    return in_format(found, format).to(boxes.dtype), visible.to(boxes.dtype)


def _on_one_side(warp: Mapped, moved: Tensor, frame: Frame) -> Tensor:  # (*batch, B, Q, 2) -> (*batch, B)
    """Return whether a homography keeps the whole outline on one side of its horizon: its Jacobian changes sign there."""
    if warp._bends:
        return moved.new_ones(moved.shape[:-2], dtype=torch.bool)
    x = pixel_to_normalized(moved - 0.5, frame[1], align_corners=frame[2]).flatten(-3, -2)
    signs = determinant(over_batch(warp, warp._jacobian, x)).sign().unflatten(-1, moved.shape[-3:-1])
    return (signs == signs[..., :1]).all(dim=-1)


def _within(polygon: Tensor, angle: Tensor, width: float, height: float) -> tuple[Tensor, Tensor, Tensor]:
    points, known = corners_within(polygon, width, height)
    return points, angle, known
