"""One sample without a batch, as data sets give it: pixels, labels, key points and boxes through one warp."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from stn import _check
from stn.ops.options import SamplingOptions
from stn.transforms.along import of_labels
from stn.transforms.warp import Warp

Size = tuple[int, ...]


def warp_pixels(warp: Warp, image: Tensor, size: Size, options: SamplingOptions) -> Tensor:  # (.., C, H, W)
    """Sample an image, or the frames of a video, through one warp. Integers other than uint8 are rounded."""
    flat = image.reshape(1, -1, *image.shape[-2:])
    inexact = flat.is_floating_point() or flat.dtype == torch.uint8
    found = warp.sample(flat if inexact else flat.double(), size, **options)
    found = found if inexact else found.round().to(image.dtype)
    return found.reshape(*image.shape[:-2], *size)


def warp_labels(warp: Warp, mask: Tensor, size: Size, fill: float, options: SamplingOptions) -> Tensor:  # (.., H, W)
    """Sample masks of one image."""
    flat = mask.reshape(1, -1, *mask.shape[-2:])
    found = warp.apply(mask=flat, size=size, mask_fill=fill, **of_labels(options)).mask
    assert found is not None
    return found.reshape(*mask.shape[:-2], *size)


def warp_key_points(warp: Warp, points: Tensor, in_size: Size, size: Size, align_corners: bool) -> Tensor:  # (.., 2)
    """Move points in pixels, 0 at the center of the first. Integers are rounded."""
    flat = points.reshape(1, -1, 2)
    exact = flat if flat.is_floating_point() else flat.double()
    found = warp.apply(points=exact, in_size=in_size, size=size, align_corners=align_corners).points
    assert found is not None
    return _as(found, points).reshape(points.shape)


def warp_boxes(
    warp: Warp, boxes: Tensor, format: str, in_size: Size, size: Size, *, clip: bool, align_corners: bool
) -> Tensor:  # (B, 4), (B, 5) or (B, 8)
    """Move boxes in one of torchvision's formats, with angles in degrees, counterclockwise to the eye."""
    _check.choice("format", format, (*UPRIGHT, *TURNED))
    exact = boxes if boxes.is_floating_point() else boxes.double()
    turned = format in TURNED
    given = to_turned(exact, format) if turned else to_center(exact, format)
    kind = "cxcywha" if turned else "cxcywh"
    found = warp.apply(
        boxes=given.unsqueeze(0),
        in_size=in_size,
        size=size,
        format=kind,  # type: ignore[arg-type]  # one of two literals
        clip=clip,
        align_corners=align_corners,
    ).boxes
    assert found is not None
    return _as((from_turned if turned else from_center)(found[0], format), boxes)


def _as(values: Tensor, like: Tensor) -> Tensor:
    return values.to(like.dtype) if like.is_floating_point() else values.round().to(like.dtype)


UPRIGHT, TURNED = ("XYXY", "XYWH", "CXCYWH"), ("XYWHR", "CXCYWHR", "XYXYXYXY")


def to_center(boxes: Tensor, format: str) -> Tensor:
    """Return boxes as center, width and height."""
    first, second = boxes.chunk(2, dim=-1)
    if format == "XYXY":
        return torch.cat([(first + second) / 2, second - first], dim=-1)
    return torch.cat([first + second / 2, second], dim=-1) if format == "XYWH" else boxes


def from_center(boxes: Tensor, format: str) -> Tensor:
    center, sides = boxes.chunk(2, dim=-1)
    if format == "CXCYWH":
        return boxes
    return torch.cat([center - sides / 2, center + sides / 2 if format == "XYXY" else sides], dim=-1)


def to_turned(boxes: Tensor, format: str) -> Tensor:
    """Return boxes as center, width, height and angle in radians, from the x axis towards the y axis."""
    if format == "XYXYXYXY":  # top left, top right, bottom right, bottom left
        corners = boxes.unflatten(-1, (4, 2))
        along, down = corners[..., 1, :] - corners[..., 0, :], corners[..., 3, :] - corners[..., 0, :]
        sides = torch.stack([along.norm(dim=-1), down.norm(dim=-1)], dim=-1)
        return torch.cat([corners.mean(dim=-2), sides, torch.atan2(along[..., 1:], along[..., :1])], dim=-1)
    place, sides, angle = boxes[..., :2], boxes[..., 2:4], -boxes[..., 4:] * (math.pi / 180)
    if format == "XYWHR":  # of the top left corner
        place = place + _half_diagonal(sides, angle)
    return torch.cat([place, sides, angle], dim=-1)


def from_turned(boxes: Tensor, format: str) -> Tensor:
    center, sides, angle = boxes[..., :2], boxes[..., 2:4], boxes[..., 4:]
    if format == "XYXYXYXY":
        signs: Sequence[tuple[int, int]] = ((-1, -1), (1, -1), (1, 1), (-1, 1))
        return torch.cat([center + _half_diagonal(sides * sides.new_tensor(sign), angle) for sign in signs], dim=-1)
    place = center - _half_diagonal(sides, angle) if format == "XYWHR" else center
    return torch.cat([place, sides, -angle * (180 / math.pi)], dim=-1)


def _half_diagonal(sides: Tensor, angle: Tensor) -> Tensor:  # (.., 2), (.., 1) -> (.., 2)
    """Return the step from the center of a box to its bottom right corner."""
    (w, h), cos, sin = (sides / 2).unbind(dim=-1), angle[..., 0].cos(), angle[..., 0].sin()
    return torch.stack([w * cos - h * sin, w * sin + h * cos], dim=-1)
