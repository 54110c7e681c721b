"""`stn warp`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import torch
import tyro
from torch import Tensor
from tyro.conf import Positional

from stn import _check
from stn.cli.options import MaxPixels, one_of
from stn.io.images import MAX_PIXELS, Source
from stn.ops.interpolation import INTERPOLATIONS
from stn.ops.padding import PADDINGS

Four = tuple[float, float, float, float, float, float, float, float]


def warp(
    image: Annotated[Positional[Path], tyro.conf.arg(metavar="IMAGE")],
    out: Annotated[Positional[Path], tyro.conf.arg(metavar="OUT")],
    rotate: float = 0.0,
    scale: float = 1.0,
    translate: tuple[float, float] = (0.0, 0.0),
    shear: float = 0.0,
    corners: Annotated[Four | None, tyro.conf.arg(metavar="X Y X Y X Y X Y", help_behavior_hint="")] = None,
    size: Annotated[tuple[int, int] | None, tyro.conf.arg(metavar="H W", help_behavior_hint="(default: unchanged)")] = None,
    mode: Annotated[str, tyro.conf.arg(metavar=one_of(INTERPOLATIONS))] = "bilinear",
    padding_mode: Annotated[str, tyro.conf.arg(metavar=one_of(PADDINGS))] = "zeros",
    max_pixels: MaxPixels = MAX_PIXELS,
) -> None:
    """Warp a picture: shear, scale and rotate it about its center, then translate it.

    Or --corners cuts a quadrilateral out of the picture and makes it a rectangle. Transparency and the bit depth (16-bit,
    32-bit, floating point) are preserved.

    Args:
        image: The picture to read, or a numpy or TIFF file (.npy, .tif) of numbers (H, W) or (H, W, C).
        out: The picture or numpy file to write.
        rotate: Rotation in degrees, counterclockwise.
        scale: Scale factor; 2 doubles the size of the content.
        translate: Translation in pixels, to the right and down.
        shear: Shear in degrees; vertical lines lean to the right.
        corners: Corners of the region to cut out, in pixels: top left, top right, bottom right, bottom left.
        size: Height and width of the result.
        mode: Interpolation.
        padding_mode: Rule for values outside the picture.
        max_pixels: Largest number of pixels of a picture that is read or written.
    """
    from stn.io.images import check_output, read_source, write_source

    motion = {"rotate": rotate, "scale": scale - 1, "translate": any(translate), "shear": shear}
    if corners is not None:
        _check.alone("corners", motion)
    if size is not None:
        _check.pixels("size", _check.lengths("size", size, 2), max_pixels)
    _check.outputs({"out": out}, [image], endings={})
    source = read_source(image, max_pixels=max_pixels)
    shape = _check.lengths("the image's size", tuple(source.pixels.shape[2:]), 2)
    matrix = _matrix(shape, corners, rotate, scale, shear, translate)
    note = check_output("out", out, source)
    write_source(_warped(source, matrix, size, mode, padding_mode), out, source)
    if note:
        print(f"stn: {note}", file=sys.stderr)
    print(out)


def _matrix(
    shape: tuple[int, ...], corners: Four | None, rotate: float, scale: float, shear: float, translate: tuple[float, float]
) -> Tensor:
    from stn.cli.motions import corners_to_homography, motion_to_theta

    if corners is not None:
        return corners_to_homography(shape, corners)
    return motion_to_theta(shape, rotate=rotate, scale=scale, shear=shear, translate=translate)


def _warped(source: Source, matrix: Tensor, size: tuple[int, int] | None, mode: str, padding_mode: str) -> Tensor:
    from stn.ops import affine_sample, projective_sample

    sample = affine_sample if matrix.shape[-2] == 2 else projective_sample
    with torch.inference_mode():
        return sample(source.pixels, matrix, size, mode=mode, padding_mode=padding_mode)
