"""Spaces, transforms and volumes against SimpleITK and nibabel, for oblique directions and voxels that are not cubes."""

import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
import torch
from torch import Tensor

import stn
from stn.grid import lattice
from stn.space import Space, Volume, read_itk, read_nifti, write_itk, write_nifti
from stn.space.geometry import in_world, moved_in_world
from stn.space.parameters import euler
from tests.helpers import noise

SIZES = {2: ((23, 17), (14, 19)), 3: ((11, 17, 13), (9, 12, 15))}  # of the fixed and of the moving image


def space_of(size: tuple[int, ...], seed: int) -> Space:
    d = len(size)
    angles = (0.3 * noise(3, seed=seed)).tolist()
    turn = euler(angles, zyx=False) if d == 3 else torch.tensor([[0.8, -0.6], [0.6, 0.8]])
    spacing = (1 + noise(d, seed=seed + 1).abs()).tolist()
    return Space(size, spacing=spacing, origin=(5 * noise(d, seed=seed + 2)).tolist(), direction=turn)


def pair(d: int) -> tuple[Space, Space]:
    fixed, moving = (space_of(size, seed) for size, seed in zip(SIZES[d], (1, 5), strict=True))
    center = fixed.to_mm(torch.zeros(d, dtype=torch.float64))  # move the second to the first, so that they overlap
    shift = (center - moving.to_mm(torch.zeros(d, dtype=torch.float64))).tolist()
    origin = [a + b for a, b in zip(moving.origin, shift, strict=True)]
    return fixed, Space(moving.size, spacing=moving.spacing, origin=origin, direction=moving.direction)


def in_sitk(values: Tensor, space: Space) -> Any:  # (1, 1, *size)
    image = sitk.GetImageFromArray(values[0, 0].numpy())
    image.SetSpacing(tuple(reversed(space.spacing)))
    image.SetOrigin(space.origin)
    image.SetDirection([n for row in space.direction for n in row])
    return image


def affine(d: int) -> stn.MatrixWarp:
    matrix = torch.eye(d, d + 1, dtype=torch.float64) + 0.15 * noise(d, d + 1, seed=9)
    return stn.MatrixWarp(matrix.unsqueeze(0))


@pytest.mark.parametrize("d", (2, 3))
def test_points_are_where_simpleitk_has_them(d: int) -> None:
    space = space_of(SIZES[d][0], 1)
    image = in_sitk(torch.zeros(1, 1, *space.size), space)
    torch.testing.assert_close(Space.from_sitk(image).voxels_to_mm, space.voxels_to_mm, atol=1e-12, rtol=0)
    for index in ((0.0,) * d, (3.5, 2.25, 1.75)[:d]):
        pixel = torch.tensor(index, dtype=torch.float64)
        point = space.to_mm(stn.grid.pixel_to_normalized(pixel, space.size))
        expected = torch.tensor(image.TransformContinuousIndexToPhysicalPoint(index), dtype=torch.float64)
        torch.testing.assert_close(point, expected, atol=1e-10, rtol=0)
        back = stn.grid.normalized_to_pixel(space.to_normalized(point), space.size)
        torch.testing.assert_close(back, pixel, atol=1e-10, rtol=0)


def test_nibabels_affine() -> None:
    space = space_of(SIZES[3][0], 1)
    affine = space.affine.numpy()
    point = nibabel.affines.apply_affine(affine, (3, 2, 1))
    lps = space.to_mm(stn.grid.pixel_to_normalized(torch.tensor([3.0, 2, 1], dtype=torch.float64), space.size))
    np.testing.assert_allclose(point, (lps * torch.tensor([-1.0, -1, 1])).numpy(), atol=1e-10)
    again = Space.from_affine(affine, space.size)
    torch.testing.assert_close(again.voxels_to_mm, space.voxels_to_mm, atol=1e-10, rtol=0)
    mirrored = Space.from_affine(np.diag([-2.0, 2.0, 3.0, 1.0]), (4, 5, 6))  # stored from left to right
    np.testing.assert_allclose(mirrored.affine.numpy(), np.diag([-2.0, 2.0, 3.0, 1.0]))


WRITTEN = [(d, ending) for d in (2, 3) for ending in (".tfm", ".txt", ".mat", ".h5", ".nii.gz", ".nii")]


