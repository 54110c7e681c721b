"""A warp that cannot fold

`Velocity` and `CPAB` follow points along a smooth flow. The opposite theta is the
inverse, and brings the picture back.
"""

import matplotlib.pyplot as plt
import torch

import stn

size = (160, 160)
x, y = stn.grid.lattice(size).unbind(dim=-1)
lines = ((10 * x).frac().abs().minimum((10 * y).frac().abs()) < 0.12).float()[
    None, None
]
family = stn.Velocity()
theta = 1.5 * torch.randn(
    1, family.num_params, generator=torch.Generator().manual_seed(2)
)
warp, back = family(0.3 * theta), family(-0.3 * theta)
there = warp.sample(lines, padding_mode="border")
again = (warp @ back).sample(lines, padding_mode="border")
smallest = warp.jacobian_determinant(size).min()

figure, axes = plt.subplots(1, 3, figsize=(7, 2.5), layout="constrained")
titles = ("grid", f"warped, smallest determinant {smallest:.2f}", "and back")
for ax, image, title in zip(axes, (lines, there, again), titles, strict=True):
    ax.imshow(image[0, 0], cmap="gray")
    ax.set_title(title, fontsize=9)
    ax.axis("off")
plt.show()
