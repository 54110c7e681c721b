"""The distance from which a photograph is registered to its shifted and rotated copy, by gradient descent on theta.

    python -m stn.lab.studies.recovery [--out benchmarks/results/recovery] [--directions 4]

The fixed image is the middle half of 400x400 pixels of a photograph (scikit-image, extra `bench`), shifted by so many
pixels in several directions and rotated by up to 10 degrees. The search starts at the identity. It minimizes the mean
squared error in 300 steps along theta's gradient; their length falls from 0.006 (1.2 pixels) to 0. "Adam" uses this
length as the learning rate of Adam. "Look of a quarter" samples 50x50 pixels instead of 200x200. Success means that the
mean error is below one pixel.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import skimage.color
import skimage.data
import torch
from torch import Tensor

import stn
from stn.io.files import write_rows

PHOTOGRAPHS = "astronaut", "brick", "camera", "coffee", "grass", "rocket"
SIDE, STEPS, RATE, TURN = 400, 300, 0.006, math.radians(10)
DISTANCES = 4, 8, 16, 24, 32, 48, 64, 96
FULL, SMALL = (200, 200), (50, 50)
METHODS: dict[str, tuple[tuple[int, int], dict[str, Any]]] = {
    "plain": (FULL, {}),
    "wide": (FULL, {"gradient": "wide"}),
    "plain, look of a quarter": (SMALL, {}),
    "anti-aliased, look of a quarter": (SMALL, {"antialias": True}),
    "wide and anti-aliased, look of a quarter": (SMALL, {"antialias": True, "gradient": "wide"}),
    "plain, Adam": (FULL, {}),
    "wide, Adam": (FULL, {"gradient": "wide"}),
}
HALF = stn.Attention(scale=0.5)


def photograph(name: str) -> Tensor:
    pixels = torch.from_numpy(getattr(skimage.data, name)() / 255.0).float()
    if pixels.ndim == 3:
        pixels = torch.from_numpy(skimage.color.rgb2gray(pixels.numpy()))
    top, left = ((n - SIDE) // 2 for n in pixels.shape)
    return pixels[top : top + SIDE, left : left + SIDE].contiguous()


def look(theta: Tensor) -> stn.Warp:
    return stn.Rigid()(theta) @ HALF(theta.new_zeros(len(theta), 2))


def errors(images: Tensor, truth: Tensor, size: tuple[int, int], options: dict[str, Any], *, adam: bool = False) -> Tensor:
    """Mean distance of five points from their true positions, in pixels of the photograph, for each image."""
    antialias = options.get("antialias", False)
    target = look(truth).sample(images, size, padding_mode="border", antialias=antialias)
    theta, pyramid = torch.zeros_like(truth, requires_grad=True), stn.Pyramid(images)
    optimizer = torch.optim.Adam([theta])
    for step in range(STEPS):
        seen = look(theta).sample(images, size, padding_mode="border", pyramid=pyramid, **options)
        (gradient,) = torch.autograd.grad((seen - target).square().mean(dim=(1, 2, 3)).sum(), theta)
        length = RATE * (1 + math.cos(math.pi * step / STEPS)) / 2
        if adam:
            theta.grad, optimizer.param_groups[0]["lr"] = gradient, length
            optimizer.step()
            continue
        with torch.no_grad():
            theta -= length * gradient / gradient.norm(dim=1, keepdim=True).clamp_min(1e-12)
    points = torch.tensor([[-1.0, -1], [1, -1], [-1, 1], [1, 1], [0, 0]])
    apart = look(theta.detach()).points(points) - look(truth).points(points)
    return apart.norm(dim=-1).mean(dim=1) * SIDE / 2


def reach(successes: dict[int, float]) -> str:
    """The distance at which the share of successes falls to one half, by linear interpolation."""
    before = 0
    for distance, share in successes.items():
        if share < 0.5:
            above = successes[before] if before else 1.0
            return f"{before + (distance - before) * (above - 0.5) / (above - share):.0f}"
        before = distance
    return f"more than {before}"


def table(rows: dict[str, dict[int, float]], trials: int) -> str:
    lines = [f"## Recovery: share of {trials} registrations with an error below one pixel", "", __doc__ or "", ""]
    lines += [f"| initial error, pixels | {' | '.join(map(str, DISTANCES))} | 50 % up to |", "|---|" + "---:|" * 9]
    for method, found in rows.items():
        cells = [f"{100 * found[d]:.0f} %" if d in found else "" for d in DISTANCES]
        lines.append(f"| {method} | {' | '.join(cells)} | {reach(found)} |")
    return "\n".join(lines) + "\n"


def main(out: Path, directions: int, progress: Callable[[str], None] = print) -> None:
    images = torch.stack([photograph(name) for name in PHOTOGRAPHS]).unsqueeze(1).repeat_interleave(directions, dim=0)
    generator = torch.Generator().manual_seed(0)
    within = torch.rand(len(images), generator=generator)
    angle = 2 * math.pi * (torch.arange(len(images)) + within) / directions
    turn = (2 * torch.rand(len(images), generator=generator) - 1) * TURN
    rows: dict[str, dict[int, float]] = {}
    for method, (size, options) in METHODS.items():
        for distance in DISTANCES:
            shift = distance / (SIDE / 2)
            truth = torch.stack([turn, shift * angle.cos(), shift * angle.sin()], dim=1)
            apart = errors(images, truth, size, options, adam="Adam" in method)
            share = (apart < 1).float().mean().item()
            rows.setdefault(method, {})[distance] = share
            progress(f"{method}, {distance} pixels: {100 * share:.0f} %")
            write_rows(out, rows, table(rows, len(images)))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/recovery"), help="without its suffix")
    parser.add_argument("--directions", type=int, default=4, help="of the shift, for each photograph")
    arguments = parser.parse_args()
    main(arguments.out, arguments.directions)
