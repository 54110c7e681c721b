"""`stn register`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from tyro.conf import Positional

from stn import _check
from stn.cli import volumes
from stn.cli.options import MaxPixels, one_of
from stn.io.images import MAX_PIXELS, Source
from stn.registration import Registration
from stn.transforms import FAMILIES


def register(
    moving: Annotated[Positional[Path], tyro.conf.arg(metavar="MOVING")],
    fixed: Annotated[Positional[Path], tyro.conf.arg(metavar="FIXED")],
    out: Annotated[Positional[Path], tyro.conf.arg(metavar="OUT")],
    transform: Annotated[tuple[str, ...], tyro.conf.arg(metavar=f"{one_of(FAMILIES)} ..")] = ("affine",),
    loss: Literal["ncc", "mse", "lncc", "mi"] = "ncc",
    spacing: Annotated[tuple[float, ...], tyro.conf.arg(metavar="[D] H W", help_behavior_hint="(default: equal)")] = (),
    bending: float = 1e-3,
    levels: Annotated[int | None, tyro.conf.arg(metavar="INT", help_behavior_hint="(default: down to 16 pixels)")] = None,
    steps: int = 200,
    moving_mask: Annotated[Path | None, tyro.conf.arg(metavar="FILE", help_behavior_hint="")] = None,
    fixed_mask: Annotated[Path | None, tyro.conf.arg(metavar="FILE", help_behavior_hint="")] = None,
    theta: Annotated[Path | None, tyro.conf.arg(metavar="FILE.npy", help_behavior_hint="")] = None,
    itk: Annotated[Path | None, tyro.conf.arg(metavar="FILE", help_behavior_hint="")] = None,
    labels: Annotated[tuple[Path, Path] | None, tyro.conf.arg(metavar="IN OUT", help_behavior_hint="")] = None,
    max_pixels: MaxPixels = MAX_PIXELS,
) -> None:
    """Register two pictures or volumes: find the transform that aligns MOVING with FIXED, and write the result.

    The parameters are found from coarse to full resolution.

    Args:
        moving: The picture to warp, or a numpy or TIFF file (.npy, .tif) of shape (H, W), (H, W, C), or (D, H, W) for a
            volume, or a NIfTI file (.nii, .nii.gz) with its place in the world.
        fixed: The target picture.
        out: The warped picture to write; .npy or .tif for volumes, .nii or .nii.gz if MOVING and FIXED are.
        transform: Transform family; or several, such as rigid affine bspline: each begins where the one before ended.
        loss: Loss to minimize: ncc (correlation, for any brightness and contrast), mse (for equal exposure), lncc (for
            brightness that varies over the image), mi (mutual information, for different kinds of images).
        spacing: Size of a pixel or voxel of FIXED along each axis, in any unit; rotations keep shapes in these units.
        bending: Weight of the penalty on bending; it has no effect on affine maps.
        levels: Number of resolutions; each has half the size of the previous one.
        steps: Largest number of steps per level.
        moving_mask: What counts of MOVING: a picture or file of its size, 0 where its pixels have no influence.
        fixed_mask: What counts of FIXED, likewise.
        theta: A numpy file to write the parameters of the (last) transform to. Their family is printed.
        itk: A file to write the transform to for ITK, SimpleITK and ANTs, in millimeters: .tfm, .txt, .mat or .h5 if
            it is affine, .nii or .nii.gz for a field. NIfTI files only.
        labels: A label map of MOVING, and the file to write it to, warped by nearest neighbor. NIfTI files only.
        max_pixels: Largest number of pixels of a picture that is read.
    """
    from stn.io.images import check_output, read_source, write_array, write_source

    options = {"loss": loss, "spacing": spacing or None, "bending": bending, "levels": levels, "steps": steps}
    masks = {"moving_mask": moving_mask, "fixed_mask": fixed_mask}
    read = [moving, fixed, *(path for path in masks.values() if path is not None)]
    volumes.check(moving, fixed, out, itk=itk, labels=labels)
    if volumes.is_nifti(out):
        _check.outputs({"theta": theta}, read, endings={"theta": (".npy",)})
        volumes.register(moving, fixed, out, transform, itk=itk, labels=labels, theta=theta, masks=masks, options=options)
        return
    _check.outputs({"out": out, "theta": theta}, read, endings={"theta": (".npy",)})
    picture, goal = (read_source(path, max_pixels=max_pixels) for path in (moving, fixed))
    note = check_output("out", out, picture)
    seen = {name: read_source(path, max_pixels=max_pixels).gray() for name, path in masks.items() if path is not None}
    found = _found(picture, goal, transform, **seen, **options)
    write_source(found.warp.sample(picture.pixels, tuple(goal.pixels.shape[2:])), out, picture)
    if theta is not None:
        write_array(found.theta[0], theta)
    if note:
        print(f"stn: {note}", file=sys.stderr)
    print(out)


def _found(picture: Source, goal: Source, transform: Sequence[str], **options: Any) -> Registration:
    from stn.registration import register as find

    a, b = picture.pixels, goal.pixels
    if a.shape[1] != b.shape[1]:  # one is gray or transparent, the other not
        a, b = picture.gray(), goal.gray()
    found = find(a.float(), b.float(), transform, **options)
    volumes.report(found, tuple(b.shape[2:]), options["loss"])
    return found
