"""Rectify four corners

`from_corners` makes the homography of a page, a plate or a screen. The corners are
pixels, clockwise from the top left.
"""

import matplotlib.pyplot as plt
import torch
from sklearn.datasets import load_sample_image

import stn

page = torch.tensor(load_sample_image("flower.jpg")).movedim(2, 0)[None] / 255
corners = torch.tensor([[150.0, 60], [420, 20], [520, 330], [90, 300]])
scene = stn.from_corners(corners, (360, 600)).write(
    page, (360, 600), antialias=True
)  # a picture of a page
scene = scene + 0.25 * (scene.amax(dim=1, keepdim=True) == 0)
flat = stn.from_corners(corners, (360, 600)).sample(scene, (200, 300))

figure, (left, right) = plt.subplots(1, 2, figsize=(7, 2.5), layout="constrained")
left.imshow(scene[0].movedim(0, 2).clamp(0, 1))
left.plot(*corners[[0, 1, 2, 3, 0]].T, "o-", color="orange")
right.imshow(flat[0].movedim(0, 2).clamp(0, 1))
for ax in (left, right):
    ax.axis("off")
plt.show()
