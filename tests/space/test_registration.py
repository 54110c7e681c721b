"""Registration of volumes in millimeters, from Python and from the command line."""

import re
import sys
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from torch import Tensor

import stn
from stn import cli
from stn.grid import lattice
from stn.space import Space, Volume, read_nifti, write_nifti
from stn.space.geometry import from_world, in_world
from stn.space.parameters import euler

FIXED = Space((12, 30, 36), spacing=(3.0, 1.2, 1.0), origin=(-18.0, -18.0, -18.0))
MOVING = Space((30, 24, 26), spacing=(1.3, 1.5, 1.5), origin=(-19.0, -17.0, -20.0), direction=euler([0.05, 0.0, 0.1], False))


def blobs(space: Space, moved: Tensor | None = None) -> Tensor:
    """A made organ in millimeters, before it moves by a matrix (4, 4), with values as of a CT."""
    points = space.to_mm(lattice(space.size, dtype=torch.float64))
    if moved is not None:
        inverse = torch.linalg.inv(moved)
        points = points @ inverse[:3, :3].mT + inverse[:3, 3]
    total = torch.zeros(space.size, dtype=torch.float64)
    for center, width, height in (
        ((4, 0, 3), 6, 2000),
        ((-6, 5, -4), 4, 1500),
        ((0, -7, 2), 3, 2500),
        ((-3, -2, 8), 3, 1000),
    ):
        away = (points - torch.tensor(center, dtype=torch.float64)).square().sum(dim=-1)
        total += height * torch.exp(-away / (2 * width**2))
    return (total - 1000).round().to(torch.int16)[None, None]


def turn() -> Tensor:
    moved = torch.eye(4, dtype=torch.float64)
    moved[:3, :3] = euler([0.1, -0.08, 0.2], zyx=False)
    moved[:3, 3] = torch.tensor([2.0, -1.5, 1.0])
    return moved


def pair() -> tuple[Volume, Volume]:
    return Volume(blobs(MOVING, turn()), MOVING), Volume(blobs(FIXED), FIXED)


def test_a_rotation_of_voxels_that_are_not_cubes() -> None:
    moving, fixed = pair()
    found = stn.register(moving, fixed, "rigid")
    points = 8 * (2 * torch.rand(50, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64) - 1)
    true = from_world(turn()[None], FIXED, MOVING)
    ours = MOVING.to_mm(found.warp.points(FIXED.to_normalized(points)).double())
    theirs = MOVING.to_mm(true.points(FIXED.to_normalized(points)))
    assert (ours - theirs).norm(dim=-1).max() < 0.1  # mm
    assert (ours[0] - points).norm(dim=-1).mean() > 2
    image = found.image
    assert image.values.dtype == torch.int16 and image.space == FIXED and image.values.min() < -900
    assert (image.values.double() - fixed.values.double()).abs().mean() < 20


def test_volumes_that_do_not_meet_in_the_world() -> None:
    moving, fixed = pair()
    far = Space(MOVING.size, spacing=MOVING.spacing, origin=(500.0, 0.0, 0.0), direction=MOVING.direction)
    found = stn.register(Volume(moving.values, far), fixed, "rigid", steps=50)
    assert (found.image.values.double() - fixed.values.double()).abs().mean() < 40


def test_one_volume_alone() -> None:
    moving, fixed = pair()
    with pytest.raises(stn.InputError, match="moving and fixed must both be stn.Volume, or neither; got one and a Tensor"):
        stn.register(moving.values.float(), fixed)


def run(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["stn", *map(str, arguments)])
    try:
        cli.main()
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    moving, fixed = pair()
    marks = (moving.values > 200).to(torch.uint8) * 7
    for name, volume in {"moving": moving, "fixed": fixed, "labels": Volume(marks, MOVING)}.items():
        write_nifti(volume, tmp_path / f"{name}.nii.gz")
    names = [tmp_path / f"{name}.nii.gz" for name in ("moving", "fixed", "out")]
    options = ["--transform", "rigid", "--itk", tmp_path / "found.tfm", "--theta", tmp_path / "theta.npy"]
    options += ["--labels", tmp_path / "labels.nii.gz", tmp_path / "marked.nii.gz"]
    assert run(monkeypatch, "register", *names, *options) == 0
    assert "family: Rigid(ndim=3" in capsys.readouterr().out and np.load(tmp_path / "theta.npy").shape == (6,)
    out, marked = read_nifti(names[2]), read_nifti(tmp_path / "marked.nii.gz")
    assert out.values.dtype == torch.int16 and out.space.size == FIXED.size
    assert (out.values.double() - fixed.values.double()).abs().mean() < 20
    assert set(marked.values.unique().tolist()) == {0, 7} and marked.values.dtype == torch.uint8
    inside, wanted = marked.values > 0, fixed.values > 200
    assert 2 * (inside & wanted).sum() / (inside.sum() + wanted.sum()) > 0.9  # Dice
    transform = sitk.ReadTransform(str(tmp_path / "found.tfm"))
    resampled = sitk.Resample(
        sitk.ReadImage(str(names[0]), sitk.sitkFloat64), sitk.ReadImage(str(names[1])), transform, sitk.sitkLinear, 0.0
    )
    theirs = torch.from_numpy(sitk.GetArrayFromImage(resampled))
    inner = (slice(3, -3), slice(6, -6), slice(6, -6))
    assert (theirs[inner] - out.values[0, 0][inner].double()).abs().max() < 1.5


@pytest.mark.parametrize(
    "arguments, sentence",
    (
        (("m.nii.gz", "f.png", "o.nii.gz"), "FIXED must end in .nii or .nii.gz, like the other files; got f.png"),
        (("m.png", "f.png", "o.png", "--itk", "x.tfm"), "--itk requires NIfTI files .*; got m.png"),
        (("m.nii", "f.nii", "o.nii", "--itk", "x.npy"), "--itk must end in .tfm .*; got x.npy"),
        (("m.nii", "f.nii", "m.nii"), "OUT must not be an input file; got m.nii"),
        (("m.nii", "f.nii", "o.nii"), "path must be a NIfTI file; m.nii does not exist"),
    ),
)
def test_wrong_files(
    arguments: tuple[str, ...],
    sentence: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(monkeypatch, "register", *arguments) == 2
    text = " ".join(capsys.readouterr().err.split())
    assert re.search(sentence, text), text


def test_the_matrix_between_worlds_is_the_one_that_was_applied() -> None:
    warp = from_world(turn()[None], FIXED, MOVING)
    torch.testing.assert_close(in_world(warp, FIXED, MOVING)[0], turn(), atol=1e-10, rtol=0)
