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

from stn import _check
from stn.space import Volume, read_nifti
from stn.transforms import MatrixWarp

SOURCE = "http://medicaldecathlon.com"
FOLDERS = (("images", "labels"), ("imagesTr", "labelsTr"))
LABELS = {1: "anterior", 2: "posterior"}
HELD_OUT = 5  # one of so many cases is held out
DARKEST, BRIGHTEST = 0.01, 0.99  # quantiles of a volume that become 0 and 1


@dataclass(frozen=True, eq=False)
class Hippocampus:
    """A volume with its labels."""

    name: str
    image: Tensor  # (1, 1, D, H, W) float32 in [0, 1]
    labels: Tensor  # (1, 1, D, H, W) uint8: 0, 1, 2

    @property
    def size(self) -> tuple[int, ...]:
        return tuple(self.image.shape[2:])

    def centered(self, size: Sequence[int]) -> MatrixWarp:
        """Return the warp from an image of this size, whose center and voxels are upon those of the volume."""
        scale = [b / a for a, b in zip(self.size, size, strict=True)][::-1]
        return MatrixWarp(torch.diag(torch.tensor(scale))[None] @ torch.eye(3, 4))


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
    if values.ndim != 5 or values.shape[1] != 1:
        _check.fail(f"{path} must hold one volume (1, D, H, W); got {tuple(values.shape[1:])}")
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
