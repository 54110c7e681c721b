"""Files of transforms that ITK, SimpleITK and ANTs read and write.

A transform of ITK maps points of the fixed image to points of the moving one, in millimeters (LPS): the direction of a
warp. Files: `.tfm` and `.txt` (text), `.h5` (HDF5), `.mat` (MATLAB 4, ANTs' affine); `.nii` and `.nii.gz` (a field of
displacements in mm at the voxels of the fixed image).
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from functools import reduce
from pathlib import Path
from typing import IO, Any

import torch

from stn import _check
from stn.grid import lattice
from stn.io.files import write_atomically
from stn.space.geometry import Space, from_world, in_world, moved_in_world
from stn.space.nifti import read_nifti, write_field
from stn.space.parameters import matrix_of
from stn.transforms import Displacement, MatrixWarp, Warp

HEADER = "#Insight Transform File V1.0"
FIELDS = (".nii", ".nii.gz")
AFFINES = (".tfm", ".txt", ".mat", ".h5", ".hdf5")
Transform = tuple[str, list[float], list[float]]  # kind, parameters, fixed parameters


def write_itk(warp: Warp, path: Path | str, fixed: Space, moving: Space) -> None:
    """Write a warp as a transform of ITK, from the world of the fixed image to that of the moving one.

    Args:
        warp: A warp of batch (1,) from points of the fixed image to points of the moving one, such as
            `stn.register(..).warp`.
        path: `.tfm`, `.txt`, `.mat` or `.h5` for an affine warp; `.nii` or `.nii.gz` for any warp, as the field of its
            displacements at the voxels of `fixed`. `.h5` needs h5py, a field nibabel.
        fixed: The space of the fixed image.
        moving: The space of the moving image.

    Raises:
        InputError: The file cannot hold the warp, or the warp does not fit the spaces; the message names the argument.

    Example:
        >>> import os, tempfile
        >>> path = os.path.join(tempfile.mkdtemp(), "shift.tfm")
        >>> space = stn.Space((10, 20, 30), spacing=(3.0, 1.0, 1.0))
        >>> stn.write_itk(stn.Translation(3)(torch.tensor([[0.0, 0.1, 0.0]])), path, space, space)
        >>> stn.read_itk(path, space, space).matrix[0, :, 3].round(decimals=4)
        tensor([0.0000, 0.1000, 0.0000], dtype=torch.float64)
    """
    path = _check.path_of("path", path)
    ending = _ending(path)
    _check.made("warp", warp, Warp, "stn.Affine()(theta)")
    _check_pair(warp.ndim, fixed, moving)
    if tuple(warp.batch) != (1,):
        _check.fail(f"warp must be one warp, of batch (1,); got {tuple(warp.batch)}")
    if ending in FIELDS:
        points = fixed.to_mm(lattice(fixed.size, dtype=torch.float64, device="cpu").flatten(0, -2))
        moved = moved_in_world(warp, points, fixed, moving)[0]
        write_field((moved - points).unflatten(0, fixed.size), path, fixed)
        return
    if not (isinstance(warp, MatrixWarp) and warp.is_affine):
        _check.fail(f"path must end in .nii or .nii.gz for a warp that is not affine, as a field; got {path.name}")
    matrix, d = in_world(warp, fixed, moving)[0].detach().cpu(), warp.ndim
    parameters = [*matrix[:d, :d].flatten().tolist(), *matrix[:d, d].tolist()]
    transform = f"AffineTransform_double_{d}_{d}", parameters, [0.0] * d
    writer = {".mat": _write_mat, ".h5": _write_h5, ".hdf5": _write_h5}.get(ending, _write_text)
    write_atomically(path, lambda file: writer(file, transform))


def read_itk(path: Path | str, fixed: Space, moving: Space) -> Warp:
    """Read a transform of ITK, SimpleITK or ANTs as a warp from points of the fixed image to points of the moving one.

    Args:
        path: `.tfm`, `.txt`, `.mat` or `.h5`: affine and rigid transforms and their compositions; `.nii` or `.nii.gz`: a
            field of displacements at the voxels of `fixed`.
        fixed: The space of the fixed image.
        moving: The space of the moving image.

    Returns:
        The warp, of batch (1,): a `MatrixWarp` in float64, or a field.

    Raises:
        InputError: There is no such file, or it holds something else; the message says what.

    Example:
        >>> import os, tempfile
        >>> path = os.path.join(tempfile.mkdtemp(), "turn.txt")
        >>> with open(path, "w") as file:
        ...     print("Transform: Euler2DTransform_double_2_2\\nParameters: 0 5 0\\nFixedParameters: 0 0", file=file)
        >>> space = stn.Space((20, 20))
        >>> stn.read_itk(path, space, space).points(torch.zeros(2))  # 5 of 10 mm to the left
        tensor([[0.5000, 0.0000]], dtype=torch.float64)
    """
    path = _check.path_of("path", path)
    ending = _ending(path)
    _check_pair(fixed.ndim, fixed, moving)
    if not path.is_file():
        _check.fail(f"path must be the file of a transform; {path} {'is a folder' if path.is_dir() else 'does not exist'}")
    if ending in FIELDS:
        return _field_of(path, fixed, moving)
    reader = {".mat": _read_mat, ".h5": _read_h5, ".hdf5": _read_h5}.get(ending, _read_text)
    try:
        found = [transform for transform in reader(path) if not transform[0].startswith("CompositeTransform")]
    except (ValueError, OSError, struct.error, KeyError, UnicodeDecodeError) as error:
        _check.fail(f"path must be a complete file of a transform; reading {path} raised {type(error).__name__}")
    if not found:
        _check.fail(f"path must be a file of transforms; {path} holds none")
    matrices = [matrix_of(*transform) for transform in found]
    for (kind, _, _), matrix in zip(found, matrices, strict=True):
        if len(matrix) != fixed.ndim + 1:
            _check.fail(f"path must hold transforms in {fixed.ndim}-D; {path} holds {kind}")
    return from_world(reduce(torch.matmul, matrices).unsqueeze(0), fixed, moving)  # the last is applied first


def _field_of(path: Path, fixed: Space, moving: Space) -> Warp:
    volume = read_nifti(path)
    shape = tuple(volume.values.shape)
    if shape[:2] != (1, fixed.ndim) or volume.space.size != fixed.size:
        expected = f"{fixed.ndim} components at the voxels of fixed, {fixed.size}"
        _check.fail(f"path must hold a field of {expected}; {path} has {shape[1]} at {volume.space.size}")
    mm = volume.values[0].movedim(0, -1).double()  # (*size, d)
    base = lattice(fixed.size, dtype=torch.float64, device="cpu")
    moved = moving.to_normalized(fixed.to_mm(base) + mm)
    return Displacement.from_field((moved - base).unsqueeze(0))


def _check_pair(ndim: int, fixed: Space, moving: Space) -> None:
    for name, space in (("fixed", fixed), ("moving", moving)):
        if not isinstance(space, Space):
            raise TypeError(f"{name} must be a stn.Space; got {type(space).__name__}")
        if space.ndim != ndim:
            _check.fail(f"{name} must have {ndim} dimensions, like the warp; got {space.ndim}")


def _ending(path: Path) -> str:
    lower = path.name.lower()
    found = next((ending for ending in (*FIELDS, *AFFINES) if lower.endswith(ending)), None)
    if found is None:
        _check.fail(f"path must end in {', '.join((*AFFINES, *FIELDS))}; got {path.name}")
    return found


# ---- text ----


def _write_text(file: IO[bytes], transform: Transform) -> None:
    kind, parameters, fixed = transform
    lines = [HEADER, "#Transform 0", f"Transform: {kind}"]
    lines += [
        f"{name}: {' '.join(repr(n) for n in given)}"
        for name, given in (("Parameters", parameters), ("FixedParameters", fixed))
    ]
    file.write(("\n".join(lines) + "\n").encode())


def _read_text(path: Path) -> Iterator[Transform]:
    kind, numbers = "", {"Parameters": list[float](), "FixedParameters": list[float]()}
    for line in path.read_text(encoding="ascii").splitlines():
        name, _, value = line.partition(":")
        if name == "Transform":
            if kind:
                yield kind, numbers["Parameters"], numbers["FixedParameters"]
            kind, numbers = value.strip(), {"Parameters": [], "FixedParameters": []}
        elif name in numbers:
            numbers[name] = [float(n) for n in value.split()]
    if kind:
        yield kind, numbers["Parameters"], numbers["FixedParameters"]


# ---- MATLAB 4: for each array five int32 (type, rows, columns, imaginary, length of its name), the name, the numbers ----


def _write_mat(file: IO[bytes], transform: Transform) -> None:
    kind, parameters, fixed = transform
    for name, numbers in ((kind, parameters), ("fixed", fixed)):
        text = name.encode() + b"\0"
        file.write(struct.pack("<5i", 0, len(numbers), 1, 0, len(text)) + text + struct.pack(f"<{len(numbers)}d", *numbers))


def _read_mat(path: Path) -> Iterator[Transform]:
    content, at, arrays = path.read_bytes(), 0, []
    while at < len(content):
        kind, rows, columns, _, length = struct.unpack_from("<5i", content, at)
        name = content[at + 20 : at + 20 + length].rstrip(b"\0").decode("ascii")
        letter = {0: "d", 10: "f"}[kind]
        numbers = struct.unpack_from(f"<{rows * columns}{letter}", content, at + 20 + length)
        at += 20 + length + struct.calcsize(letter) * rows * columns
        arrays.append((name, [float(n) for n in numbers]))
    (kind, parameters), (_, fixed) = arrays
    yield kind, parameters, fixed


# ---- HDF5 ----


def _write_h5(file: IO[bytes], transform: Transform) -> None:
    _check.installed("h5py", "train")
    import h5py

    kind, parameters, fixed = transform
    text = h5py.string_dtype("ascii")
    memory = io.BytesIO()  # HDF5 reads what it writes
    with h5py.File(memory, "w") as out:
        for name, value in {"ITKVersion": "5.4.0", "HDFVersion": "HDF5", "OSName": "", "OSVersion": ""}.items():
            out.create_dataset(name, data=[value], dtype=text)
        group = out.create_group("TransformGroup/0")
        group.create_dataset("TransformType", data=[kind], dtype=text)
        group.create_dataset("TransformParameters", data=parameters, dtype="f8")
        group.create_dataset("TransformFixedParameters", data=fixed, dtype="f8")
    file.write(memory.getvalue())


def _read_h5(path: Path) -> Iterator[Transform]:
    _check.installed("h5py", "train")
    import h5py

    with h5py.File(path, "r") as file:
        groups: Any = file["TransformGroup"]
        for key in sorted(groups, key=int):
            kind = groups[key]["TransformType"][0].decode("ascii")
            names = ("TransformParameters", "TransformFixedParameters")
            parameters, fixed = (_numbers(groups[key], name) for name in names)
            yield kind, parameters, fixed


def _numbers(group: Any, name: str) -> list[float]:
    """ITK writes the same names with and without an e after the m: both are in use."""
    for spelling in (name, name.replace("Parameters", "Paramaters")):
        if spelling in group:
            return [float(n) for n in group[spelling][()]]
    return []
