"""Two brain slices of different people, registered by stn and by ANTs, as a picture.

    pip install antspyx
    python -m stn.lab.studies.slices --root DIR [--out slices]

DIR holds r16slice.jpg and r64slice.jpg, the example pair of ANTsPy (folder data of its repository, Apache License 2.0). stn
finds an affine map, then a velocity after it; ANTs an affine map, then SyN, with the defaults of ANTsPy. The second row
shows the differences from the fixed slice, gray where there is none. The numbers are the correlation with the fixed slice
over all pixels, and the share of pixels at which the map folds. Without ANTs its column is missing.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch

import stn
from stn.io.images import read_picture
from stn.lab.bench.rivals import DEFORMABLE, RIVALS, Array, Move, moved
from stn.lab.figures.style import bare, save

NAMES = ("r16slice.jpg", "r64slice.jpg")  # moving, fixed


def found(moving: Array, fixed: Array) -> dict[str, Move]:
    """Return the map of each method, from pixels of the fixed image to pixels of the moving one."""
    images = [torch.from_numpy(image)[None, None].float() for image in (moving, fixed)]
    affine = stn.register(images[0], images[1], "affine").warp
    bent = stn.register(images[0], images[1], stn.Velocity(2, shape=(17, 17)), start=affine, loss="lncc").warp
    sizes = moving.shape, fixed.shape
    maps = {"stn, affine": moved(affine, *sizes), "stn, affine and velocity": moved(bent, *sizes)}
    ants = next(one for one in RIVALS if one.name == "ANTs")
    return maps | ({"ANTs, affine and SyN": ants.find(moving, fixed, DEFORMABLE)} if ants.installed else {})


def warped(image: Array, move: Move) -> tuple[Array, float]:  # (H, W)
    """Return the image at the points of a map, and the share of pixels at which the map folds."""
    height, width = image.shape
    pixels = np.stack(np.meshgrid(np.arange(width), np.arange(height)), axis=-1).astype(np.float64)
    there = move(pixels.reshape(-1, 2)).reshape(height, width, 2)
    given = torch.from_numpy(np.ascontiguousarray(image, np.float64))[None, None]
    read: Array = stn.grid_sample(given, torch.from_numpy(there)[None], units="pixel")[0, 0].numpy()
    slopes = np.stack([np.gradient(there, axis=axis) for axis in (1, 0)], axis=-1)
    return read, float((np.linalg.det(slopes) <= 0).mean())


def draw(moving: Array, fixed: Array, maps: Mapping[str, Move], out: Path) -> dict[str, tuple[float, float]]:
    """Write the picture, and return the correlation and the share of folds of each map."""
    columns = {"moving": (moving, 0.0)} | {name: warped(moving, move) for name, move in maps.items()}
    figure, axes = bare(2, len(columns) + 1, height=3.9)
    axes[0, 0].set_title("fixed", fontsize=8)
    axes[0, 0].imshow(fixed, cmap="gray", vmin=0, vmax=1)
    axes[1, 0].axis("off")
    numbers = {}
    for (name, (image, folds)), pair in zip(columns.items(), axes[:, 1:].T, strict=True):
        numbers[name] = float(np.corrcoef(image.ravel(), fixed.ravel())[0, 1]), folds
        pair[0].set_title(f"{name}\ncorrelation {numbers[name][0]:.3f}", fontsize=8)
        pair[0].imshow(image, cmap="gray", vmin=0, vmax=1)
        pair[1].imshow(image - fixed, cmap="gray", vmin=-1, vmax=1)
    save(figure, out)
    return numbers


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, required=True, help="folder of the two slices")
    parser.add_argument("--out", type=Path, default=Path("slices"), help="without the suffix")
    given = parser.parse_args()
    moving, fixed = (read_picture(given.root / name)[0].numpy() for name in NAMES)
    numbers = draw(moving, fixed, found(moving, fixed), given.out.with_suffix(".png"))
    for name, (alike, folds) in numbers.items():
        print(f"{name}: correlation {alike:.4f}, folds in {100 * folds:.2f} % of the pixels")


if __name__ == "__main__":
    main()
