"""Turn a volume

The same families work on volumes. A tilted slice is an output of one pixel along z.
"""

import matplotlib.pyplot as plt
import torch

import stn

size = (48, 64, 64)
x, y, z = stn.grid.lattice(size).unbind(dim=-1)
shell = ((x**2 + y**2 + (0.8 * z) ** 2).sqrt() - 0.7).abs() < 0.08
rod = (x**2 + z**2).sqrt() < 0.15
volume = (0.6 * shell + rod).clamp(0, 1)[None, None].float()  # (1, 1, 48, 64, 64)
angles = torch.linspace(0, 1.2, 4)
theta = torch.zeros(4, 6)
theta[:, 0] = angles  # about the x axis
slices = stn.Rigid(3)(theta).sample(
    volume.expand(4, -1, -1, -1, -1), (1, 96, 96)
)  # (4, 1, 1, 96, 96)

figure, axes = plt.subplots(1, 4, figsize=(7.5, 2.1), layout="constrained")
for ax, image, angle in zip(axes, slices, angles, strict=True):
    ax.imshow(image[0, 0], cmap="magma")
    ax.set_title(f"tilted by {angle:.1f} rad", fontsize=9)
    ax.axis("off")
plt.show()
