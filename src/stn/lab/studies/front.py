"""Draw the pictures of the start page, from committed rows and photographs of scikit-image (extra `bench`).

    python -m stn.lab.studies.front [--out docs] [--moving r64slice.jpg --fixed r16slice.jpg] [--run RUN]

speed.png and accuracy.png are charts of `benchmarks/results/cpu.json` and `results/*.jsonl`, each also for a dark page.
real.png shows sampled regions of photographs: a page of a book, a cup seen from the side, and a face. With two slices of
different brains (the example pair of ANTsPy, Apache-2.0) it also shows one registered to the other; the committed picture
needs these two files. reading.gif is a film of a run on curved strings of digits:

    stn reproduce text --root data --cells st-crnn/64x200 --seeds 1
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import skimage.data
import torch
from matplotlib.figure import Figure
from torch import Tensor

import stn
from stn import _check
from stn.io.images import read_picture
from stn.lab.bench.markdown import TORCH
from stn.lab.experiments.film import developed
from stn.lab.experiments.film import scenes as film_scenes
from stn.lab.experiments.folder import RunFolder
from stn.lab.figures.bars import DARK, LIGHT, Comparison, accuracy, speed, speedups
from stn.lab.figures.film import film, save_gif
from stn.lab.figures.lines import draw, mesh, outline
from stn.lab.figures.style import COLORS, bare, save, show

# name on the chart -> file of rows, the cell without the layer, the cell with it
COMPARED = {
    "rotated digits": ("seeds", "cnn/r", "st-cnn/r"),
    "rotated, scaled, translated digits": ("seeds", "cnn/rts", "st-cnn/rts"),
    "digits in clutter (60x60)": ("table1", "cnn/tc", "st-cnn-affine/tc"),
    "rotated solids, 3-D (32x32x32)": ("volumes", "cnn/32", "st-cnn/32"),
    "strings of digits on an arc": ("text", "crnn/64x200", "st-crnn/64x200"),
    "house numbers made of digits": ("strings", "cnn/64", "st-cnn-multi/64"),
}


def comparisons(results: Path) -> Iterator[Comparison]:
    for name, (file, without, with_layer) in COMPARED.items():
        rows = [json.loads(line) for line in (results / f"{file}.jsonl").read_text().splitlines()]
        yield Comparison(name, mean_error(rows, without), mean_error(rows, with_layer))


def mean_error(rows: Iterable[dict[str, Any]], cell: str) -> float:
    found = [float(row["error_percent"]) for row in rows if row["cell"] == cell]
    return sum(found) / len(found)


class Scene(NamedTuple):
    """An image, a warp, and the output sampled through it."""

    title: str
    image: Tensor  # (C, H, W)
    warp: stn.Warp
    output: Tensor  # (C, h, w)
    target: Tensor | None = None  # (C, h, w), the target of the output, drawn as contours


def scene(title: str, image: Tensor, warp: stn.Warp, size: tuple[int, int]) -> Scene:
    return Scene(title, image, warp, warp.sample(image.unsqueeze(0), size, antialias=True)[0])


def photographs() -> Iterator[Scene]:
    page = photograph("page")
    spline = stn.ThinPlateSpline(control_points=stn.text_edges(2 * len(ABOVE)), parameters="positions")
    lines = normalized([*ABOVE, *BELOW], page).flatten().unsqueeze(0)
    yield scene("thin-plate spline", page, spline(lines), (162, 324))
    cat = photograph("chelsea")
    eyes = stn.from_pixel_matrix(through_two_points(EYES, EYES_LEVEL), cat.shape[1:], SQUARE, convention="opencv-inverse")
    yield scene("similarity", cat, eyes, SQUARE)
    cup = photograph("coffee")
    yield scene("anisotropic scale", cup, stn.AnisotropicScale()(SAUCER.unsqueeze(0)), SQUARE)


SQUARE = (240, 240)
# Pixels (x, y) along the line above the second paragraph of the page, and along the rule below it.
ABOVE = (3, 44), (100, 47), (200, 48.5), (300, 48), (379, 45)
BELOW = (3, 151), (100, 156.5), (200, 160.5), (300, 159.5), (379, 153)
SLICE = 220, 200  # pixels
BRAIN = slice(24, 24 + SLICE[0]), slice(16, 16 + SLICE[1])  # around it both slices are black
EYES, EYES_LEVEL = ((173, 103), (325, 135)), ((50, 105), (190, 105))  # of the cat, and their target positions
SAUCER = torch.tensor([225 / 300, 177 / 200, (278 - 300) / 300, (229 - 200) / 200])  # half extents and center of a box


def photograph(name: str) -> Tensor:
    pixels = torch.from_numpy(getattr(skimage.data, name)()).float() / 255
    return pixels.movedim(-1, 0) if pixels.ndim == 3 else pixels.unsqueeze(0)


def normalized(points: Sequence[Sequence[float]], image: Tensor) -> Tensor:
    return stn.grid.pixel_to_normalized(torch.tensor(points), image.shape[1:])


def through_two_points(source: Sequence[Sequence[float]], target: Sequence[Sequence[float]]) -> Tensor:
    """Return the similarity that maps two target points to two source points, in pixels: (2, 3)."""
    (a, b), (c, d) = ([complex(*point) for point in pair] for pair in (source, target))
    turn = (b - a) / (d - c)
    move = a - turn * c
    return torch.tensor([[turn.real, -turn.imag, move.real], [turn.imag, turn.real, move.imag]])


def registered(moving: Path, fixed: Path) -> Scene:
    """Register the slice of one brain to that of another."""
    images = [read_picture(path) for path in (moving, fixed)]
    source, target = (image.mean(dim=0)[BRAIN].expand(1, 1, -1, -1) for image in images)
    affine = stn.register(source, target, "affine").warp
    found = stn.register(affine.sample(source), target, "velocity", loss="lncc")
    return scene("registration", source[0], affine @ found.warp, SLICE)._replace(target=target[0])


def real(found: Sequence[Scene]) -> Figure:
    """Draw two scenes per row: the image with the sampling grid, then the output."""
    figure, axes = bare(-(-len(found) // 2), 4, height=4.3)
    for (title, image, warp, output, target), (left, right) in zip(found, axes.reshape(-1, 2), strict=True):
        size = tuple(image.shape[1:])
        grid, edges = mesh(warp, size), outline(warp, size)
        show(left, image, around=edges[0])
        for lines, width in ((grid, 0.5), (edges, 1.8)):
            draw(left, lines[0], width)
        for ax in (left, right):  # the titles of a row on one line
            ax.set_anchor("N")
        show(right, output)
        if target is not None:
            right.contour(target[0], levels=[0.15, 0.75], colors=COLORS[1], linewidths=0.7)
        left.set_title("input and sampling grid", fontsize=8)
        right.set_title(f"output: {title}" + ("" if target is None else " (blue: target)"), fontsize=8)
    return figure


def reading(folder: RunFolder, chosen: Sequence[int]) -> Iterator[np.ndarray]:
    """Yield the film of a run for some of its images, which are drawn larger."""
    state = folder.load()
    found = developed(folder)
    if found is None or state is None:
        _check.fail(f"run must be a folder with the film of a training; got {folder.path}")
    layer, images, _ = found
    frames = [(step, theta[:, list(chosen)]) for step, theta in state["film"]["frames"]]
    shown = images[list(chosen)]
    with torch.inference_mode():
        yield from film(shown, [*film_scenes(layer, shown, frames)], folder.told())


def main(out: Path, moving: Path | None, fixed: Path | None, run: Path | None = None, rows: Path = Path()) -> None:
    if run:
        save_gif([*reading(RunFolder(run), FILMED)], out / "reading.gif")
    benchmark = json.loads((rows / "benchmarks/results/cpu.json").read_text())["rows"]
    ratios, errors = speedups(benchmark, TORCH), [*comparisons(rows / "results")]
    for theme in (LIGHT, DARK):
        save(speed({s: t for s, t in ratios.items() if s in SUITES}, theme), out / f"speed{theme.suffix}.png")
        save(accuracy(errors, theme), out / f"accuracy{theme.suffix}.png")
    scenes = [*photographs(), *([registered(moving, fixed)] if moving and fixed else [])]
    if len(scenes) == 4:
        save(real(scenes), out / "real.png")


FILMED = (0, 2, 3)  # of the six strings in the film
SUITES = ("affine", "small", "channels_last", "one_image", "thin_plate", "opencv", "grids", "attention")

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("docs"), help="Folder of the pictures.")
    parser.add_argument("--moving", type=Path, help="A picture to register.")
    parser.add_argument("--fixed", type=Path, help="The picture to register it to.")
    parser.add_argument("--run", type=Path, help="The folder of a run whose film is shown.")
    arguments = parser.parse_args()
    main(arguments.out, arguments.moving, arguments.fixed, arguments.run)
