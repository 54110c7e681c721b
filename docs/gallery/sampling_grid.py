"""The sampling grid

A warp maps each output pixel to a point of the input. The output is the input, read at
these points.
"""

import matplotlib.pyplot as plt
import torch
from sklearn.datasets import load_sample_image

import stn

photo = (
    torch.tensor(load_sample_image("flower.jpg")).movedim(2, 0)[None] / 255
)  # (1, 3, 427, 640)
warp = stn.Affine.from_parts(
    angle=0.4, scale=torch.tensor([[0.6, 0.7]]), aspect=(427, 640)
)
points = warp.points(stn.grid.lattice((9, 13)).flatten(0, 1))  # (1, 117, 2), normalized
x, y = (
    stn.grid.normalized_to_pixel(points[0], (427, 640))
    .unflatten(0, (9, 13))
    .unbind(dim=-1)
)

figure, (left, right) = plt.subplots(1, 2, figsize=(7, 2.6), layout="constrained")
left.imshow(photo[0].movedim(0, 2))
left.plot(x, y, color="white", linewidth=1)
left.plot(x.T, y.T, color="white", linewidth=1)
right.imshow(warp.sample(photo)[0].movedim(0, 2))
for ax in (left, right):
    ax.axis("off")
plt.show()
