"""From the identity to an affine map

`ExponentialAffine` is the exponential of theta: a share of theta is a share of the way,
and no step shears by accident.
"""

import matplotlib.pyplot as plt
import torch

import stn
from stn.lab.data import load

digit = load("digits").train.images[3:4].float()
theta = torch.tensor([[0.2, -1.2, 0.1, 1.0, -0.3, 0.2]])
shares = torch.arange(-3, 4)[:, None] / 3
frames = stn.ExponentialAffine()(shares * theta).sample(digit.expand(7, -1, -1, -1), 84)

figure, axes = plt.subplots(1, 7, figsize=(8, 1.5), layout="constrained")
for ax, frame, share in zip(axes, frames, shares, strict=True):
    ax.imshow(frame[0], cmap="gray")
    ax.set_title(f"{share.item():+.2f} theta", fontsize=8)
    ax.axis("off")
plt.show()
