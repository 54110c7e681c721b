"""Move four points

A thin-plate spline moves its control points exactly, and bends the picture between them
as little as possible.
"""

import matplotlib.pyplot as plt
import torch
from sklearn.datasets import load_sample_image

import stn

photo = torch.tensor(load_sample_image("flower.jpg")).movedim(2, 0)[None] / 255
border = [
    [x, y] for x in (-1.0, 0.0, 1.0) for y in (-1.0, 0.0, 1.0) if (x, y) != (0, 0)
]
inner = torch.tensor([[-0.3, -0.3], [0.3, -0.3], [0.3, 0.3], [-0.3, 0.3]])
points = torch.cat([torch.tensor(border), inner])  # (12, 2): the border stays
offsets = torch.zeros(12, 2)
offsets[8:] = torch.tensor([[0.15, 0.1], [-0.1, 0.25], [-0.2, -0.1], [0.1, -0.2]])
warp = stn.ThinPlateSpline(control_points=points)(offsets.flatten()[None])

figure, axes = plt.subplots(1, 2, figsize=(7, 2.6), layout="constrained")
axes[0].imshow(photo[0].movedim(0, 2))
axes[1].imshow(warp.sample(photo)[0].movedim(0, 2))
for ax, at in zip(axes, (points + offsets, points), strict=True):
    ax.plot(*stn.grid.normalized_to_pixel(at[8:], (427, 640)).T, "o", color="orange")
    ax.axis("off")
plt.show()
