"""Warps from boxes and from corners, in pixels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import overload

import torch
from torch import Tensor

from stn import _check
from stn.grid import half_extent, pixel_to_normalized
from stn.ops.context import coordinate_dtype, readable, unrounded
from stn.transforms.homographies import corners_to_matrix
from stn.transforms.indexed import IndexedWarp
from stn.transforms.matrix import MatrixWarp
from stn.transforms.outlines import NUMBERS, Format, parts_of
from stn.transforms.rotations import rotation


@overload
def from_boxes(
    boxes: Tensor,
    in_size: int | Sequence[int],
    *,
    format: Format = "xyxy",
    index: None = None,
    align_corners: bool = False,
) -> MatrixWarp: ...
@overload
def from_boxes(
    boxes: Tensor, in_size: int | Sequence[int], *, format: Format = "xyxy", index: Tensor, align_corners: bool = False
) -> IndexedWarp: ...
def from_boxes(
    boxes: Tensor,  # (4,), (N, 4) or (N, K, 4); or (M, 4) with index (M,)
    in_size: int | Sequence[int],
    *,
    format: Format = "xyxy",
    index: Tensor | None = None,
    align_corners: bool = False,
) -> MatrixWarp | IndexedWarp:
    """Make the warp whose looks are these boxes of an image, in pixels.

    Coordinates of boxes run from 0 at the left edge of the first pixel to W at the right edge of the last, as in
    torchvision, so (0, 0, W, H) is the whole image. The look equals `roi_align(aligned=True)` with one sample in each
    bin, in the interior of the image.

    Args:
        boxes: (4,), (N, 4): one box for each image, or (N, K, 4): K boxes. Volumes have 6 numbers, a box with an angle 5.
        in_size: Size of the image, (H, W) or (D, H, W), or one length for all axes.
        format: "xyxy": (x1, y1, x2, y2), in volumes (x1, y1, z1, x2, y2, z2). "xywh": the corner (x1, y1), width and
            height, as in COCO. "cxcywh": center, width and height. "cxcywha": also the angle in radians by which the box is
            turned, from the x axis towards the y axis.
            A box of negative width or height is a mirrored look; a warning says so where the values can be read.
        index: (M,) integers, for boxes (M, 4): the image of each box. `sample` then takes N images and returns
            (M, C, *size). None: boxes have the batch of the images.
        align_corners: Whether the edges of a box lie on the centers of the look's outer pixels (True) or on their outer
            edges (False). Sample with the same.

    Raises:
        InputError: An argument has a wrong shape or value. TypeError: a wrong type.

    Example:
        >>> image = torch.arange(64.0).view(1, 1, 8, 8)
        >>> stn.from_boxes(torch.tensor([[2.0, 1.0, 4.0, 3.0]]), (8, 8)).sample(image, 2)[0, 0]
        tensor([[10., 11.],
                [18., 19.]])
    """
    _check.choice("format", format, NUMBERS)
    _check.boxes("boxes", boxes, NUMBERS[format], format, flat=index is not None)
    size = _check.lengths("in_size", in_size, boxes.shape[-1] // 2)
    if index is not None:
        _check.image_index("index", index, len(boxes))
    given = boxes.to(coordinate_dtype(boxes.device))
    center, sides, angle = parts_of(given if boxes.ndim > 1 else given.unsqueeze(0), format)
    if not boxes.requires_grad and readable(boxes):
        _check.sides_not_negative("boxes", sides.detach(), format)
        _check.in_pixels("boxes", boxes if angle is None else boxes[..., :-1])
        if angle is not None:
            _check.radians("the angle of boxes", angle)
    half = [half_extent(n, align_corners) or 0.5 for n in reversed(size)]
    extent = given.new_tensor(half) * 2
    origin = pixel_to_normalized(center - 0.5, size, align_corners=align_corners)
    with unrounded(boxes.device):
        linear = torch.diag_embed(sides) if angle is None else rotation(angle.unsqueeze(-1)) * sides.unsqueeze(-2)
        matrix = torch.cat([linear / extent.unsqueeze(-1), origin.unsqueeze(-1)], dim=-1)
    warp = MatrixWarp(matrix.to(boxes.dtype))
    return warp if index is None else IndexedWarp(warp, index.to(boxes.device))


def from_corners(
    points: Tensor,  # (4, 2), (N, 4, 2) or (N, K, 4, 2), pixels
    in_size: int | Sequence[int],
    *,
    align_corners: bool = False,
) -> MatrixWarp:
    """Make the homography whose look is a quadrilateral of the image, such as a page or a plate.

    Args:
        points: Corners (4, 2), (N, 4, 2) or (N, K, 4, 2), in pixels, 0 at the center of the first: the points of the
            image that become the top left, top right, bottom right and bottom left corner of the look. They lie on the
            outer edges of its outer pixels, or with `align_corners=True` on their centers.
        in_size: Size of the image (H, W), or one length for both axes.
        align_corners: Whether -1 and 1 are the centers of the outer pixels (True) or their outer edges (False).

    Raises:
        InputError: An argument has a wrong shape or value. TypeError: points is not a floating-point tensor.

    Example:
        >>> plate = torch.tensor([[20.0, 30.0], [80.0, 20.0], [82.0, 45.0], [19.0, 52.0]])
        >>> look = stn.from_corners(plate, (96, 128))
        >>> look.sample(torch.rand(1, 3, 96, 128), (32, 96)).shape
        torch.Size([1, 3, 32, 96])
        >>> look.points(torch.tensor([-0.5, -0.5]), pixels=((96, 128), (32, 96))).round(decimals=3)  # top left
        tensor([[20., 30.]])
    """
    _check.four_corners("points", points)
    if not points.requires_grad and readable(points):
        _check.in_pixels("points", points)
    size = _check.lengths("in_size", in_size, 2)
    given = points.to(coordinate_dtype(points.device))
    given = given if points.ndim > 2 else given.unsqueeze(0)
    matrix = corners_to_matrix(pixel_to_normalized(given, size, align_corners=align_corners))
    return MatrixWarp(matrix.to(points.dtype))
