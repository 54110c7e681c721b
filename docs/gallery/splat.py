"""Push pixels along a flow

`splat` adds each pixel around the place to which it moves. Where none arrives there is
a hole, with a weight of zero.
"""

import matplotlib.pyplot as plt
import torch
from sklearn.datasets import load_sample_image

import stn

photo = torch.tensor(load_sample_image("flower.jpg")).movedim(2, 0)[None] / 255
photo = torch.nn.functional.avg_pool2d(photo, 2)  # (1, 3, 213, 320)
size = tuple(photo.shape[2:])
x, y = stn.grid.lattice(size).unbind(dim=-1)
near = (2.25 * x**2 + y**2 < 0.35).float()  # a disc moves over the rest
flow = torch.stack([50 * near, 12 * near], dim=-1)[None]  # (dx, dy) in pixels
options = {"units": "pixel", "relative": True, "reduce": "mean", "return_weight": True}
moved, weight = stn.splat(
    photo, flow, size, weights=(9 * near)[None, None].exp(), **options
)
shown = torch.where(
    weight > 1e-3, moved, torch.tensor([1.0, 0.3, 0.1]).view(1, 3, 1, 1)
)

figure, axes = plt.subplots(1, 2, figsize=(7, 2.5), layout="constrained")
for ax, image, title in zip(
    axes, (photo, shown), ("first frame", "pushed; holes are red"), strict=True
):
    ax.imshow(image[0].movedim(0, 2).clamp(0, 1))
    ax.set_title(title, fontsize=9)
    ax.axis("off")
plt.show()
