"""Nine looks at one image

A theta of shape (N, K, P) samples K regions of each image. No copy of the image is
made.
"""

import matplotlib.pyplot as plt
import torch
from sklearn.datasets import load_sample_image

import stn

photo = torch.tensor(load_sample_image("china.jpg")).movedim(2, 0)[None] / 255
centers = torch.cartesian_prod(
    torch.tensor([-0.6, 0.0, 0.6]), torch.tensor([-0.6, 0.0, 0.6])
).flip(1)
theta = torch.cat([torch.full((9, 1), 0.25), centers], dim=1)  # scale, x, y
looks = stn.Attention()(theta[None]).sample(
    photo, (71, 106), antialias=True
)  # (1, 9, 3, 71, 106)

figure, axes = plt.subplots(3, 3, figsize=(5.4, 3.7), layout="constrained")
for ax, look in zip(axes.flat, looks[0], strict=True):
    ax.imshow(look.movedim(0, 2))
    ax.axis("off")
plt.show()
