"""Straighten photographs of words with the thin-plate rectifier of a run on curved strings of digits.

    stn train --data mnist --root data --distortion curved --model st-crnn --out runs/curved
    python examples/rectify.py runs/curved PICTURE [PICTURE ..] [--out runs/rectified.png]

The rectifier was trained on light strings on a dark ground, so each photograph is converted to gray, light on dark, at the
size of those strings. The script draws the sampled region into the original photograph, and samples the straightened word
from it.
"""

import argparse
from pathlib import Path

import torch
from matplotlib.figure import Figure
from torch import Tensor
from torch.nn import functional as F

from stn.io.images import read_picture
from stn.lab.data import SCENES
from stn.lab.experiments import RunFolder
from stn.lab.experiments.evaluate import trained_network
from stn.lab.figures.lines import draw, mesh
from stn.lab.figures.style import rgb, save
from stn.nn import SpatialTransformer

SIZE = SCENES["curved"].shape[1:]  # of the training strings, and of straightened words


def as_strings_are(photograph: Tensor) -> Tensor:  # (1, 3, H, W) -> (1, 1, 64, 200)
    """Return light letters on black: pixels that differ in brightness from the edge of the photograph."""
    grey = F.interpolate(photograph.mean(dim=1, keepdim=True), SIZE, mode="bilinear", antialias=True)
    edge = torch.cat([grey[..., 0, :].flatten(), grey[..., -1, :].flatten()]).median()
    letters = grey - edge
    letters = letters if letters.clamp_min(0).sum() > letters.clamp_max(0).abs().sum() else -letters
    low, high = torch.quantile(letters, torch.tensor([0.5, 0.98])).clamp_min(0)
    return ((letters - low) / (high - low).clamp_min(1e-3)).clamp(0, 1)


def main(run: Path, pictures: list[Path], out: Path) -> None:
    layer = trained_network(RunFolder(run)).get_submodule("transformer")
    assert isinstance(layer, SpatialTransformer)
    figure = Figure(figsize=(9, 1.3 * len(pictures)), layout="constrained")
    axes = figure.subplots(len(pictures), 3, squeeze=False)
    for ax, title in zip(axes[0], ("rectifier input", "sampled region", "straightened"), strict=True):
        ax.set_title(title, fontsize=9)
    for row, path in zip(axes, pictures, strict=True):
        photograph = read_picture(path)[None, :3]
        with torch.inference_mode():
            seen = as_strings_are(photograph)
            warp = layer(seen, return_warp=True)[1]
            straight = warp.sample(photograph, SIZE, antialias=True, padding_mode="border")
        for ax, image in zip(row, (seen, photograph, straight), strict=True):
            ax.imshow(rgb(image[0]), aspect="auto")
            ax.set(xticks=[], yticks=[])
        draw(row[1], mesh(warp, tuple(photograph.shape[2:]))[0], 0.7)
    print(save(figure, out))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("pictures", type=Path, nargs="+")
    parser.add_argument("--out", type=Path, default=Path("runs/rectified.png"))
    given = parser.parse_args()
    main(given.run, given.pictures, given.out)
