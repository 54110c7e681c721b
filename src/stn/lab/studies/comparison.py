"""Registration by stn and by other programs: photographs and a brain, rigid, affine and deformable.

    pip install SimpleITK pystackreg kornia picsl-greedy antspyx
    python -m stn.lab.studies.comparison [--photos DIR] [--brain T1.nii.gz --white WM.nii.gz] [--slices DIR] [--cases 12]
        [--resume] [--out NAME]

The moving image is a photograph in gray, or the brain at 2 mm. The fixed image is sampled from it through a known map,
with another brightness and noise. The map is rigid (up to 15 degrees and 8 % of the width), affine (also up to 10 % of
scale along each axis), or deformable (a smooth velocity without folds, with a largest displacement of 8 pixels or
voxels). The error is the mean distance between the found and the true positions, over pixels that lie inside the
moving image and on the object. A failure is an error above half a pixel (of a deformable map 2 pixels), or an
exception. Dice: of the white matter, warped by the found map and by the true one. Seconds are those of one pair, after
a first call on small images. CPU seconds are of all threads of the process and its children. The slices have no known
map: 1 - correlation says how different they remain. Each row is written when it is measured; --resume keeps the rows of
an earlier run, and measures the others.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

import stn
from stn.grid import lattice
from stn.io.images import read_picture
from stn.lab.bench.kept import Kept, Row
from stn.lab.bench.rivals import AFFINE, DEFORMABLE, RIGID, RIVALS, Array, Move, Rival, seconds_of_cpu
from stn.lab.experiments.machine import machine

ENDINGS = (".png", ".jpg", ".jpeg")
FAILED = {RIGID: 0.5, AFFINE: 0.5, DEFORMABLE: 2.0}  # mean error in pixels
LARGEST = 8.0  # displacement of a deformable map, pixels
SPARSE = {2: 8, 3: 6}  # pixels between the points of an error


@dataclass(frozen=True)
class Case:
    """A pair of images with a known map, or with none."""

    name: str
    family: str
    moving: Array  # (*size) in [0, 1]
    fixed: Array
    true: stn.Warp | None
    labels: Array | None = None  # of the moving image, bool
    seed: int = 0  # of the map and the noise


def drawn(family: str, size: Sequence[int], seed: int) -> stn.Warp:
    """Draw a map of one sample."""
    d, generator = len(size), torch.Generator().manual_seed(seed)

    def within(most: float, count: int) -> Tensor:
        return most * (2 * torch.rand(1, count, dtype=torch.float64, generator=generator) - 1)

    if family == DEFORMABLE:
        velocity, points = stn.Velocity(d, shape=(7,) * d), lattice([24] * d, dtype=torch.float64)
        theta, half = within(0.1, velocity.num_params), torch.tensor(list(size)[::-1]) / 2
        for _ in range(4):  # the length of a flow is not quite linear in its velocity
            pixels = ((velocity(theta).points(points.flatten(0, -2)) - points.flatten(0, -2)) * half).norm(dim=-1).max()
            theta = theta * LARGEST / pixels
        return velocity(theta)
    angle = within(math.radians(15), 1 if d == 2 else 3)
    scale = 1 + within(0.1, d) if family == AFFINE else torch.ones(1, d, dtype=torch.float64)
    turn = angle[:, 0] if d == 2 else angle
    shift = within(0.16, d)
    return stn.Affine.from_parts(angle=turn, scale=scale, translation=shift, ndim=d, aspect=tuple(size))


def pair(name: str, image: Tensor, family: str, seed: int, labels: Tensor | None = None) -> Case:  # (1, 1, *size)
    size = tuple(image.shape[2:])
    true = drawn(family, size, seed)
    noise = 0.02 * torch.randn(image.shape, generator=torch.Generator().manual_seed(seed))
    fixed = (0.85 * true.sample(image, mode="bicubic") + 0.05 + noise).clamp(0, 1)
    known = None if labels is None else labels[0, 0].numpy() > 0.5
    return Case(name, family, image[0, 0].numpy(), fixed[0, 0].numpy(), true, known, seed)


def photographs(root: Path, families: Sequence[str], count: int, side: int) -> Iterator[Case]:
    paths = sorted(path for path in root.iterdir() if path.suffix.lower() in ENDINGS)[:count]
    for seed, path in enumerate(paths):
        gray = read_picture(path)[:3].mean(dim=0)[None, None]
        image = F.interpolate(gray, size=(side, side), mode="bilinear", antialias=True)
        yield from (pair(path.stem, image, family, seed) for family in families)


def brains(head: Path, white: Path, families: Sequence[str], count: int) -> Iterator[Case]:
    """Yield the brain at half its resolution, with the white matter as labels."""
    values, matter = (F.avg_pool3d(stn.read_nifti(path).values.float(), 2) for path in (head, white))
    image, labels = values / values.max(), (matter / matter.max() > 0.5).float()
    for seed in range(count):
        yield from (pair("brain", image, family, seed, labels) for family in families)


def slices(root: Path, families: Sequence[str]) -> Iterator[Case]:
    moving, fixed = (read_picture(root / f"{name}slice.jpg")[0].numpy() for name in ("r16", "r64"))
    yield from (Case("r16 to r64", family, moving, fixed, None) for family in families)


def key(case: Case, rival: Rival) -> Row:
    return {"case": case.name, "seed": case.seed, "family": case.family, "contender": rival.name}


def row(case: Case, rival: Rival) -> Row:
    """Run one contender on one case."""
    found = key(case, rival)
    start, cpu = time.perf_counter(), seconds_of_cpu()
    try:
        move = rival.find(case.moving, case.fixed, case.family)
        found |= {"seconds": time.perf_counter() - start, "cpu_seconds": seconds_of_cpu() - cpu}
        found |= scores(case, move)
    except Exception as error:  # a failure of a contender is a result
        found |= {"failed": True, "exception": f"{type(error).__name__}: {error}"[:200]}
    return found


def scores(case: Case, move: Move) -> Row:
    size = case.fixed.shape
    if case.true is None:
        there = move(_pixels(size, 1)).reshape(*size, -1)
        alike = np.corrcoef(_read(case.moving, there).ravel(), case.fixed.ravel())[0, 1]
        return {"dissimilarity": float(1 - alike), "failed": False}
    points = _pixels(size, SPARSE[len(size)])
    true = _true(case, points)
    limit = np.array(size[::-1]) - 1
    counted = ((true >= 0) & (true <= limit)).all(axis=-1)
    if len(size) == 3:  # air has no position
        counted &= _read(case.moving, true) > 0.1
    error = float(np.linalg.norm(move(points[counted]) - true[counted], axis=-1).mean())
    known: Row = {"pixels": error, "failed": not error <= FAILED[case.family]}
    if case.labels is not None:
        every = _pixels(size, 2)
        a, b = (_read(case.labels.astype(np.float64), there) > 0.5 for there in (move(every), _true(case, every)))
        known["dice"] = float(2 * (a & b).sum() / (a.sum() + b.sum()))
    return known


def _true(case: Case, points: Array) -> Array:
    assert case.true is not None
    sizes = (case.moving.shape, case.fixed.shape)
    return case.true.points(torch.from_numpy(points), pixels=sizes)[0].detach().numpy()


def _pixels(size: Sequence[int], step: int) -> Array:
    """Return every `step`-th pixel along each axis: (P, d), x first."""
    axes = [np.arange(step // 2, n, step, dtype=np.float64) for n in size]
    return np.stack(np.meshgrid(*axes, indexing="ij")[::-1], axis=-1).reshape(-1, len(size))


def _read(image: Array, points: Array) -> Array:  # (.., d) pixels -> (..), linear
    grid = torch.from_numpy(points.reshape(1, *(1,) * (image.ndim - 1), -1, image.ndim))
    given = torch.from_numpy(np.ascontiguousarray(image, np.float64))[None, None]
    read = stn.grid_sample(given, grid, units="pixel")
    found: Array = read.numpy().reshape(points.shape[:-1])
    return found


def compare(kept: Kept, cases: Iterator[Case], rivals: Sequence[Rival] = RIVALS) -> None:
    """Run all contenders that are installed on all cases that have no row yet, one after the other, and print each row."""
    warm: set[tuple[str, str, int]] = set()
    for case in cases:
        d = case.fixed.ndim
        for rival in (one for one in rivals if one.installed and one.takes(d, case.family)):
            if kept.has(**key(case, rival)):
                continue
            if (rival.name, case.family, d) not in warm:
                moving, fixed = (image[(slice(None, 40),) * d] for image in (case.moving, case.fixed))
                row(Case("", case.family, moving, fixed, None), rival)
                warm.add((rival.name, case.family, d))
            kept.add(row(case, rival))
            print(kept.rows[-1], flush=True)


def missing(rivals: Sequence[Rival] = RIVALS) -> list[str]:
    """Return a sentence for each contender that is not installed."""
    return [f"{one.name} is not installed (package {one.module}) and has no rows." for one in rivals if not one.installed]


def table(rows: Sequence[Row], title: str) -> str:
    """Return the medians for each case, family and contender as Markdown."""
    lines = [f"## {title}", "", __doc__ or "", *missing(), ""]
    lines += [
        "| images | family | contender | pairs | failures | error, pixels | Dice | 1 - correlation | seconds | CPU s |"
    ]
    lines += ["|---|---|---|---:|---:|---:|---:|---:|---:|---:|"]
    kinds = dict.fromkeys((_images(one), one["family"], one["contender"]) for one in rows)
    for kind in kinds:
        mine = [one for one in rows if (_images(one), one["family"], one["contender"]) == kind]
        keys = ("pixels", "dice", "dissimilarity", "seconds", "cpu_seconds")
        shown = [_median([one[key] for one in mine if key in one]) for key in keys]
        failed = sum(one["failed"] for one in mine)
        lines.append(f"| {' | '.join(kind)} | {len(mine)} | {failed} | {' | '.join(shown)} |")
    return "\n".join(lines) + "\n"


def _images(one: Row) -> str:
    return one["case"] if one["case"] in ("brain", "r16 to r64") else "photographs"


def _median(values: Sequence[float]) -> str:
    return f"{median(values):.3f}" if values else ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, help="folder of pictures")
    parser.add_argument("--brain", type=Path, help="head, as NIfTI")
    parser.add_argument("--white", type=Path, help="white matter of it, as NIfTI")
    parser.add_argument("--slices", type=Path, help="folder of r16slice.jpg and r64slice.jpg")
    parser.add_argument("--families", nargs="+", default=[RIGID, AFFINE, DEFORMABLE], choices=(RIGID, AFFINE, DEFORMABLE))
    parser.add_argument("--cases", type=int, default=12, help="pictures, and maps of the brain")
    parser.add_argument("--side", type=int, default=256, help="pixels of the photographs")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--resume", action="store_true", help="keep the rows in --out")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/comparison"), help="without the suffix")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    print(*missing(), sep="\n")
    title = f"Registration, {given.threads} threads, {machine()}, torch {torch.__version__}"
    kept = Kept(given.out, lambda rows: table(rows, title), resume=given.resume)
    if given.photos is not None:
        compare(kept, photographs(given.photos, given.families, given.cases, given.side))
    if given.brain is not None and given.white is not None:
        compare(kept, brains(given.brain, given.white, given.families, given.cases))
    if given.slices is not None:
        compare(kept, slices(given.slices, given.families))
    print(table(kept.rows, title))


if __name__ == "__main__":
    main()
