"""Registration of photographs with stn, pystackreg and kornia: rotated, shifted, scaled. And of a volume of 96x96x96 voxels.

    pip install kornia pystackreg
    python -m stn.lab.studies.registration --root DIR [--side 256] [--pairs 3]
        [--contenders NAME ..] [--resume] [--out NAME]

DIR contains pictures. The moving image is the middle half of a picture, in gray. The fixed image is sampled from the whole
picture through a known map, so it has no empty border, except in some corners of the largest maps. The map is affine (up to
20 degrees, 15 % of the width, 10 % of scale along each axis; or up to 45 degrees, 25 %, 25 %), or projective (the same,
with a perspective up to 0.1: opposite sides may differ by a factor of 1.2). Success means that the mean distance between
the found and the true positions is below half a pixel. kornia has no affine model; its homography includes affine maps. It
runs with its default settings, and with a learning rate that we found to be better. pystackreg (TurboReg) has no
homography. The volume is noise of several resolutions, rotated by 0.25 radians and shifted by 8 % of its width. Seconds are
the time of one pair, after warm-up; CPU seconds are those of all threads. Each row is written when it is measured; --resume
keeps the rows of an earlier run, and measures the others.
"""

from __future__ import annotations

import argparse
import importlib.util
import math
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

import stn
from stn.grid import lattice
from stn.io.images import read_picture
from stn.lab.bench.kept import Kept, Row
from stn.lab.experiments.machine import machine
from stn.transforms import Warp

Find = Callable[[Tensor, Tensor], Warp]
ENDINGS = (".png", ".jpg", ".jpeg")
SUCCESS = 0.5  # pixels
VOLUME = 96
AFFINE, PROJECTIVE = "affine", "projective"


class Motion(NamedTuple):
    """The largest map of a set of pairs."""

    family: str
    degrees: float
    shift: float  # half widths
    scale: float
    perspective: float = 0.0

    @property
    def name(self) -> str:
        return f"{self.family}, {self.degrees:.0f} degrees"


MOTIONS = (
    Motion(AFFINE, 20, 0.3, 0.1),
    Motion(AFFINE, 45, 0.5, 0.25),
    Motion(PROJECTIVE, 20, 0.3, 0.1, 0.1),
    Motion(PROJECTIVE, 45, 0.5, 0.25, 0.1),
)


class Contender(NamedTuple):
    module: str  # the package that it needs
    families: tuple[str, ...]
    find: Find


def ours(transform: str) -> Find:
    return lambda moving, fixed: stn.register(moving, fixed, transform).warp


def kornias(**options: Any) -> Find:
    def find(moving: Tensor, fixed: Tensor) -> Warp:
        from kornia.geometry import ImageRegistrator

        found = ImageRegistrator("homography", **options).register(moving, fixed)
        assert isinstance(found, Tensor)  # the intermediate warps are returned only on request
        return stn.MatrixWarp(found.detach())

    return find


def stackreg(moving: Tensor, fixed: Tensor) -> Warp:
    from pystackreg import StackReg

    pixels = StackReg(StackReg.AFFINE).register(fixed[0, 0].numpy(), moving[0, 0].numpy())  # fixed -> moving, 3x3
    half_h, half_w = (n / 2 for n in fixed.shape[2:])
    to_pixel = torch.tensor([[half_w, 0, half_w - 0.5], [0, half_h, half_h - 0.5], [0, 0, 1]], dtype=torch.float64)
    return stn.MatrixWarp((to_pixel.inverse() @ torch.from_numpy(pixels) @ to_pixel)[None, :2].float())


CONTENDERS: dict[str, Contender] = {
    "stn affine": Contender("stn", (AFFINE,), ours(AFFINE)),
    "stn projective": Contender("stn", (PROJECTIVE,), ours(PROJECTIVE)),
    "pystackreg affine": Contender("pystackreg", (AFFINE,), stackreg),
    "kornia homography": Contender("kornia", (AFFINE, PROJECTIVE), kornias()),
    "kornia homography, lr 1e-2, 300 steps": Contender(
        "kornia", (AFFINE, PROJECTIVE), kornias(lr=1e-2, num_iterations=300, tolerance=1e-6)
    ),
}


def maps(motion: Motion, count: int) -> stn.MatrixWarp:
    """Draw (count,) maps."""

    def within(most: float, *shape: int) -> Tensor:
        return most * (2 * torch.rand(count, *shape, generator=generator) - 1)

    generator = torch.Generator().manual_seed(0)
    turn = within(math.radians(motion.degrees))
    affine = stn.Affine.from_parts(angle=turn, translation=within(motion.shift, 2), scale=1 + within(motion.scale, 2))
    if not motion.perspective:
        return affine
    slant = torch.eye(3).repeat(count, 1, 1)
    slant[:, 2, :2] = within(motion.perspective, 2)
    return affine @ stn.MatrixWarp(slant)


