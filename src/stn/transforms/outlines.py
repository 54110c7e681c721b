"""Outlines of boxes: polygons (.., P, 2) in pixels, 0 at the left and the upper edge of an image.

A warp bends the edges of a box, so a box moves as a polygon. What is left of it on an image of width W and height H, and
the box around that, follow from the polygon in closed form.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor

from stn.transforms.rotations import rotation

Format = Literal["xyxy", "xywh", "cxcywh", "cxcywha"]
NUMBERS = {"xyxy": (4, 6), "xywh": (4, 6), "cxcywh": (4, 6), "cxcywha": (5,)}  # of a box in two and three dimensions


class Boxes(NamedTuple):
    """Boxes around points: (.., 2), (.., 2), (..)."""

    center: Tensor
    sides: Tensor
    angle: Tensor


def parts_of(boxes: Tensor, format: str) -> tuple[Tensor, Tensor, Tensor | None]:
    """Return the center (.., d), the sides (.., d) and the angle (..) of boxes; None for an upright format."""
    if format == "cxcywha":
        return boxes[..., :2], boxes[..., 2:4], boxes[..., 4]
    first, second = boxes.chunk(2, dim=-1)
    if format == "xyxy":
        return (first + second) / 2, second - first, None
    return (first + second / 2, second, None) if format == "xywh" else (first, second, None)


def in_format(boxes: Boxes, format: str) -> Tensor:
    if format == "xyxy":
        return torch.cat([boxes.center - boxes.sides / 2, boxes.center + boxes.sides / 2], dim=-1)
    if format == "xywh":
        return torch.cat([boxes.center - boxes.sides / 2, boxes.sides], dim=-1)
    angle = [boxes.angle.unsqueeze(-1)] if format == "cxcywha" else []
    return torch.cat([boxes.center, boxes.sides, *angle], dim=-1)


def outline(boxes: Boxes, pieces: int) -> Tensor:  # (.., 4 * pieces, 2)
    """Return points around a box from its top left corner, clockwise, with so many on each edge."""
    t = torch.arange(pieces, dtype=boxes.center.dtype, device=boxes.center.device) / pieces * 2 - 1
    one = torch.ones_like(t)
    edges = [(t, -one), (one, t), (-t, one), (-one, -t)]
    unit = torch.cat([torch.stack(edge, dim=-1) for edge in edges])  # around [-1, 1]^2
    return placed(boxes, unit)


def placed(boxes: Boxes, unit: Tensor) -> Tensor:  # (P, 2) of [-1, 1]^2 -> (.., P, 2)
    """Return points of a box by their place in it."""
    return (unit * boxes.sides.unsqueeze(-2) / 2) @ rotation(boxes.angle.unsqueeze(-1)).mT + boxes.center.unsqueeze(-2)


def around(points: Tensor, angle: Tensor, known: Tensor | None = None) -> Boxes:  # (.., P, 2), (..), (.., P)
    """Return the smallest box of this angle around points, or around those that are known. Without any it is empty."""
    turn = rotation(angle.unsqueeze(-1))
    along = points @ turn  # in the axes of the box
    if known is None:
        low, high = along.amin(dim=-2), along.amax(dim=-2)
    else:
        low = torch.where(known.unsqueeze(-1), along, torch.inf).amin(dim=-2)
        high = torch.where(known.unsqueeze(-1), along, -torch.inf).amax(dim=-2)
        none = ~known.any(dim=-1, keepdim=True)
        low, high = torch.where(none, 0, low), torch.where(none, 0, high)
    center = (turn @ ((low + high) / 2).unsqueeze(-1)).squeeze(-1)
    return Boxes(center, high - low, angle)


def area(polygon: Tensor) -> Tensor:  # (.., P, 2) -> (..)
    """Return the area, positive clockwise to the eye: half the sum of x_i y_j - x_j y_i over the edges."""
    (x, y), (u, v) = polygon.unbind(dim=-1), polygon.roll(-1, dims=-2).unbind(dim=-1)
    return (x * v - u * y).sum(dim=-1) / 2


def area_within(polygon: Tensor, width: float, height: float) -> Tensor:
    """Return the area of the part within [0, width] x [0, height]: the integral of clamp(x, 0, width) dy around it.

    That is Green's theorem for the function that is 1 within. An edge is cut where y leaves [0, height]; on the rest x
    is linear, and the mean of clamp(x) is a difference of its integral G.
    """
    (ax, ay), (bx, by) = polygon.unbind(dim=-1), polygon.roll(-1, dims=-2).unbind(dim=-1)
    rise = by - ay
    flat = rise.abs() < 1e-12
    low, high = ay.clamp(0, height), by.clamp(0, height)
    slope = (bx - ax) / torch.where(flat, 1, rise)
    first, last = ax + (low - ay) * slope, ax + (high - ay) * slope
    return torch.where(flat, 0, (high - low) * _mean_of_clamp(first, last, width)).sum(dim=-1)


def _mean_of_clamp(a: Tensor, b: Tensor, width: float) -> Tensor:
    """Return the mean of clamp(x, 0, width) for x from a to b: (G(b) - G(a)) / (b - a), G' = clamp."""

    def integral(x: Tensor) -> Tensor:
        return x.clamp(0, width).square() / 2 + width * (x - width).clamp_min(0)

    near = (b - a).abs() < 1e-7 * width
    quotient = (integral(b) - integral(a)) / torch.where(near, 1, b - a)
    return torch.where(near, ((a + b) / 2).clamp(0, width), quotient)


def corners_within(polygon: Tensor, width: float, height: float) -> tuple[Tensor, Tensor]:
    """Return points (.., Q, 2), and which of them are corners of the part of a polygon within an image: (.., Q).

    They are the corners of the polygon on the image, where its edges cross the lines of the border, and the corners of
    the image in the polygon.
    """
    size = polygon.new_tensor([width, height])
    inside = ((polygon >= 0) & (polygon <= size)).all(dim=-1)
    points, known = [polygon], [inside]
    following = polygon.roll(-1, dims=-2)
    for axis in (0, 1):
        for line in (0.0, float(size[axis])):
            step = following[..., axis] - polygon[..., axis]
            share = (line - polygon[..., axis]) / torch.where(step.abs() < 1e-12, 1, step)
            across = polygon[..., 1 - axis] + share * (following[..., 1 - axis] - polygon[..., 1 - axis])
            along = torch.full_like(across, line)
            points.append(torch.stack([along, across] if axis == 0 else [across, along], dim=-1))
            meets = (step.abs() >= 1e-12) & (share >= 0) & (share <= 1)
            known.append(meets & (across >= 0) & (across <= size[1 - axis]))
    corners = polygon.new_tensor([[0, 0], [width, 0], [width, height], [0, height]])
    points.append(corners.expand(*polygon.shape[:-2], 4, 2))
    known.append(torch.stack([_holds(polygon, corner) for corner in corners], dim=-1))
    return torch.cat(points, dim=-2), torch.cat(known, dim=-1)


def _holds(polygon: Tensor, point: Tensor) -> Tensor:  # (.., P, 2), (2,) -> (..)
    """Return whether a point lies in a polygon: a ray to the right crosses its edges an odd number of times."""
    (ax, ay), (bx, by) = (polygon - point).unbind(dim=-1), (polygon.roll(-1, dims=-2) - point).unbind(dim=-1)
    crosses = (ay > 0) != (by > 0)
    at = ax - ay * (bx - ax) / torch.where(crosses, by - ay, 1)
    return (crosses & (at > 0)).sum(dim=-1) % 2 == 1