@pytest.mark.parametrize("d, ending", WRITTEN)
def test_simpleitk_resamples_as_we_do(d: int, ending: str, tmp_path: Path) -> None:
    """Our file in its resampler, over the voxels that see the image whole."""
    (fixed, moving), warp, path = pair(d), affine(d), tmp_path / f"found{ending}"
    write_itk(warp, path, fixed, moving)
    image = noise(1, 1, *moving.size)
    ours, mask = warp.sample(image, fixed.size, return_mask=True)
    if ending.startswith(".nii"):
        field = sitk.Cast(sitk.ReadImage(str(path)), sitk.sitkVectorFloat64)
        transform = sitk.DisplacementFieldTransform(field)
    else:
        transform = sitk.ReadTransform(str(path))
    reference = in_sitk(torch.zeros(1, 1, *fixed.size, dtype=torch.float64), fixed)
    theirs = sitk.Resample(in_sitk(image, moving), reference, transform, sitk.sitkLinear, 0.0)
    whole = mask[0, 0] > 0.999
    assert whole.double().mean() > 0.2
    tolerance = 1e-4 if ending.startswith(".nii") else 1e-5  # a field has single precision; theirs differs by 2e-6
    found = torch.from_numpy(sitk.GetArrayFromImage(theirs))
    torch.testing.assert_close(found[whole], ours[0, 0][whole], atol=tolerance, rtol=0)


@pytest.mark.parametrize("d, ending", WRITTEN)
def test_what_is_written_is_read(d: int, ending: str, tmp_path: Path) -> None:
    (fixed, moving), path = pair(d), tmp_path / f"found{ending}"
    warp: stn.Warp = affine(d)
    if ending.startswith(".nii"):
        family = stn.BSpline(d, shape=(4,) * d)
        warp = family(0.1 * noise(1, family.num_params))
    write_itk(warp, path, fixed, moving)
    again = read_itk(path, fixed, moving)
    target = lattice(fixed.size, dtype=torch.float64).flatten(0, -2)
    tolerance = 1e-5 if ending.startswith(".nii") else 1e-12
    torch.testing.assert_close(again.points(target), warp.points(target), atol=tolerance, rtol=0)


def theirs(d: int) -> dict[str, Any]:
    """Every kind of their transforms that is one matrix, none the identity, with a center."""
    center, shift = ([4.0, -3.0, 2.0][:d], [1.5, 0.5, -2.0][:d])
    made: dict[str, Any] = {"AffineTransform": sitk.AffineTransform(d), "TranslationTransform": sitk.TranslationTransform(d)}
    made["ScaleTransform"] = sitk.ScaleTransform(d, [1.2, 0.8, 1.1][:d])
    made["AffineTransform"].SetMatrix((torch.eye(d) + 0.1 * noise(d, d)).flatten().tolist())
    if d == 2:
        made |= {"Euler2DTransform": sitk.Euler2DTransform(), "Similarity2DTransform": sitk.Similarity2DTransform()}
        made["Similarity2DTransform"].SetScale(1.3)
        for name in ("Euler2DTransform", "Similarity2DTransform"):
            made[name].SetAngle(0.4)
    else:
        made |= {
            name: getattr(sitk, name)() for name in ("Euler3DTransform", "VersorRigid3DTransform", "Similarity3DTransform")
        }
        made["Euler3DTransform"].SetRotation(0.1, 0.5, -0.3)
        made["zyx"] = sitk.Euler3DTransform()
        made["zyx"].SetComputeZYX(True)
        made["zyx"].SetRotation(0.1, 0.5, -0.3)
        for name in ("VersorRigid3DTransform", "Similarity3DTransform"):
            made[name].SetRotation((0.0, 0.6, 0.8), 0.7)
        made["Similarity3DTransform"].SetScale(0.9)
    for name, transform in made.items():
        if name == "TranslationTransform":
            transform.SetOffset(shift)
        else:
            transform.SetCenter(center)
        if hasattr(transform, "SetTranslation"):
            transform.SetTranslation(shift)
    first, second = made["AffineTransform"], made["TranslationTransform"]
    return made | {"a composition": sitk.CompositeTransform([first, second, made["ScaleTransform"]])}


@pytest.mark.parametrize("ending", (".tfm", ".h5"))
@pytest.mark.parametrize("d, name", [(d, name) for d in (2, 3) for name in theirs(d)])
def test_their_transforms_are_read(d: int, name: str, ending: str, tmp_path: Path) -> None:
    (fixed, moving), path, transform = pair(d), tmp_path / f"theirs{ending}", theirs(d)[name]
    sitk.WriteTransform(transform, str(path))
    warp = read_itk(path, fixed, moving)
    points = 10 * noise(6, d, seed=3)
    expected = torch.tensor([transform.TransformPoint(point) for point in points.tolist()], dtype=torch.float64)
    assert (expected - points).abs().max() > 0.3
    torch.testing.assert_close(moved_in_world(warp, points, fixed, moving)[0], expected, atol=1e-9, rtol=0)