def pictures(root: Path, side: int) -> Iterator[tuple[str, Tensor]]:
    """Yield gray pictures in [0, 1], twice `side` along each axis."""
    for path in sorted(path for path in root.iterdir() if path.suffix.lower() in ENDINGS):
        grey = read_picture(path)[:3].mean(dim=0)[None, None]
        yield path.stem, F.interpolate(grey, size=(2 * side, 2 * side), mode="bilinear", antialias=True)


def error(found: Warp, true: Warp, side: int) -> float:
    points = lattice((9,) * true.ndim).flatten(0, -2)
    return ((found.points(points) - true.points(points)) * side / 2).norm(dim=-1).mean().item()


def pairs(root: Path, side: int, motion: Motion, count: int) -> Iterator[tuple[str, Tensor, Tensor, Warp]]:
    inner = lattice((side, side)) / 2
    for picture, wide in pictures(root, side):
        for number, matrix in enumerate(maps(motion, count).matrix.split(1)):
            true = stn.MatrixWarp(matrix)
            fixed = stn.grid_sample(wide, true.grid((side, side)) / 2, mode="bicubic")
            yield f"{picture} {number}", stn.grid_sample(wide, inner.unsqueeze(0), mode="bicubic"), fixed, true


def photographs(kept: Kept, root: Path, side: int, count: int, contenders: Sequence[str]) -> None:
    warm: set[str] = set()
    for motion in MOTIONS:
        chosen = [name for name in contenders if motion.family in CONTENDERS[name].families]
        for picture, moving, fixed, true in pairs(root, side, motion, count):
            for contender in chosen:
                named = {"picture": picture, "motion": motion.name, "contender": contender}
                if kept.has(**named):
                    continue
                find = CONTENDERS[contender].find
                if contender not in warm:
                    find(moving, fixed)
                    warm.add(contender)
                kept.add(named | timed(find, moving, fixed, true, side))
                print(*kept.rows[-1].values(), flush=True)


def timed(find: Find, moving: Tensor, fixed: Tensor, true: Warp, side: int) -> Row:
    start, cpu = time.perf_counter(), time.process_time()
    found = find(moving, fixed)
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    return {"pixels": error(found, true, side), "seconds": seconds, "cpu_seconds": cpu}


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
    found = timed(ours("rigid"), moving, fixed, true, VOLUME)
    return {"picture": "volume", "motion": "rigid, volume", "contender": "stn rigid"} | found


def table(rows: Sequence[Row], title: str) -> str:
    lines = [f"## {title}", "", __doc__ or "", ""]
    lines += ["| maps | contender | pairs | success | median error, pixels | median seconds | median CPU seconds |"]
    lines += ["|---|---|---:|---:|---:|---:|---:|"]
    for motion, contender in dict.fromkeys((row["motion"], row["contender"]) for row in rows):
        mine = [row for row in rows if (row["motion"], row["contender"]) == (motion, contender)]
        success = 100 * sum(row["pixels"] < SUCCESS for row in mine) / len(mine)
        middle, seconds, cpu = (median(row[key] for row in mine) for key in ("pixels", "seconds", "cpu_seconds"))
        lines.append(
            f"| {motion} | {contender} | {len(mine)} | {success:.0f} % | {middle:.4f} | {seconds:.3f} | {cpu:.3f} |"
        )
    return "\n".join(lines) + "\n"


def installed() -> list[str]:
    return [name for name, one in CONTENDERS.items() if importlib.util.find_spec(one.module) is not None]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, required=True, help="folder of pictures")
    parser.add_argument("--side", type=int, default=256, help="pixels of the images")
    parser.add_argument("--pairs", type=int, default=3, help="per picture and set of maps")
    parser.add_argument("--contenders", nargs="+", choices=CONTENDERS, metavar="NAME", help="default: those installed")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--resume", action="store_true", help="keep the rows of an earlier run")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/registration"), help="without the suffix")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    title = f"Registration, {given.side} pixels, {given.threads} threads, {machine()}, torch {torch.__version__}"
    kept = Kept(given.out, lambda rows: table(rows, title), resume=given.resume)
    photographs(kept, given.root, given.side, given.pairs, given.contenders or installed())
    if not kept.has(picture="volume"):
        kept.add(volume())
    print(kept.page(kept.rows))


if __name__ == "__main__":
    main()
