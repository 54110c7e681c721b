"""Rectify a line of text

A thin-plate spline with control points along both edges of a line straightens digits on
an arc.
"""

import matplotlib.pyplot as plt
import torch

import stn
from stn.lab.data import load

digits = load("digits").test.images[[3, 1, 4, 5, 9, 2, 6]].float()  # (7, 1, 28, 28)
line = digits.movedim(0, 2).flatten(2)[None]  # (1, 1, 28, 196)
family = stn.ThinPlateSpline(control_points=stn.text_edges(20), parameters="positions")
x = torch.linspace(-0.9, 0.9, 10)
arc = [
    torch.stack([0.95 * x * (1 - 0.3 * edge), 0.5 * edge + 0.5 * x**2 - 0.2], dim=1)
    for edge in (-0.6, 0.6)
]
positions = torch.cat(arc)  # in the picture: of the upper, then of the lower edge
warp = family(positions.flatten()[None])
curved = warp.write(line, (96, 224), antialias=True)  # the picture of a curved line
straight = warp.sample(curved, (32, 200), antialias=True)

figure, axes = plt.subplots(
    2, 1, figsize=(5, 3.2), layout="constrained", height_ratios=(96, 40)
)
axes[0].imshow(curved[0, 0], cmap="gray")
axes[0].plot(*stn.grid.normalized_to_pixel(positions, (96, 224)).T, ".", color="orange")
axes[1].imshow(straight[0, 0], cmap="gray")
for ax in axes:
    ax.axis("off")
plt.show()
