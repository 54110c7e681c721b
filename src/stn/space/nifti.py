"""Volumes in NIfTI files, with their place in the world. Needs nibabel: `pip install 'torch-stn[medical]'`."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from stn import _check
from stn.io.files import write_atomically
from stn.space.geometry import Space

ENDINGS = (".nii", ".nii.gz")
VECTOR = 1007  # NIfTI's intent of a field of vectors


@dataclass(frozen=True, eq=False)
class Volume:
    """The numbers of a file, as they are there, and their place in the world.

    Args:
        values: (1, C, D, H, W), or (1, C, H, W) of a picture, in the dtype of the file: integers with their sign.
        space: Size, voxel size, origin and direction.
        header: Header of nibabel, whose other fields `write_nifti` keeps. None: a new one.

    Raises:
        InputError: The values have another size than the space. TypeError: a wrong type.

    Example:
        >>> import os, tempfile
        >>> path = os.path.join(tempfile.mkdtemp(), "scan.nii.gz")
        >>> scan = torch.randint(-1000, 3000, (1, 1, 4, 5, 6), dtype=torch.int16)
        >>> stn.write_nifti(stn.Volume(scan, stn.Space((4, 5, 6), spacing=(3.0, 1.0, 1.0))), path)
        >>> stn.read_nifti(path).values.equal(scan)
        True
    """

    values: Tensor
    space: Space
    header: Any = field(default=None, repr=False)  # of nibabel, for what a result keeps

    def __post_init__(self) -> None:
        _check.tensor("values", self.values)
        _check.made("space", self.space, Space, "stn.Space((D, H, W))")
        if tuple(self.values.shape[2:]) != self.space.size:
            size = ", ".join(map(str, self.space.size))
            _check.fail(f"values must be (1, C, {size}) for a space of this size; got {tuple(self.values.shape)}")


def read_nifti(path: Path | str) -> Volume:
    """Read a volume, or a field of vectors, from a NIfTI file.

    Args:
        path: `.nii` or `.nii.gz`.

    Returns:
        The values (1, C, D, H, W), or (1, C, H, W) of a picture, and their space. If the header has a scale, they are
        scaled and floating point.

    Raises:
        InputError: There is no such file, it is damaged, or its voxels have axes that are not perpendicular.

    Example:
        >>> import os, tempfile
        >>> path = os.path.join(tempfile.mkdtemp(), "scan.nii")
        >>> stn.write_nifti(stn.Volume(torch.rand(1, 1, 4, 5, 6), stn.Space((4, 5, 6))), path)
        >>> stn.read_nifti(path).space.extent
        (4.0, 5.0, 6.0)
    """
    path = _check.path_of("path", path)
    _check.installed("nibabel", "medical")
    import nibabel

    _check_ending("path", path)
    if not path.is_file():
        _check.fail(f"path must be a NIfTI file; {path} {'is a folder' if path.is_dir() else 'does not exist'}")
    try:
        image: Any = nibabel.load(path)
        array = np.asarray(image.dataobj)
        affine = image.affine
    except Exception as error:  # damaged bytes can raise anything
        _check.fail(f"path must be a complete NIfTI file; reading {path} raised {type(error).__name__}: {error}")
    if array.dtype.kind not in "fiub" or array.ndim not in (2, 3, 4, 5) or 0 in array.shape:
        _check.fail(f"path must hold a volume of real numbers; {path} has {array.dtype} of shape {array.shape}")
    values = _channels_first(path, array)
    d = values.ndim - 1
    matrix = np.eye(d + 1)
    matrix[:d, :d], matrix[:d, d] = affine[:d, :d], affine[:d, 3]
    space = Space.from_affine(matrix, values.shape[1:])
    return Volume(torch.from_numpy(values)[None], space, image.header.copy())


def write_nifti(volume: Volume, path: Path | str) -> None:
    """Write a volume as a NIfTI file, in the dtype of its values.

    Args:
        volume: Values (1, C, D, H, W) and their space.
        path: `.nii` or `.nii.gz`. An existing file is replaced.

    Raises:
        InputError: The values do not fit the space, NIfTI has no such dtype, or the file cannot be written.

    Example:
        >>> import os, tempfile
        >>> path = os.path.join(tempfile.mkdtemp(), "labels.nii.gz")
        >>> stn.write_nifti(stn.Volume(torch.zeros(1, 1, 4, 5, 6, dtype=torch.uint8), stn.Space((4, 5, 6))), path)
    """
    _check.made("volume", volume, Volume, "stn.Volume(values, space)")
    path = _check.path_of("path", path)
    values, space = volume.values, volume.space
    if values.ndim != space.ndim + 2 or tuple(values.shape[2:]) != space.size or len(values) != 1:
        _check.fail(f"volume must have values (1, C, {', '.join(map(str, space.size))}); got {tuple(values.shape)}")
    if values.dtype in (torch.bool, torch.bfloat16, torch.float16) or values.is_complex():
        _check.fail(f"volume must have a dtype that NIfTI has, such as int16 or float32; got {values.dtype}")
    array = values[0].detach().cpu().numpy().T  # (X, Y, Z, C)
    _write(array[..., 0] if array.shape[-1] == 1 else array, path, space, volume.header)


def write_field(displacements: Tensor, path: Path, fixed: Space) -> None:  # (*size, d) in mm, LPS
    """Write a field as ITK and ANTs read it: (X, Y, Z, 1, d), with NIfTI's intent of vectors."""
    array = displacements.detach().cpu().movedim(-1, 0).numpy().T  # (X, Y[, Z], d)
    if fixed.ndim == 2:
        array = array[:, :, None]
    _write(array[:, :, :, None].astype(np.float32), path, fixed, None, intent=VECTOR)


def _write(array: np.ndarray, path: Path, space: Space, header: Any, intent: int = 0) -> None:
    _check.installed("nibabel", "medical")
    import nibabel

    _check_ending("path", path)
    affine = np.eye(4)
    d = space.ndim
    affine[:d, :d], affine[:d, 3] = space.affine[:d, :d].numpy(), space.affine[:d, d].numpy()
    made: Any = nibabel.Nifti1Image(np.ascontiguousarray(array), affine, header, dtype=array.dtype)
    made.header.set_xyzt_units("mm", "sec" if array.ndim > 3 and not intent else "unknown")
    made.header.set_slope_inter(1, 0)
    if intent:
        made.header.set_intent(intent, name="")
    content = made.to_bytes()
    if path.name.lower().endswith(".gz"):
        import gzip

        content = gzip.compress(content, mtime=0)
    write_atomically(path, lambda file: file.write(content))


def _channels_first(path: Path, array: np.ndarray) -> np.ndarray:
    """Return (C, D, H, W) of an array (X, Y, Z), (X, Y, Z, C) or (X, Y, Z, 1, C); (C, H, W) of a picture (X, Y), or of a
    plane field (X, Y, 1, 1, 2)."""
    if array.ndim == 5:
        if array.shape[3] != 1:
            _check.fail(f"path must hold one volume, or one field of vectors; {path} has shape {array.shape}")
        array = array[:, :, 0, 0] if array.shape[2:] == (1, 1, 2) else array[:, :, :, 0]
    elif array.ndim < 4:
        array = array[..., None]
    found = np.ascontiguousarray(array.T)
    return found if found.dtype.isnative else found.astype(found.dtype.newbyteorder("="))


def _check_ending(name: str, path: Path) -> None:
    if not path.name.lower().endswith(ENDINGS):
        _check.fail(f"{name} must end in .nii or .nii.gz; got {path.name}")