def test_a_matlab_file_of_theirs(tmp_path: Path) -> None:
    (fixed, moving), path, transform = pair(3), tmp_path / "theirs.mat", theirs(3)["AffineTransform"]
    sitk.WriteTransform(transform, str(path))
    warp = read_itk(path, fixed, moving)
    assert isinstance(warp, stn.MatrixWarp)
    point = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)
    moved = in_world(warp, fixed, moving)[0] @ torch.cat([point, torch.ones(1, dtype=torch.float64)])
    np.testing.assert_allclose(moved[:3].numpy(), transform.TransformPoint(point.tolist()), atol=1e-9)


@pytest.mark.parametrize("dtype", (torch.int16, torch.uint16, torch.uint8, torch.int32, torch.float32, torch.float64))
@pytest.mark.parametrize("shape", ((1, 5, 6, 7), (3, 5, 6, 7), (1, 6, 7)))
@pytest.mark.parametrize("ending", (".nii", ".nii.gz"))
def test_volumes_keep_their_numbers_and_their_place(
    ending: str, shape: tuple[int, ...], dtype: torch.dtype, tmp_path: Path
) -> None:
    space, path = space_of(shape[1:], 2), tmp_path / f"volume{ending}"
    low, high = (-1000, 3000) if dtype in (torch.int16, torch.int32) else (0, 255)
    values = torch.randint(low, high, (1, *shape), generator=torch.Generator().manual_seed(0)).to(dtype)
    write_nifti(Volume(values, space), path)
    again = read_nifti(path)
    assert again.values.dtype == dtype and torch.equal(again.values, values)
    torch.testing.assert_close(again.space.voxels_to_mm, space.voxels_to_mm, atol=1e-4, rtol=0)  # the file has float32
    image: Any = nibabel.load(path)
    first = np.asarray(image.dataobj).reshape(*reversed(shape[1:]), -1)[..., 0]
    assert (first.T == values[0, 0].numpy()).all()
    if shape[0] == 1:
        read = Space.from_sitk(sitk.ReadImage(str(path)))
        torch.testing.assert_close(read.voxels_to_mm, space.voxels_to_mm, atol=1e-4, rtol=0)


def test_a_volume_is_resampled_to_the_voxels_of_another() -> None:
    fixed, moving = pair(3)
    image = noise(1, 1, *moving.size)
    reference = in_sitk(torch.zeros(1, 1, *fixed.size, dtype=torch.float64), fixed)
    theirs = sitk.Resample(in_sitk(image, moving), reference, sitk.Transform(3, sitk.sitkIdentity), sitk.sitkLinear, 0.0)
    ours, mask = fixed.to(moving).sample(image, fixed.size, return_mask=True)
    whole = mask[0, 0] > 0.999
    torch.testing.assert_close(ours[0, 0][whole], torch.from_numpy(sitk.GetArrayFromImage(theirs))[whole], atol=1e-5, rtol=0)
    assert torch.equal(fixed.resample(image, moving), ours)


def test_a_rotation_of_millimeters_keeps_shapes() -> None:
    """A rigid warp with the extent of a space as its aspect is a rotation in the world."""
    space = Space((10, 40, 30), spacing=(3.0, 0.5, 1.0))
    warp = stn.Rigid(3, aspect=space.extent)(torch.tensor([[0.2, -0.1, 0.4, 0.0, 0.0, 0.0]], dtype=torch.float64))
    linear = in_world(warp, space, space)[0, :3, :3]
    torch.testing.assert_close(linear @ linear.mT, torch.eye(3, dtype=torch.float64), atol=1e-12, rtol=0)
    assert math.isclose(torch.linalg.det(linear).item(), 1.0)


