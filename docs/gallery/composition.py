"""Compose warps, sample once

Sixteen rotations, each sampled from the last picture, blur it. Composed with `@`, they
are one warp and one sampling.
"""

import matplotlib.pyplot as plt
import torch
from sklearn.datasets import load_sample_image

import stn

photo = (
    torch.tensor(load_sample_image("china.jpg")).movedim(2, 0)[None, :, 50:210, 150:310]
    / 255
)
step = stn.Rigid()(torch.tensor([[2 * torch.pi / 16, 0.0, 0.0]]))
repeated, whole = photo, step
for i in range(16):
    repeated = step.sample(repeated, padding_mode="border")
    whole = step @ whole if i else whole
composed = whole.sample(photo, padding_mode="border")

figure, axes = plt.subplots(1, 3, figsize=(7, 2.6), layout="constrained")
titles = ("photograph", "16 times sampled", "composed, sampled once")
for ax, image, title in zip(axes, (photo, repeated, composed), titles, strict=True):
    ax.imshow(image[0].movedim(0, 2))
    ax.set_title(title, fontsize=9)
    ax.axis("off")
plt.show()
