"""`stn register`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from tyro.conf import Positional

from stn import _check
from stn.cli.options import MaxPixels, one_of
from stn.io.images import MAX_PIXELS, Source
from stn.registration import Registration
from stn.transforms import FAMILIES


def register(
    moving: Annotated[Positional[Path], tyro.conf.arg(metavar="MOVING")],
    fixed: Annotated[Positional[Path], tyro.conf.arg(metavar="FIXED")],
    out: Annotated[Positional[Path], tyro.conf.arg(metavar="OUT")],
    transform: Annotated[str, tyro.conf.arg(metavar=one_of(FAMILIES))] = "affine",
    loss: Literal["ncc", "mse", "lncc", "mi"] = "ncc",
    bending: float = 1e-3,
    levels: Annotated[int | None, tyro.conf.arg(metavar="INT", help_behavior_hint="(default: down to 16 pixels)")] = None,
    steps: int = 200,
    theta: Annotated[Path | None, tyro.conf.arg(metavar="FILE.npy", help_behavior_hint="")] = None,
    max_pixels: MaxPixels = MAX_PIXELS,
) -> None:
    """Warp MOVING so that it looks like FIXED: find the transform between two pictures, or two volumes.

    Found by descent on its parameters, from coarse copies of both images to the images themselves.

    Args:
        moving: The picture to warp, or a numpy file (.npy) of (H, W), (H, W, C), or a volume (D, H, W).
        fixed: The picture that it is to look like.
        out: The warped picture to write; .npy for volumes.
        transform: What may happen between them.
        loss: How unlike they are: ncc (correlation: whatever brightness and contrast), mse (the same exposure), lncc
            (light that changes over the image), mi (mutual information: other kinds of image).
        bending: Weight against bending; nothing for affine maps.
        levels: Resolutions, each half of the one before.
        steps: At most, on each level.
        theta: A numpy file to write the transform's parameters to.
        max_pixels: The largest picture that is read.
    """
    from stn.io.images import check_output, read_source, write_array, write_source

    _check.outputs({"out": out, "theta": theta}, [moving, fixed], endings={"theta": (".npy",)})
    picture, goal = (read_source(path, max_pixels=max_pixels) for path in (moving, fixed))
    note = check_output("out", out, picture)
    found = _found(picture, goal, transform, loss=loss, bending=bending, levels=levels, steps=steps)
    write_source(found.warp.sample(picture.pixels, tuple(goal.pixels.shape[2:])), out, picture)
    if theta is not None:
        write_array(found.theta[0], theta)
    if note:
        print(f"stn: {note}", file=sys.stderr)
    print(out)


def _found(picture: Source, goal: Source, transform: str, **options: Any) -> Registration:
    from stn.registration import register as find

    a, b = picture.pixels, goal.pixels
    if a.shape[1] != b.shape[1]:  # one is gray, or transparent
        a, b = picture.gray(), goal.gray()
    found = find(a.float(), b.float(), transform, **options)
    for level, losses in found.losses.items():
        size = "x".join(str(max(1, n >> level)) for n in b.shape[2:])
        print(f"{size}: {options['loss']} {losses[0]:.4f} -> {min(losses):.4f} in {len(losses)} steps")
    return found
