"""Hippocampi: 260 MR volumes of about 35x51x35 voxels of 1 mm with labels (Simpson et al. 2019, Decathlon's task 4).

The folder holds `images` and `labels`, or `imagesTr` and `labelsTr` as in the official archive Task04_Hippocampus.tar. Of
the cases in the order of their names every fifth is held out. Labels serve to evaluate alone.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from stn import _check
from stn.space import Volume, read_nifti

SOURCE = "http://medicaldecathlon.com"
FOLDERS = (("images", "labels"), ("imagesTr", "labelsTr"))
LABELS = {1: "anterior", 2: "posterior"}
HELD_OUT = 5  # one of so many cases is held out
DARKEST, BRIGHTEST = 0.01, 0.99  # quantiles of a volume that become 0 and 1
BOX = (48, 64, 48)  # voxels, (D, H, W): the largest volume has 47x59x43


@dataclass(frozen=True, eq=False)
class Hippocampus:
    """A volume with its labels."""

    name: str
    image: Tensor  # (1, 1, D, H, W) float32 in [0, 1]
    labels: Tensor  # (1, 1, D, H, W) uint8: 0, 1, 2

    @property
    def size(self) -> tuple[int, ...]:
        return tuple(self.image.shape[2:])


class Hippocampi(NamedTuple):
    """The cases to learn from, or to choose settings on, and those to report on."""

    train: tuple[Hippocampus, ...]
    test: tuple[Hippocampus, ...]


Pair = tuple[Hippocampus, Hippocampus]  # moving, fixed


def load_hippocampus(root: Path | str) -> Hippocampi:
    """Read all cases. Values are mapped linearly, the 1 % darkest voxels to 0 and the 1 % brightest to 1.

    Raises: InputError, which names the file and what was expected of it.
    """
    images, labels = _folders(Path(root))
    paths = sorted(path for path in images.iterdir() if path.name.endswith(".nii.gz") and not path.name.startswith("."))
    if len(paths) < 2 * HELD_OUT:
        _check.fail(f"{images} must hold at least {2 * HELD_OUT} files .nii.gz; it has {len(paths)}")
    cases = [_case(path, labels / path.name) for path in paths]
    held = cases[HELD_OUT - 1 :: HELD_OUT]
    return Hippocampi(tuple(case for i, case in enumerate(cases) if (i + 1) % HELD_OUT), tuple(held))


def _folders(root: Path) -> tuple[Path, Path]:
    for images, labels in FOLDERS:
        if (root / images).is_dir() and (root / labels).is_dir():
            return root / images, root / labels
    names = " or ".join(" and ".join(pair) for pair in FOLDERS)
    _check.fail(f"root must hold the folders {names}; {root} does not. The data set, Task04_Hippocampus, is at {SOURCE}")


def _case(image: Path, labels: Path) -> Hippocampus:
    if not labels.is_file():
        _check.fail(f"{image} must have its labels in {labels}, which does not exist")
    values, marks = (_volume(path) for path in (image, labels))
    if values.shape != marks.shape:
        shapes = f"{tuple(values.shape[2:])} and {tuple(marks.shape[2:])}"
        _check.fail(f"{image} and {labels} must have the same size; got {shapes}")
    known = marks.round().to(torch.uint8)
    missing = [name for number, name in LABELS.items() if not (known == number).any()]
    if missing or known.max() > max(LABELS):
        _check.fail(f"{labels} must have the labels 0, 1 and 2; it has {', '.join(map(str, known.unique().tolist()))}")
    return Hippocampus(image.name.removesuffix(".nii.gz"), scaled(values), known)


def _volume(path: Path) -> Tensor:
    found: Volume = read_nifti(path)
    values = found.values.float()
    if values.ndim != 5 or values.shape[1] != 1 or any(n > most for n, most in zip(values.shape[2:], BOX, strict=True)):
        most = "x".join(map(str, BOX))
        _check.fail(f"{path} must hold one volume of at most {most} voxels; got {tuple(values.shape[1:])}")
    if any(abs(side - 1) > 1e-3 for side in found.space.spacing):
        _check.fail(f"{path} must have voxels of 1 mm; got {found.space.spacing}")
    if not values.isfinite().all():
        _check.fail(f"{path} must have finite values; got {int((~values.isfinite()).sum())} that are not finite")
    return values


def scaled(values: Tensor) -> Tensor:
    low, high = values.flatten().quantile(torch.tensor([DARKEST, BRIGHTEST])).tolist()
    return ((values - low) / max(high - low, 1e-6)).clamp(0, 1)


def pairs(cases: Sequence[Hippocampus], count: int, seed: int = 0) -> list[Pair]:
    """Draw different ordered pairs of two cases: (moving, fixed).

    Raises: InputError if there are fewer.
    """
    most = len(cases) * (len(cases) - 1)
    if not 1 <= count <= most:
        _check.fail(f"count must be from 1 to {most}, the number of pairs of {len(cases)} cases; got {count}")
    places = random.Random(seed).sample(range(most), count)
    found = [divmod(place, len(cases) - 1) for place in places]
    return [(cases[i], cases[j + (j >= i)]) for i, j in found]


def boxed(image: Tensor) -> tuple[Tensor, Tensor]:
    """Center a volume (1, 1, D, H, W) in BOX, its outer voxels repeated. Returns it, and 1 where it was, else 0."""
    size = tuple(image.shape[2:])
    before = corner(size)
    padding = [side for n, most, k in zip(size, BOX, before, strict=True) for side in (most - n - k, k)][::-1]
    mask = F.pad(torch.ones_like(image), padding)
    return F.pad(image, padding, mode="replicate"), mask


def corner(size: Sequence[int]) -> tuple[int, ...]:
    """Return the voxel of BOX at which the first voxel of a centered volume lies."""
    return tuple((most - n) // 2 for n, most in zip(size, BOX, strict=True))
