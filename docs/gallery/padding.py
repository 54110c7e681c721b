"""Padding

Outside the input, the output shows a value, the border, a mirror or a repetition.
"""

import matplotlib.pyplot as plt
import torch
from sklearn.datasets import load_sample_image

import stn

photo = (
    torch.tensor(load_sample_image("china.jpg")).movedim(2, 0)[None, :, :, 100:527]
    / 255
)
warp = stn.Affine.from_parts(angle=0.3, scale=1.8)
options = (
    {"padding_mode": "zeros", "fill_value": 0.5},
    {"padding_mode": "border"},
    {"padding_mode": "reflection"},
    {"padding_mode": "wrap"},
)

figure, axes = plt.subplots(1, 4, figsize=(7.5, 2.1), layout="constrained")
for ax, given in zip(axes, options, strict=True):
    ax.imshow(warp.sample(photo, 160, antialias=True, **given)[0].movedim(0, 2))
    ax.set_title(given["padding_mode"], fontsize=9)
    ax.axis("off")
plt.show()
