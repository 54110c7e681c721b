"""The part of `stn register` for NIfTI files: volumes with a place in the world."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from stn import _check
from stn.io.images import write_array
from stn.ops.integers import whole
from stn.registration import Registration
from stn.registration import register as find
from stn.space import Volume, read_nifti, write_itk, write_nifti
from stn.space.itk import AFFINES, FIELDS
from stn.transforms import MatrixWarp


def is_nifti(path: Path) -> bool:
    return path.name.lower().endswith(FIELDS)


def check(moving: Path, fixed: Path, out: Path, *, itk: Path | None, labels: tuple[Path, Path] | None) -> None:
    """Check the names of the files before they are read."""
    given = {"moving": moving, "fixed": fixed, "out": out}
    others = [name for name, path in given.items() if not is_nifti(path)]
    if len(others) == 3:
        for name, value in (("itk", itk), ("labels", labels)):
            if value is not None:
                _check.fail(f"{name} requires NIfTI files (.nii, .nii.gz), which have a place in the world; got {moving}")
        return
    if others:
        _check.fail(f"{others[0]} must end in .nii or .nii.gz, like the other files; got {given[others[0]]}")
    _check.installed("nibabel", "medical")
    written = {"out": out, "itk": itk, "labels": labels[1] if labels else None}
    endings = {"out": FIELDS, "itk": (*AFFINES, *FIELDS), "labels": FIELDS}
    for name, path in written.items():
        if path is not None and not path.name.lower().endswith(endings[name]):
            _check.fail(f"{name} must end in {' or '.join(endings[name])}; got {path}")
    _check.outputs(written, [moving, fixed, *(labels[:1] if labels else ())], endings={})


def register(
    moving: Path,
    fixed: Path,
    out: Path,
    transform: Sequence[str],
    *,
    itk: Path | None,
    labels: tuple[Path, Path] | None,
    theta: Path | None,
    masks: Mapping[str, Path | None],
    options: Mapping[str, Any],
) -> None:
    source, target = read_nifti(moving), read_nifti(fixed)
    marked = read_nifti(labels[0]) if labels else None
    if marked is not None and (marked.space.size != source.space.size or marked.values.dtype.is_floating_point):
        expected = f"whole numbers at the voxels of MOVING, {source.space.size}"
        _check.fail(f"labels must hold {expected}; {labels and labels[0]} has {marked.values.dtype}")
    given: dict[str, Any] = {name: read_nifti(path) for name, path in masks.items() if path is not None}
    found = find(source, target, transform, **given, **options)
    report(found, target.space.size, options["loss"])
    write_nifti(found.image, out)
    if theta is not None:
        write_array(found.theta[0], theta)
    if itk is not None:
        if not (isinstance(found.warp, MatrixWarp) or is_nifti(itk)):
            _check.fail(f"itk must end in .nii or .nii.gz for a transform that is not affine; got {itk}")
        write_itk(found.warp, itk, target.space, source.space)
    if labels and marked is not None:
        values = found.warp.sample(whole(marked.values), target.space.size, mode="nearest").to(marked.values.dtype)
        write_nifti(Volume(values, target.space, marked.header), labels[1])
    print(out)


def report(found: Registration, size: tuple[int, ...], loss: str) -> None:
    for stage in found.stages:
        print(f"family: {stage.family}")
        for level, losses in stage.losses.items():
            shown = "x".join(str(max(1, n >> level)) for n in size)
            print(f"{shown}: {loss} {losses[0]:.4f} -> {min(losses):.4f} in {len(losses)} steps")
