"""Registration of rotated, shifted and scaled photographs with stn and kornia, and of a volume of 96x96x96 voxels.

    python -m stn.lab.studies.registration --root DIR [--side 256] [--pairs 10] [--out NAME]

DIR contains pictures. The moving image is the middle half of a picture, in gray. The fixed image is sampled from the whole
picture through an affine map (up to 20 degrees, 15 % of the width, 10 % of scale along each axis), so it has no empty
border. Success means that the mean distance between the found and the true positions is below half a pixel. kornia has no
affine model; its homography includes affine maps. It runs with its default settings, and with a learning rate that we found
to be better. The volume is noise of several resolutions, rotated by 0.25 radians and shifted by 8 % of its width. Seconds
are the time of one pair, after warm-up.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any

import torch
from kornia.geometry import ImageRegistrator
from torch import Tensor
from torch.nn import functional as F

import stn
from stn.grid import lattice
from stn.io.files import write_rows
from stn.io.images import read_picture
from stn.lab.experiments.machine import machine
from stn.transforms import Warp

Row = dict[str, Any]
Find = Callable[[Tensor, Tensor], Warp]
ENDINGS = (".png", ".jpg", ".jpeg")
SUCCESS = 0.5  # pixels
VOLUME = 96


def ours(transform: str) -> Find:
    return lambda moving, fixed: stn.register(moving, fixed, transform).warp


def kornias(**options: Any) -> Find:
    def find(moving: Tensor, fixed: Tensor) -> Warp:
        found = ImageRegistrator("homography", **options).register(moving, fixed)
        assert isinstance(found, Tensor)  # the intermediate warps are returned only on request
        return stn.MatrixWarp(found.detach())

    return find


CONTENDERS: dict[str, Find] = {
    "stn affine": ours("affine"),
    "stn projective": ours("projective"),
    "kornia homography": kornias(),
    "kornia homography, lr 1e-2, 300 steps": kornias(lr=1e-2, num_iterations=300, tolerance=1e-6),
}


def maps(count: int) -> stn.MatrixWarp:
    """Draw (count,) affine maps."""

    def within(most: float, *shape: int) -> Tensor:
        return most * (2 * torch.rand(count, *shape, generator=generator) - 1)

    generator = torch.Generator().manual_seed(0)
    return stn.Affine.from_parts(angle=within(math.radians(20)), translation=within(0.3, 2), scale=1 + within(0.1, 2))


def pictures(root: Path, side: int) -> Iterator[tuple[str, Tensor]]:
    """Yield gray pictures in [0, 1], twice `side` along each axis."""
    for path in sorted(path for path in root.iterdir() if path.suffix.lower() in ENDINGS):
        grey = read_picture(path)[:3].mean(dim=0)[None, None]
        yield path.stem, F.interpolate(grey, size=(2 * side, 2 * side), mode="bilinear", antialias=True)


def error(found: Warp, true: Warp, side: int) -> float:
    points = lattice((9,) * true.ndim).flatten(0, -2)
    return ((found.points(points) - true.points(points)) * side / 2).norm(dim=-1).mean().item()


def pairs(root: Path, side: int, count: int) -> Iterator[tuple[str, Tensor, Tensor, Warp]]:
    inner = lattice((side, side)) / 2
    for name, wide in pictures(root, side):
        for matrix in maps(count).matrix.split(1):
            true = stn.MatrixWarp(matrix)
            fixed = stn.grid_sample(wide, true.grid((side, side)) / 2, mode="bicubic")
            yield name, stn.grid_sample(wide, inner.unsqueeze(0), mode="bicubic"), fixed, true


def photographs(root: Path, side: int, count: int) -> list[Row]:
    rows: list[Row] = []
    for name, moving, fixed, true in pairs(root, side, count):
        for contender, find in CONTENDERS.items():
            if not any(row["contender"] == contender for row in rows):
                find(moving, fixed)  # warm
            start = time.perf_counter()
            found = find(moving, fixed)
            seconds = time.perf_counter() - start
            rows.append({"picture": name, "contender": contender, "pixels": error(found, true, side), "seconds": seconds})
            print(*rows[-1].values(), flush=True)
    return rows


def volume() -> Row:
    generator = torch.Generator().manual_seed(0)
    total = torch.zeros(())
    for cells in (5, 10, 20):
        octave = torch.rand(1, 1, cells, cells, cells, generator=generator) / cells**0.5
        total = total + F.interpolate(octave, size=(2 * VOLUME,) * 3, mode="trilinear")
    size, true = (VOLUME,) * 3, stn.Rigid(3)(torch.tensor([[0.2, -0.1, 0.1, 0.16, -0.1, 0.05]]))
    moving = stn.grid_sample(total, lattice(size).unsqueeze(0) / 2)
    fixed = stn.grid_sample(total, true.grid(size) / 2)
    stn.register(moving[..., ::4, ::4, ::4], fixed[..., ::4, ::4, ::4], "rigid", steps=2)  # warm
    start = time.perf_counter()
    found = stn.register(moving, fixed, "rigid")
    seconds = time.perf_counter() - start
    return {"picture": "volume", "contender": "stn rigid", "pixels": error(found.warp, true, VOLUME), "seconds": seconds}


def table(rows: list[Row], title: str) -> str:
    lines = [f"## {title}", "", __doc__ or "", ""]
    lines += ["| contender | pairs | success | median error, pixels | median seconds |", "|---|---:|---:|---:|---:|"]
    for contender in dict.fromkeys(row["contender"] for row in rows):
        mine = [row for row in rows if row["contender"] == contender]
        success = 100 * sum(row["pixels"] < SUCCESS for row in mine) / len(mine)
        middle, seconds = (median(row[key] for row in mine) for key in ("pixels", "seconds"))
        lines.append(f"| {contender} | {len(mine)} | {success:.0f} % | {middle:.3f} | {seconds:.2f} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, required=True, help="folder of pictures")
    parser.add_argument("--side", type=int, default=256, help="pixels of the images")
    parser.add_argument("--pairs", type=int, default=10, help="per picture")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/registration"), help="without the suffix")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    rows = [*photographs(given.root, given.side, given.pairs), volume()]
    title = f"Registration, {given.side} pixels, {given.threads} threads, {machine()}, torch {torch.__version__}"
    page = table(rows, title)
    write_rows(given.out, rows, page)
    print(page)


if __name__ == "__main__":
    main()