SPACE = Space((4, 5, 6))
BAD: dict[str, tuple[Callable[[Path], object], str]] = {
    "a size": (lambda p: Space((4, 0)), "size must have positive lengths"),
    "a spacing": (
        lambda p: Space((4, 5), spacing=(1.0, -1.0)),
        r"spacing must be \(H, W\), positive and finite; got \(1.0, -1",
    ),
    "an origin": (lambda p: Space((4, 5), origin=(0.0, math.nan)), "origin must be 2 finite numbers; got"),
    "a direction": (lambda p: Space((4, 5), direction=[[1, 1], [0, 1]]), "direction must have perpendicular columns"),
    "a matrix": (lambda p: Space.from_affine(np.eye(3), (4, 5, 6)), r"affine must be a matrix \(4, 4\) .*; got \(3, 3\)"),
    "a sheared matrix": (
        lambda p: Space.from_affine([[1, 1, 0], [0, 1, 0], [0, 0, 1]], (4, 5)),
        "direction must have perpendicular columns of length 1; got",
    ),
    "points": (lambda p: SPACE.to_mm(torch.zeros(2)), r"points must be \(..., 3\); got \(2,\)"),
    "dimensions": (lambda p: SPACE.to(Space((4, 5))), "both spaces must have the same number of dimensions; got 3 and 2"),
    "a volume": (lambda p: SPACE.resample(torch.zeros(1, 1, 4, 5, 7), SPACE), r"volume must have the size of its space"),
    "an ending": (lambda p: write_itk(affine(3), p / "x.npy", SPACE, SPACE), "path must end in .tfm, .*; got x.npy"),
    "a bent warp": (
        lambda p: write_itk(stn.BSpline(3)(torch.zeros(1, 1029)), p / "x.tfm", SPACE, SPACE),
        "path must end in .nii or .nii.gz for a warp that is not affine, as a field; got x.tfm",
    ),
    "a batch": (
        lambda p: write_itk(stn.Translation(3)(torch.zeros(2, 3)), p / "x.tfm", SPACE, SPACE),
        r"warp must be one warp, of batch \(1,\); got \(2,\)",
    ),
    "a plane": (
        lambda p: write_itk(affine(2), p / "x.tfm", SPACE, SPACE),
        "fixed must have 2 dimensions, like the warp; got 3",
    ),
    "no file": (lambda p: read_itk(p / "x.tfm", SPACE, SPACE), "path must be the file of a transform; .* does not exist"),
    "no volume": (lambda p: read_nifti(p / "x.nii"), "path must be a NIfTI file; .* does not exist"),
    "a picture": (lambda p: read_nifti(p / "x.png"), "path must end in .nii or .nii.gz; got x.png"),
    "half precision": (
        lambda p: write_nifti(Volume(torch.zeros(1, 1, 4, 5, 6).half(), SPACE), p / "x.nii"),
        "volume must have a dtype that NIfTI has, .*; got torch.float16",
    ),
    "another size": (
        lambda p: write_nifti(Volume(torch.zeros(1, 1, 4, 5, 5), SPACE), p / "x.nii"),
        r"values must be \(1, C, 4, 5, 6\) for a space of this size; got \(1, 1, 4, 5, 5\)",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_what_does_not_fit_is_a_sentence(name: str, tmp_path: Path) -> None:
    call, sentence = BAD[name]
    with pytest.raises(stn.InputError, match=sentence):
        call(tmp_path)


@pytest.mark.parametrize(
    "ending, content, sentence",
    (
        (".tfm", b"", "holds none"),
        (".tfm", b"\xff\xfe", "reading .* raised UnicodeDecodeError"),
        (
            ".tfm",
            b"Transform: BSplineTransform_double_3_3\nParameters: 1\nFixedParameters: 1",
            "the transform must be one of Affine",
        ),
        (
            ".tfm",
            b"Transform: AffineTransform_double_3_3\nParameters: 1 2\nFixedParameters: 0 0 0",
            "must have 12 parameters",
        ),
        (
            ".tfm",
            b"Transform: Euler2DTransform_double_2_2\nParameters: 1 2 3\nFixedParameters: 0 0",
            "transforms in 3-D; .* holds Euler2D",
        ),
        (".mat", b"\0" * 30, "reading .* raised"),
        (".h5", b"no file of HDF5", "reading .* raised OSError"),
        (".nii", b"nothing", "path must be a complete NIfTI file"),
    ),
)
def test_damaged_files_are_a_sentence(ending: str, content: bytes, sentence: str, tmp_path: Path) -> None:
    path = tmp_path / f"damaged{ending}"
    path.write_bytes(content)
    with pytest.raises(stn.InputError, match=sentence):
        read_itk(path, SPACE, SPACE)


def test_a_write_that_fails_leaves_the_file_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "found.tfm"
    write_itk(affine(3), path, SPACE, SPACE)
    before = path.read_bytes()
    monkeypatch.setattr("os.replace", lambda *names: (_ for _ in ()).throw(OSError(28, "no space")))
    with pytest.raises(stn.InputError, match=re.escape("found.tfm must be a writable file; the disk is full")):
        write_itk(stn.Translation(3)(torch.ones(1, 3)), path, SPACE, SPACE)
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]
