"""Draw a zone plate, downscaled by plain bilinear sampling and with anti-aliasing.

    python examples/aliasing.py [--out runs/aliasing.png]

The rings of a zone plate become narrower from the center outwards, down to two pixels each. Plain downscaling shows false
rings. Averaging over the area that each output pixel covers fades to gray.
"""

import argparse
import math
from pathlib import Path

import torch
from matplotlib.figure import Figure
from torch import Tensor

import stn

SIDE, SHRUNK = 512, 128
LOOKS = {"all of it, 4 times smaller, turned by 20°": (1.0, 1.0), "all its height, a quarter of its width": (0.25, 1.0)}
OPTIONS: dict[str, bool | str] = {"plain": False, "antialias=True": True, 'antialias="anisotropic"': "anisotropic"}


def zone_plate(side: int) -> Tensor:
    """Return (1, 1, side, side): cos(pi r^2 / side) has r / side rings per pixel."""
    u = torch.arange(side) - (side - 1) / 2
    return (0.5 + 0.5 * torch.cos(math.pi / side * (u**2 + u[:, None] ** 2)))[None, None]


def main(out: Path) -> None:
    image, angle = zone_plate(SIDE), torch.tensor(math.radians(20.0))
    pyramid = stn.Pyramid(image)  # built once for all looks
    figure = Figure(figsize=(9, 6.5), layout="constrained")
    axes = figure.subplots(len(LOOKS), len(OPTIONS))
    for row, (what, (sx, sy)) in enumerate(LOOKS.items()):
        warp = stn.Affine.from_parts(angle=angle * (sx == sy), scale=torch.tensor([[sx, sy]]))
        for column, (name, antialias) in enumerate(OPTIONS.items()):
            look = warp.sample(image, (SHRUNK, SHRUNK), antialias=antialias, pyramid=pyramid, padding_mode="border")
            axes[row, column].imshow(look[0, 0].numpy(), cmap="gray", vmin=0, vmax=1)
            axes[row, column].set(xticks=[], yticks=[], title=name if row == 0 else "")
        axes[row, 0].set_ylabel(what)
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out, dpi=100)
    print(out)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/aliasing.png"))
    main(parser.parse_args().out)
